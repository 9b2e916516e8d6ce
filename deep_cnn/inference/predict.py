"""Predict the scores or classes of pictures with trained networks."""

import logging
import math
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from deep_cnn.data.content import content_digest, count_in_splits
from deep_cnn.data.decoding import decode, is_transient
from deep_cnn.data.image_cache import in_threads
from deep_cnn.errors import DataError, LoadingError
from deep_cnn.files import write_whole
from deep_cnn.inference.ensemble import Ensemble
from deep_cnn.inference.formats import FORMATS, Table, choose_format, refuse_no_places, write_csv
from deep_cnn.inference.pictures import Pictures, find_pictures, listed
from deep_cnn.inference.trained import Trained, open_trained
from deep_cnn.inference.unfinished import Row, Unfinished
from deep_cnn.inference.verbs import PredictOptions
from deep_cnn.models import Network
from deep_cnn.progress import Progress
from deep_cnn.training.devices import choose_threads, threads_restored
from deep_cnn.training.stop import StopToken

if TYPE_CHECKING:
    from pandas import DataFrame

_LOGGER = logging.getLogger("deep_cnn")


class Model:
    """A trained network.

    Attributes:
        network: The network; it takes pictures, (N, C, H, W) uint8, of its size.
    """

    def __init__(self, trained: Trained) -> None:
        self._ensemble = Ensemble([trained])
        self.network: Network = trained.network

    def predict(self, pictures: "str | Path | Iterable[str | Path]") -> "DataFrame":
        """Return a row for each picture, with the columns of the command line.

        `pictures` are paths, or one path of a folder, a picture or a table. A picture that cannot
        be read has empty values, and a warning is logged. Raises DataError if there is none.
        """
        from pandas import DataFrame

        one = isinstance(pictures, str | Path)
        found = find_pictures(Path(str(pictures))) if one else listed(pictures)  # type: ignore[arg-type]
        rows = [*chain.from_iterable(_predict(self._ensemble, found, StopToken(), 0))]
        places = any(row.place for row in rows)
        table = Table(found, self._ensemble.columns, has_places=places)
        cells = [table.cells(i, row) for i, row in enumerate(rows)]
        kinds = {name: float for name, kind in table.types.items() if kind == "float64"}
        return DataFrame(cells, columns=table.columns).astype(kinds)


def load(path: str | Path, device: str = "auto", model: str | None = None) -> Model:
    """Return the trained network in a checkpoint; raise CheckpointError if it is not usable.

    Everything that it needs is in the checkpoint, and nothing in the file is run as code. For a
    network of your own, `model` names its class, as file.py:Class, which must not have changed.
    """
    return Model(open_trained(Path(path), device, model=model))


def predict_to(
    checkpoints: Sequence[Path], path: Path, options: PredictOptions, stop: StopToken
) -> None:
    """Predict for the pictures in `path`, and write options.out or to standard output.

    Raises:
        Interrupted: The prediction was asked to end; the same command continues it.
        DeepCnnError: A checkpoint, the pictures or the file are not usable.
    """
    out = Path(options.out).expanduser() if options.out else None
    if out:
        choose_format(out)
        _keep(out, overwrite=options.overwrite)
    pictures = find_pictures(path, options.image_column)
    with threads_restored():
        members = [open_trained(path, options.device, model=options.model) for path in checkpoints]
        first = members[0]
        config = first.session.config.replace(threads=options.threads)
        torch.set_num_threads(choose_threads(config, first.checkpoint.threads))
        ensemble, counts = Ensemble(members, options.top), _Counts()
        if out is None:
            batches = _predict(ensemble, pictures, stop, 0)
            rows = (counts.add(row) for row in chain.from_iterable(batches))
            head = [
                *islice(rows, ensemble.batch_size)
            ]  # Only these can say what columns there are.
            table = Table(pictures, ensemble.columns, has_places=any(row.place for row in head))
            write_csv(sys.stdout, table, chain(head, rows))
        else:
            _predict_file(ensemble, pictures, out, options, counts, stop)
    counts.finish(members, path, out)


def _keep(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise DataError(f"--out={out} is a folder; name a file in it")
    if out.exists() and not overwrite:
        raise DataError(f"--out={out} exists and is kept; --overwrite replaces it")


def _predict_file(
    ensemble: Ensemble,
    pictures: Pictures,
    out: Path,
    options: PredictOptions,
    counts: "_Counts",
    stop: StopToken,
) -> None:
    """Predict the pictures that are missing in `.FILE.part`, and then write FILE."""
    header = {
        "version": 1,
        "checkpoints": [member.digest for member in ensemble.members],
        "options": {"top": ensemble.top},
        "pictures": pictures.digest(),
        "columns": ensemble.columns,
    }
    total, overwrite = len(pictures), options.overwrite
    unfinished = Unfinished(out, header, ensemble.batch_size, total, overwrite=overwrite)
    with closing(unfinished):
        _keep(out, overwrite=overwrite)  # Another process may have finished meanwhile.
        counts.earlier = unfinished.done
        if counts.earlier:
            _LOGGER.info("Going on after %d of %d pictures", counts.earlier, total)
        for rows in _predict(ensemble, pictures, stop, unfinished.done):
            unfinished.append(rows)
        for row in unfinished.rows():
            counts.add(row)
        if counts.unreadable == counts.pictures:
            unfinished.remove()
            return
        if out.suffix.lower() == ".geojson" and not counts.has_places:
            raise refuse_no_places(out, unfinished.path)
        table = Table(pictures, ensemble.columns, has_places=counts.has_places)
        write = FORMATS[out.suffix.lower()]
        write_whole(out, lambda temporary: write(temporary, table, unfinished.rows()), "--out")
        unfinished.remove()


def _predict(
    ensemble: Ensemble, pictures: Pictures, stop: StopToken, start: int
) -> Iterator[list[Row]]:
    """Yield the rows of each batch from the picture `start` on, while threads decode the next."""
    count, size = len(pictures), ensemble.batch_size
    read = partial(_read, ensemble, pictures)
    results = in_threads(read, range(start, count), stop.raise_if_set)
    title, total = "Predicting", math.ceil(count / size)
    with closing(results), Progress(title, total, start // size) as progress:
        while batch := [*islice(results, size)]:
            yield _rows(ensemble, batch)
            progress.step()


def _read(
    ensemble: Ensemble, pictures: Pictures, index: int
) -> tuple[Sequence[NDArray[np.uint8]], Row]:
    """Return a picture for each preprocessing, none if it cannot be read, and its row."""
    path, place, name = pictures.path(index), pictures.place(index), pictures.names[index]
    if path is None:
        error = pictures.missing.get(name.strip()) or "no picture is named"
        _LOGGER.warning("%s cannot be read: %s", name, error)
        return (), Row(0, place, error, ())
    try:
        rows_off = dict.fromkeys(each.crop_bottom for each in ensemble.preprocessings)
        images = {crop: decode(path, crop) for crop in rows_off}
        shaped = [each.shape_image(images[each.crop_bottom]) for each in ensemble.preprocessings]
    except ValueError as problem:
        if is_transient(problem):
            text = getattr(problem.__cause__, "strerror", None) or problem
            raise LoadingError(f"{name} cannot be read now ({text}); try again") from None
        _LOGGER.warning("%s cannot be read: %s", name, problem)
        return (), Row(0, place, str(problem), ())
    place = place or pictures.place(index, next(iter(images.values())))
    return shaped, Row(content_digest(path), place, None, ())


def _rows(
    ensemble: Ensemble, batch: Sequence[tuple[Sequence[NDArray[np.uint8]], Row]]
) -> list[Row]:
    """Return the rows of a batch with their predictions; the last batch is filled up."""
    rows, specs = [row for _, row in batch], [each.spec for each in ensemble.preprocessings]
    if all(row.error for row in rows):
        return rows
    size = ensemble.batch_size
    inputs = [np.zeros((size, spec.channels, spec.crop, spec.crop), np.uint8) for spec in specs]
    for i, (shaped, _) in enumerate(batch):
        for each, picture in zip(inputs, shaped, strict=False):
            each[i] = picture
    values = ensemble.predict(inputs)
    return [
        row if row.error else row._replace(values=each)
        for row, each in zip(rows, values, strict=False)
    ]


@dataclass(slots=True)
class _Counts:
    """What the last lines say.

    Attributes:
        earlier: The number of pictures that an earlier process predicted.
    """

    started: float = field(default_factory=time.monotonic)
    pictures: int = 0
    unreadable: int = 0
    earlier: int = 0
    has_places: bool = False
    digests: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(self, row: Row) -> Row:
        """Count a row, and return it."""
        self.pictures += 1
        self.unreadable += row.error is not None
        self.has_places |= row.place is not None
        self.digests.append(row.digest)
        return row

    def finish(self, members: Sequence[Trained], path: Path, out: Path | None) -> None:
        """Log the counts; raise DataError if no picture could be read."""
        if self.unreadable == self.pictures:
            raise DataError(f"{path}: none of its {self.pictures} pictures can be read")
        for member in members:
            _LOGGER.info("%s: %s", member.path, self._in_splits(member))
        seconds = time.monotonic() - self.started
        computed = self.pictures - self.earlier
        speed = computed / max(seconds, 1e-9)
        text = f"{computed} pictures in {seconds:.1f} s, {speed:.1f} pictures per second"
        if self.earlier:
            text += f", and {self.earlier} before"
        if self.unreadable:
            text += f"; {self.unreadable} cannot be read"
        _LOGGER.info("%s%s", text, f"; {out}" if out else "")

    def _in_splits(self, member: Trained) -> str:
        digests = np.asarray(self.digests, np.uint64)
        counts = count_in_splits(member.splits, digests) if member.splits else None
        if counts is None:
            name = member.splits or "results/<run>.splits.npy"
            return f"which of the pictures it was trained on is not known, as {name} is missing"
        train, val, test = counts.values()
        return (
            f"{train} of the {self.pictures} pictures belong to its train split, {val} to val,"
            f" {test} to test, by content"
        )

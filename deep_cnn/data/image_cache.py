"""Decode and shape pictures once for all runs, and leave out those that cannot be decoded."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.array_cache import ArrayEntry, Check, Notes, fingerprint, open_array
from deep_cnn.data.decoding import Picture, decode, is_transient
from deep_cnn.data.preprocessing import Preprocessing
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.progress import track
from deep_cnn.resources import cores

_LOGGER = logging.getLogger("deep_cnn")
# Increase this number when the values of an entry change their meaning.
CACHE_VERSION = 3
_CHUNK = 256
_LARGEST_PART_UNREADABLE = 0.05
_MOST_LISTED = 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Pictures that are decoded and shaped.

    Attributes:
        values: (N, C, H, W) uint8; rows of unreadable pictures are undefined.
        rows: The row of each picture, by its name.
        unreadable: Why a picture cannot be read, by its name.
        fingerprint: Differs between caches with different values.
    """

    values: NDArray[np.uint8]
    rows: Mapping[str, int]
    unreadable: Mapping[str, str]
    fingerprint: str


_in_memory: dict[str, ImageCache] = {}


def open_image_cache(
    examples: Examples, preprocessing: Preprocessing, folder: Path | None, check: Check
) -> ImageCache | None:
    """Return the decoded and shaped pictures of `examples`; add missing ones to `folder`.

    Returns None without a folder, or, after a warning, if nothing can be kept there. `check` is
    called regularly and may raise. Pictures that are already arrays stay in memory.
    """
    if all(isinstance(picture, np.ndarray) for picture in examples.pictures):
        return _open_in_memory(examples, preprocessing)
    if folder is None:
        return None
    examples = examples.take(sorted(range(len(examples)), key=examples.names.__getitem__))
    names, pictures, spec = examples.names, examples.pictures, preprocessing.spec
    key = fingerprint(chain([CACHE_VERSION, *preprocessing.key], map(_stamp, names, pictures)))

    def shape(picture: Picture) -> NDArray[np.uint8] | str:
        try:
            return preprocessing.shape(picture)
        except ValueError as error:
            if is_transient(error):
                raise OSError(f"a picture could not be read: {error}") from None
            return str(error)

    def fill(values: NDArray[np.uint8]) -> Notes:
        unreadable = {}
        results = _in_threads(shape, pictures, "Decoding pictures, once for all", check)
        for i, result in enumerate(results):
            if isinstance(result, str):
                unreadable[names[i]] = result
            else:
                values[i] = result
        return unreadable

    sizes = (len(pictures), spec.channels, spec.crop, spec.crop)
    opened = open_array(ArrayEntry(folder / f"pictures-{key}", sizes, np.uint8, fill), check)
    if opened is None:
        return None
    values, unreadable = opened
    return ImageCache(values, {name: i for i, name in enumerate(names)}, unreadable, key)


def find_unreadable(
    examples: Examples, check: Check = lambda: None, crop_bottom: int = 0
) -> dict[int, str]:
    """Return the reason for each picture that cannot be decoded, by index; `check` may raise."""

    def reason(picture: Picture) -> str | None:
        try:
            decode(picture, crop_bottom)
        except ValueError as error:
            return str(error)
        return None

    reasons = enumerate(_in_threads(reason, examples.pictures, "Checking pictures", check))
    return {i: text for i, text in reasons if text is not None}


def drop_unreadable(
    examples: Examples, config: TrainConfig, check: Check, cache: ImageCache | None = None
) -> Examples:
    """Return the pictures that can be decoded, and log the names of the others.

    Raises DataError if more than 5 % are unreadable, or any with --strict_data.
    """
    names, count = examples.names, len(examples)
    if cache:
        bad = {i: cache.unreadable[n] for i, n in enumerate(names) if n in cache.unreadable}
    else:
        bad = find_unreadable(examples, check, config.crop_bottom)
    if not bad:
        return examples
    refuse_unreadable(examples, bad, config)
    _LOGGER.warning("%d of %d pictures are bad and left out:", len(bad), count)
    for index in list(bad)[:_MOST_LISTED]:
        _LOGGER.warning("  %s: %s", names[index], bad[index])
    if len(bad) > _MOST_LISTED:
        _LOGGER.warning("  and %d more", len(bad) - _MOST_LISTED)
    return examples.take([i for i in range(count) if i not in bad])


def refuse_unreadable(examples: Examples, bad: Mapping[int, str], config: TrainConfig) -> None:
    """Raise DataError if too many pictures are unreadable; `bad` has their indices and reasons."""
    rule = broken_rule(len(bad), len(examples), config)
    if rule:
        first = next(iter(bad))
        raise DataError(
            f"--data_dir={config.data_path}: {len(bad)} of {len(examples)} pictures are bad, the"
            f" first is {examples.names[first]} ({bad[first]}); {rule}, repair or remove them"
        )


def broken_rule(bad: int, count: int, config: TrainConfig) -> str | None:
    """Return the rule that forbids `bad` unreadable pictures among `count`, or None."""
    if bad and config.strict_data:
        return "--strict_data allows none"
    return "at most 5 % may be" if bad > _LARGEST_PART_UNREADABLE * count else None


def _in_threads(
    function: Callable[[Picture], _T], pictures: Sequence[Picture], title: str, check: Check
) -> Iterator[_T]:
    """Yield the result for each picture, in order; `check` is called regularly and may raise."""
    with ThreadPoolExecutor(cores()) as pool:
        # In chunks, because the results of all pictures do not fit into memory.
        source, starts = iter(pictures), range(0, len(pictures), _CHUNK)
        chunks = (pool.map(function, islice(source, _CHUNK)) for _ in starts)
        try:
            for result in track(chain.from_iterable(chunks), title, len(pictures)):
                check()
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _open_in_memory(examples: Examples, preprocessing: Preprocessing) -> ImageCache:
    raw = [hashlib.sha256(picture).digest() for picture in examples.pictures]  # type: ignore[arg-type]
    key = fingerprint([*preprocessing.key, examples.names, raw])
    if key not in _in_memory:
        values = np.stack([preprocessing.shape(picture) for picture in examples.pictures])
        rows = {name: i for i, name in enumerate(examples.names)}
        _in_memory.clear()  # The next run of this process most likely needs the same.
        _in_memory[key] = ImageCache(values, rows, {}, key)
    return _in_memory[key]


def _stamp(name: str, picture: Picture) -> tuple[Any, ...]:
    """Return values that change with a file; unlike mtime, ctime cannot be set back."""
    assert isinstance(picture, Path)
    path = os.path.abspath(picture)  # noqa: PTH100 - a link and its target are two names.
    try:
        stat = picture.stat()
    except OSError:
        return (name, path)
    return (name, path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

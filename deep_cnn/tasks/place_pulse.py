"""Read Place Pulse 2.0 as released: qscores.tsv, a folder of pictures, votes.tsv."""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_cnn.bootstrap import Statistic
from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.layout import SUFFIXES, is_litter
from deep_cnn.metrics import pairwise_accuracy
from deep_cnn.names import STUDIES
from deep_cnn.resolve import study_id
from deep_cnn.tasks import tables

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_LOGGER = logging.getLogger("deep_cnn")
_SIGMA = "trueskill.stds.-1"
# The location id in the name of a picture, and the place that may follow.
_ID = re.compile(r"(?<![0-9a-f])([0-9a-f]{24})(?![0-9a-f])_*(.*)", re.IGNORECASE)
_VOTE_COLUMNS = ("choice", "left", "right")
_CHOICES = {"left": 1, "right": -1, "equal": 0}
# Streets of 400 x 300 pixels have 20 kB and more, Google's grey tile with a line of text has a
# few. If the pictures are smaller copies, the limit is half of the median.
_STREET, _TILE, _TILE_PART = 18 * 1024, 12 * 1024, 0.5


def read_place_pulse(config: TrainConfig) -> Examples:
    """Return the pictures of Place Pulse with their scores in --study, sorted by location id.

    A score is TrueSkill's mu on its original scale. A key is the location id or the city. The log
    counts what is left out. Raises DataError if nothing is left, or with the line of an error.
    """
    root, options = config.data_path, config.options
    study, least, weighting = options["study"], options["min_votes"], options["weighting"]
    scores = _read_scores(root / "qscores.tsv", study, weighting, counted=least > 0)
    pictures = _find_pictures(root)
    both = scores[scores.index.isin(pictures)].sort_index()
    both = both.assign(picture=both.index.map(pictures))
    tiles = _tiles(root, both["picture"]) if options["no_imagery"] == "drop" else ()
    no_imagery = both.index.isin(tiles)
    few = (both["votes"] < least) & ~no_imagery
    chosen = both[~few & ~no_imagery]
    text = (
        f"{len(chosen)} pictures; left out: {len(pictures) - len(both)} pictures without a score,"
        f" {len(scores) - len(both)} scores without a picture, {no_imagery.sum()} pictures of 'no"
        f" imagery', {few.sum()} with too few votes"
    )
    if chosen.empty:
        way = "the location id belongs in the name of a picture"
        raise DataError(f"{root}: {text}; {'lower --min_votes' if few.any() else way}")
    _LOGGER.info("Place Pulse, %s: %s", study, text)
    _check_votes(root / "votes.tsv", study)
    names = tuple(chosen["picture"])
    keys = _cities(names, chosen["place_id"]) if options["group"] == "city" else chosen.index
    files = [root / name for name in names]
    return Examples(names, files, chosen["mu"].to_numpy(), chosen["weight"].to_numpy(), tuple(keys))


def judge_votes(
    path: Path, study: str, examples: Examples, predictions: NDArray[np.float64]
) -> dict[str, float]:
    """Return the agreement of `predictions` with the votes in votes.tsv on pairs of `examples`.

    `pairwise_test` is the pairwise accuracy over `votes_test` votes, without `ties_test` ties.
    `pairwise_truth_test` is the accuracy of the scores themselves, an estimate of the highest
    accuracy that the noise of the votes allows. It is optimistic because the scores were computed
    from these votes. Raises DataError with the line of an error.
    """
    left, right, choices = _votes(path, study, examples.names)
    ties = int((choices == 0).sum())
    _LOGGER.info("%d votes between two test pictures, %d of them ties", len(choices), ties)
    truths = examples.targets
    return {
        "pairwise_test": pairwise_accuracy(predictions[left], predictions[right], choices),
        "pairwise_truth_test": pairwise_accuracy(truths[left], truths[right], choices),
        "votes_test": float(len(choices) - ties),
        "ties_test": float(ties),
    }


def pairwise_statistics(
    path: Path, study: str, examples: Examples, predictions: NDArray[np.float64]
) -> dict[str, Statistic]:
    """Return the pairwise accuracies of `judge_votes` as statistics of resampled pictures.

    A vote counts as often as both of its pictures are drawn.
    """
    votes = _votes(path, study, examples.names)
    left, right, choices = (column[votes[2] != 0] for column in votes)

    def accuracy(scores: NDArray[np.float64]) -> Statistic:
        agreement = (np.sign(scores[left] - scores[right]) * choices + 1) / 2

        def statistic(counts: NDArray[np.float64]) -> NDArray[np.float64]:
            weights = counts[left] * counts[right]
            values: NDArray[np.float64] = agreement @ weights / weights.sum(axis=0)
            return values

        return statistic

    truths = examples.targets.astype(np.float64)
    return {"pairwise_test": accuracy(predictions), "pairwise_truth_test": accuracy(truths)}


@tables.read_once
def _votes(
    path: Path, study: str, names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the left and right pictures of each vote among `names`, and 1, -1, 0.

    Votes with faults are left out. Raises DataError if a column is missing.
    """
    votes, _ = _read_votes(path, study)
    position = {_location(name)[0]: i for i, name in enumerate(names)}
    sides = [votes[side].str.lower().map(position) for side in ("left", "right")]
    judged = sides[0].notna() & sides[1].notna() & (sides[0] != sides[1])
    left, right = (side[judged].to_numpy(dtype=np.int64) for side in sides)
    return left, right, votes["choice"][judged].map(_CHOICES).to_numpy(dtype=np.int64)


@tables.read_once
def _read_votes(path: Path, study: str) -> "tuple[DataFrame, tables.Reading]":
    """Return the votes of a study without those that have faults, and the faults."""
    reading = tables.Reading(path)
    votes = _read_study(path, study, _VOTE_COLUMNS, reading=reading)
    votes["choice"] = votes["choice"].str.strip().str.lower()
    votes[["left", "right"]] = votes[["left", "right"]].apply(lambda side: side.str.strip())
    wrong, text = ~votes["choice"].isin(_CHOICES), "is unknown; left, right and equal are known"
    reading.refuse(votes["choice"], wrong, text)
    for side in ("left", "right"):
        nameless = (votes[side] == "") & ~wrong
        reading.refuse(votes[side], nameless, "names no picture")
        wrong |= nameless
    return votes[~wrong], reading


def _check_votes(path: Path, study: str) -> None:
    """Warn before training about faults in the votes, which --test_net reads."""
    if path.is_file():
        try:
            votes, reading = _read_votes(path, study)
        except DataError as error:
            _LOGGER.warning("%s; as it is --test_net will fail", error)
            return
        if reading.faults:
            line, text = min(reading.faults)
            _LOGGER.warning(
                "%s: %d votes with faults are left out, %d remain; line %d: %s",
                path, len(reading.faults), len(votes), line, text,
            )  # fmt: skip


@tables.read_once
def _read_scores(path: Path, study: str, weighting: str, *, counted: bool) -> "DataFrame":
    """Return mu, weight, votes and place_id of the scored rows of the study, by location id."""
    weighted, counted = weighting == "sigma", counted or weighting == "votes"
    needed = ["location_id", "trueskill.score", *[_SIGMA] * weighted, *["num_votes"] * counted]
    reading = tables.Reading(path)
    rows = _read_study(path, study, needed, optional=("place_id",), reading=reading)
    rows["location_id"] = rows["location_id"].str.strip().str.lower()
    reading.refuse_repeated(rows["location_id"])
    rows = rows[~tables.is_missing(rows["trueskill.score"])]
    if rows.empty:
        reading.raise_faults()
        ids = tables.read_table(path, "\t", columns=["study_id"])["study_id"].unique()
        there = ", ".join(sorted(STUDIES.get(each, (each,))[0] for each in ids))
        raise DataError(f"{path} has no row of --study={study}; it has: {there}")
    weight = np.ones(len(rows))
    votes = reading.numbers(rows["num_votes"]) if counted else 0.0
    if weighted:
        sigma, text = reading.numbers(rows[_SIGMA]), "is not above 0; correct or remove it"
        reading.refuse(rows[_SIGMA], sigma <= 0, text, show=str)
        with np.errstate(divide="ignore"):
            weight = 1 / sigma**2
    elif weighting == "votes":
        weight = np.asarray(votes)
        reading.refuse(rows["num_votes"], weight < 0, "is negative; correct or remove it", show=str)
    mu = reading.numbers(rows["trueskill.score"])
    reading.raise_faults()
    place = rows.get("place_id", "")
    scores = rows.assign(mu=mu, weight=weight, votes=votes, place_id=place)
    return scores.set_index("location_id")[["mu", "weight", "votes", "place_id"]]


def _read_study(
    path: Path,
    study: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    reading: tables.Reading,
) -> "DataFrame":
    """Return these columns of the rows of a study, as text by line; raise DataError."""
    wanted = study_id(study)
    columns = tables.read_columns(path, "\t")
    _check_columns(path, columns, needed)
    read = [*needed, *(name for name in optional if name in columns)]
    where = ("study_id", wanted)
    return tables.read_table(path, "\t", columns=read, where=where, reading=reading)


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    for name in ("study_id", *needed):
        if name not in columns:
            way = "separate them by tabs" if len(columns) == 1 else "take the file as released"
            raise tables.no_columns(path, [(name, way)], columns)


def _location(name: str) -> tuple[str, str]:
    """Return the location id and the place in the name of a picture, or "" if missing."""
    match = _ID.search(name.rpartition("/")[2].rpartition(".")[0])
    return (match[1].lower(), match[2]) if match else ("", "")


def _find_pictures(root: Path) -> dict[str, str]:
    """Return picture paths from `root`, by location id, in images/ or else in all of `root`."""
    names: dict[str, str] = {}
    top = root / "images" if (root / "images").is_dir() else root
    for folder, folders, files in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not is_litter(name)]
        start = Path(folder).relative_to(root).as_posix()
        for file in files:
            location, suffix = _location(file)[0], file.rpartition(".")[2]
            if not location or f".{suffix.lower()}" not in SUFFIXES or is_litter(file):
                continue
            name = file if start == "." else f"{start}/{file}"
            first = names.setdefault(location, name)
            if first != name:
                raise DataError(f"{root}: {first} and {name} are of one location; remove one")
    return names


def _tiles(root: Path, pictures: "Series[str]") -> set[str]:
    """Return the ids of "no imagery" tiles, which are recognised by their file size."""
    sizes = {}
    for location, name in pictures.items():
        with suppress(OSError):  # It will be a bad picture.
            sizes[str(location)] = (root / name).stat().st_size
    usual = float(np.median(list(sizes.values()))) if sizes else 0.0
    most = _TILE if usual >= _STREET else _TILE_PART * usual
    return {location for location, size in sizes.items() if 0 < size <= most}


def _cities(names: Sequence[str], places: Iterable[str]) -> list[str]:
    """Return the place in each name, or each place_id if any name has no place."""
    cities = [_location(name)[1] for name in names]
    cities = cities if all(cities) else list(places)
    if not all(cities):
        raise DataError(
            "--group=city: a picture has neither a place in its name nor a place_id in qscores.tsv;"
            " use --group=none"
        )
    return cities

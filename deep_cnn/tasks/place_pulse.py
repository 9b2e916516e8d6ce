"""Read Place Pulse 2.0 as it was released: qscores.tsv, a folder of pictures, votes.tsv."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_cnn.data.listing import SUFFIXES
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.metrics import pairwise_accuracy
from deep_cnn.names import STUDIES
from deep_cnn.resolve import study_id
from deep_cnn.tasks.tables import listed, number, read_once, read_rows

_LOGGER = logging.getLogger("deep_cnn")
_SIGMA = "trueskill.stds.-1"
# The location id in the name of a picture, and the place that may follow.
_ID = re.compile(r"(?<![0-9a-f])([0-9a-f]{24})(?![0-9a-f])_*(.*)", re.IGNORECASE)
_OF_A_VOTE = ("choice", "left", "right")
_CHOICES = {"left": 1, "right": -1, "equal": 0}
# Streets of 400 x 300 pixels have 20 kB and more, Google's grey tile with a line of text has a
# few. Where the pictures are smaller copies it is half of what is usual.
_STREET, _TILE, _TILE_PART = 18 * 1024, 12 * 1024, 0.5


class _Score(NamedTuple):
    mu: float
    weight: float
    votes: float
    place: str


def read_place_pulse(root: Path, options: Mapping[str, Any]) -> Examples:
    """The pictures under `root` with their scores in the study, sorted by location id.

    A score is TrueSkill's mu, on its own scale; `options` are the task's; a key is the location
    id, or the city. The log counts what is left out. DataError where nothing is left, or with the
    line that is wrong.
    """
    scores, pictures = _read_scores(root / "qscores.tsv", options), _find_pictures(root)
    both = sorted(scores.keys() & pictures.keys())
    paths = {i: root / pictures[i] for i in both}
    tiles = _tiles(paths) if options["no_imagery"] == "drop" else set()
    few = {i for i in both if scores[i].votes < options["min_votes"]} - tiles
    left_out = few | tiles
    ids = [i for i in both if i not in left_out]
    text = (
        f"{len(ids)} pictures; left out: {len(pictures) - len(both)} pictures without a score,"
        f" {len(scores) - len(both)} scores without a picture, {len(tiles)} pictures of 'no"
        f" imagery', {len(few)} with too few votes"
    )
    if not ids:
        way = "lower --min_votes" if few else "the location id belongs in the name of a picture"
        raise DataError(f"{root}: {text}; {way}")
    _LOGGER.info("Place Pulse, %s: %s", options["study"], text)
    _check_votes(root / "votes.tsv")
    names = tuple(pictures[i] for i in ids)
    keys = _cities(names, [scores[i].place for i in ids]) if options["group"] == "city" else ids
    return Examples(
        names,
        [paths[i] for i in ids],
        np.array([scores[i].mu for i in ids]),
        np.array([scores[i].weight for i in ids]),
        tuple(keys),
    )


def judge_votes(
    path: Path, study: str, examples: Examples, predictions: NDArray[np.float64]
) -> dict[str, float]:
    """How well the `predictions` tell the votes in votes.tsv between two of the `examples`.

    `pairwise_test` is their pairwise accuracy over `votes_test` votes; `ties_test` more were ties.
    `pairwise_truth_test` is that of the scores themselves, what predicting each of them exactly
    would get: the ceiling that the votes' own noise leaves, and an optimistic one, because the
    scores were computed from these votes too. DataError with the line that is wrong.
    """
    places = {_location(name)[0]: i for i, name in enumerate(examples.names)}
    votes = []
    for line, row in _rows(path, study, _OF_A_VOTE):
        if row["choice"] not in _CHOICES:
            known = "left, right and equal are known"
            raise DataError(f"{path} line {line}: choice {row['choice']!r} is unknown; {known}")
        pair = [places.get(row[side].lower()) for side in ("left", "right")]
        if None not in pair and pair[0] != pair[1]:
            votes.append((*pair, _CHOICES[row["choice"]]))
    left, right, choices = np.array(votes, dtype=np.int64).reshape(-1, 3).T
    ties = int((choices == 0).sum())
    _LOGGER.info("%d votes between two test pictures, %d of them ties", len(votes), ties)
    return {
        "pairwise_test": pairwise_accuracy(predictions[left], predictions[right], choices),
        "pairwise_truth_test": pairwise_accuracy(
            examples.targets[left], examples.targets[right], choices
        ),
        "votes_test": float(len(votes) - ties),
        "ties_test": float(ties),
    }


def _check_votes(path: Path) -> None:
    """Say before training what else would be said when --test_net reads the votes."""
    if path.is_file():
        try:
            _header(path, read_rows(path, "\t"), _OF_A_VOTE)
        except DataError as error:
            _LOGGER.warning("%s; as it is --test_net will fail", error)


@read_once
def _read_scores(path: Path, options: Mapping[str, Any]) -> dict[str, _Score]:
    """The rows of the study by location id."""
    weighted, counted = options["weighting"] == "sigma", options["min_votes"] > 0
    needed = ["location_id", "trueskill.score"]
    needed += [_SIGMA] * weighted + ["num_votes"] * counted
    scores: dict[str, _Score] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(path, options["study"], needed):
        where, location = f"{path} line {line}:", row["location_id"].strip().lower()
        if location in lines:
            first = lines[location]
            raise DataError(f"{where} {location} is there already, in line {first}; remove one")
        lines[location] = line
        if not row["trueskill.score"].strip():
            continue  # A picture without a score.
        sigma = number(row[_SIGMA], where, _SIGMA) if weighted else 1.0
        if sigma <= 0:
            raise DataError(f"{where} {_SIGMA} {sigma:g} is not above 0; correct or remove it")
        scores[location] = _Score(
            number(row["trueskill.score"], where, "trueskill.score"),
            1 / sigma**2,
            number(row["num_votes"], where, "num_votes") if counted else 0.0,
            row.get("place_id", ""),
        )
    if not scores:
        there = ", ".join(_studies_in(path))
        raise DataError(f"{path} has no row of --study={options['study']}; it has: {there}")
    return scores


def _rows(path: Path, study: str, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {column: text}) of the rows of a study."""
    wanted = study_id(study)
    rows = read_rows(path, "\t")
    columns = _header(path, rows, needed)
    at = columns.index("study_id")
    for line, cells in rows:
        if cells[at] == wanted:
            yield line, dict(zip(columns, cells, strict=True))


def _header(path: Path, rows: Iterator[tuple[int, list[str]]], needed: Sequence[str]) -> list[str]:
    _, columns = next(rows)
    for name in ("study_id", *needed):
        if name not in columns:
            way = "separate them by tabs" if len(columns) == 1 else "take the file as released"
            raise DataError(f"{path} line 1: no column {name} (it has {listed(columns)}); {way}")
    return columns


def _studies_in(path: Path) -> list[str]:
    rows = read_rows(path, "\t")
    at = next(rows)[1].index("study_id")
    found = {cells[at] for _, cells in rows}
    return sorted(STUDIES.get(study, (study,))[0] for study in found)


def _location(name: str) -> tuple[str, str]:
    """The location id and the place in the name of a picture; "" for what is not there."""
    match = _ID.search(name.rpartition("/")[2].rpartition(".")[0])
    return (match[1].lower(), match[2]) if match else ("", "")


def _find_pictures(root: Path) -> dict[str, str]:
    """Their paths from `root` by location id: those in images/, else all under `root`."""
    found: dict[str, str] = {}
    top = root / "images" if (root / "images").is_dir() else root
    for folder, _, files in os.walk(top, followlinks=True):
        start = Path(folder).relative_to(root).as_posix()
        for file in files:
            location, suffix = _location(file)[0], file.rpartition(".")[2]
            if not location or f".{suffix.lower()}" not in SUFFIXES or file.startswith("."):
                continue
            name = file if start == "." else f"{start}/{file}"
            first = found.setdefault(location, name)
            if first != name:
                raise DataError(f"{root}: {first} and {name} are of one location; remove one")
    return found


def _tiles(pictures: Mapping[str, Path]) -> set[str]:
    """Which of the pictures, by id, say that there is no imagery: told by their size alone."""
    sizes = {}
    for location, path in pictures.items():
        with suppress(OSError):  # It will be a bad picture.
            sizes[location] = path.stat().st_size
    usual = float(np.median(list(sizes.values()))) if sizes else 0.0
    most = _TILE if usual >= _STREET else _TILE_PART * usual
    return {location for location, size in sizes.items() if 0 < size <= most}


def _cities(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """The place in each name, or the place_id of all where one has none: no city has two names."""
    cities = [_location(name)[1] for name in names]
    cities = cities if all(cities) else list(places)
    if not all(cities):
        raise DataError(
            "--group=city: a picture has neither a place in its name nor a place_id in qscores.tsv;"
            " use --group=none"
        )
    return cities

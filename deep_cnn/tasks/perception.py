"""Perception: how people scored a picture, from scores.csv beside the pictures or Place Pulse."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import SPLITS, Examples
from deep_cnn.errors import ConfigError, DataError
from deep_cnn.names import PerceptionOptions
from deep_cnn.resolve import is_place_pulse
from deep_cnn.tasks.base import Regression
from deep_cnn.tasks.place_pulse import judge_votes, read_place_pulse
from deep_cnn.tasks.tables import listed, number, read_once, read_rows

_GROUPS = ("city", "group")
_NOT_SCORES = ("image", "split", "weight", *_GROUPS)
_PLACE_PULSE_ONLY = ("weighting", "min_votes", "no_imagery")


class Perception(Regression):
    """A mean score for each picture, from scores.csv, or else qscores.tsv of Place Pulse 2.0."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """The scored pictures, with what the column `split` of scores.csv marks."""
        root, options = config.data_path, config.options
        if is_place_pulse(root):
            examples = read_place_pulse(root, options)
            return examples, [None] * len(examples)
        for name in _PLACE_PULSE_ONLY:
            if options[name] != PerceptionOptions.table()[name].default:
                raise ConfigError(
                    f"--{name} is for qscores.tsv of Place Pulse, and {root} has none or has"
                    f" scores.csv, which wins; drop --{name}"
                )
        return read_scores(root / "scores.csv", options["study"], options["group"] != "none")

    def judge(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """How well votes of Place Pulse are told, where votes.tsv is there: see `judge_votes`."""
        path = config.data_path / "votes.tsv"
        if not is_place_pulse(config.data_path) or not path.is_file():
            return {}
        return judge_votes(path, config.options["study"], examples, predictions)


TASK = Perception


@read_once
def read_scores(path: Path, study: str, grouped: bool = False) -> tuple[Examples, list[str | None]]:
    """The pictures of scores.csv with the scores in column `study`, and their marked splits.

    Where they are `grouped` their keys are in the column city or group. DataError names the line
    for a number that is none, a duplicate, a path out of the folder.
    """
    names: list[str] = []
    scores: list[float] = []
    weights: list[float] = []
    marks: list[str | None] = []
    keys: list[str] = []
    seen: dict[str, int] = {}
    for line, row in _rows(path, study, grouped):
        where = f"{path} line {line}:"
        name = _inside(row["image"], where)
        if name in seen:
            raise DataError(f"{where} {name} is there already, in line {seen[name]}; remove one")
        seen[name] = line
        names.append(name)
        scores.append(number(row[study], where, study))
        weight = number(row.get("weight", "1"), where, "weight")
        if weight < 0:
            raise DataError(f"{where} weight {weight:g} is negative; use 0 or more")
        weights.append(weight)
        mark = row.get("split", "").lower() or None
        if mark is not None and mark not in SPLITS:
            raise DataError(f"{where} split {mark!r} is unknown; use train, val, test or nothing")
        marks.append(mark)
        if grouped:
            keys.append(_group(row, where))
    if len(names) < 3:
        raise DataError(f"{path} has {len(names)} rows with pictures; 3 at least are needed")
    pictures = [path.parent / name for name in names]
    arrays = np.array(scores), np.array(weights)
    return Examples(tuple(names), pictures, *arrays, tuple(keys)), marks


def _rows(path: Path, study: str, grouped: bool) -> Iterator[tuple[int, dict[str, str]]]:
    rows = read_rows(path)
    _, columns = next(rows)
    _check_columns(path, columns, study)
    if grouped and not set(_GROUPS) & set(columns):
        text = f"no column city (it has {listed(columns)}); add one, or use --group=none"
        raise DataError(f"{path} line 1: {text}")
    for line, cells in rows:
        yield line, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _group(row: Mapping[str, str], where: str) -> str:
    column = next(name for name in _GROUPS if name in row)
    if not row[column]:
        raise DataError(f"{where} no {column} is named; fill the column, or use --group=none")
    return row[column]


def _check_columns(path: Path, columns: list[str], study: str) -> None:
    others = [column for column in columns if column not in _NOT_SCORES]
    if len(set(columns)) < len(columns):
        raise DataError(f"{path} line 1: two columns have one name ({','.join(columns)})")
    if "image" not in columns:
        raise DataError(f"{path} line 1: no column image (it has {listed(columns)}); name it so")
    if study not in columns:
        way = f"choose one with --study: {', '.join(others)}" if others else "add one"
        raise DataError(f"{path} line 1: no column {study} (it has {listed(columns)}); {way}")
    if study in _NOT_SCORES:
        raise DataError(f"--study={study} is not a score; choose from {', '.join(others)}")


def _inside(text: str, where: str) -> str:
    parts = PurePosixPath(text).parts
    if not text or "\0" in text:
        raise DataError(f"{where} no picture is named; fill the column image")
    if text.startswith("/") or ".." in parts:
        raise DataError(
            f"{where} {text} leads out of the data folder; paths start there and stay inside"
        )
    return str(PurePosixPath(text))

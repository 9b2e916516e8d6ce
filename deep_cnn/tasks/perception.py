"""Define the task perception: scores from scores.csv or Place Pulse 2.0."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from deep_cnn.bootstrap import Statistic
from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import SPLITS, Examples
from deep_cnn.errors import ConfigError, DataError
from deep_cnn.names import PerceptionOptions
from deep_cnn.resolve import is_place_pulse
from deep_cnn.tasks import tables
from deep_cnn.tasks.base import Regression
from deep_cnn.tasks.place_pulse import judge_votes, pairwise_statistics, read_place_pulse

_GROUPS = ("city", "group")
_NOT_SCORES = ("image", "split", "weight", *_GROUPS)
_PLACE_PULSE_ONLY = ("weighting", "min_votes", "no_imagery")


class Perception(Regression):
    """The task of predicting a score per picture, from scores.csv or else qscores.tsv."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return the scored pictures, with the marks in the column `split` of scores.csv."""
        root, options = config.data_path, config.options
        if is_place_pulse(root):
            examples = read_place_pulse(config)
            return examples, [None] * len(examples)
        for name in _PLACE_PULSE_ONLY:
            if options[name] != PerceptionOptions.table()[name].default:
                raise ConfigError(
                    f"--{name} is for qscores.tsv of Place Pulse, and {root} has none or has"
                    f" scores.csv, which wins; drop --{name}"
                )
        return read_scores(root / "scores.csv", options["study"], options["group"] != "none")

    def extra_metrics(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """Return the pairwise accuracy on Place Pulse's votes, if votes.tsv exists."""
        path = _votes(config)
        return judge_votes(path, config.options["study"], examples, predictions) if path else {}

    def extra_statistics(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, Statistic]:
        """Return the pairwise accuracies as statistics of resampled pictures."""
        path, study = _votes(config), config.options["study"]
        return pairwise_statistics(path, study, examples, predictions) if path else {}


TASK = Perception


def _votes(config: TrainConfig) -> Path | None:
    path = config.data_path / "votes.tsv"
    return path if is_place_pulse(config.data_path) and path.is_file() else None


@tables.read_once
def read_scores(path: Path, study: str, grouped: bool = False) -> tuple[Examples, list[str | None]]:
    """Return the pictures of scores.csv with the scores in column `study`, and the marked splits.

    If `grouped`, the keys are from the column city or group. Raises DataError with the line for an
    invalid number, a duplicate, or a path outside of the folder.
    """
    columns = tables.read_columns(path)
    _check_columns(path, columns, study)
    group = next((name for name in _GROUPS if name in columns), None)
    if grouped and group is None:
        raise tables.no_column(path, "city", columns, "add one, or use --group=none")
    table = tables.read_table(path).map(str.strip)
    table["image"] = [_inside(path, line, text) for line, text in table["image"].items()]
    tables.check_unique(path, table["image"])
    scores, weights = tables.numbers(path, table[study]), np.ones(len(table))
    if "weight" in columns:
        weights = tables.numbers(path, table["weight"])
        tables.refuse(path, table["weight"], weights < 0, "is negative; use 0 or more", show=str)
    marks: list[str | None] = [None] * len(table)
    if "split" in columns:
        splits = table["split"].str.lower()
        wrong = ~splits.isin(("", *SPLITS))
        tables.refuse(path, splits, wrong, "is unknown; use train, val, test or nothing")
        marks = [split or None for split in splits]
    keys = tuple(table[group]) if grouped else ()
    if "" in keys:
        line = table.index[keys.index("")]
        text = f"no {group} is named; fill the column, or use --group=none"
        raise DataError(f"{path} line {line}: {text}")
    if len(table) < 3:
        raise DataError(f"{path} has {len(table)} rows with pictures; 3 at least are needed")
    names = tuple(table["image"])
    return Examples(names, [path.parent / name for name in names], scores, weights, keys), marks


def _check_columns(path: Path, columns: list[str], study: str) -> None:
    others = [column for column in columns if column not in _NOT_SCORES]
    if len(set(columns)) < len(columns):
        raise DataError(f"{path} line 1: two columns have one name ({','.join(columns)})")
    if "image" not in columns:
        raise tables.no_column(path, "image", columns, "name it so")
    if study not in columns:
        way = f"choose one with --study: {', '.join(others)}" if others else "add one"
        raise tables.no_column(path, study, columns, way)
    if study in _NOT_SCORES:
        raise DataError(f"--study={study} is not a score; choose from {', '.join(others)}")


def _inside(path: Path, line: int, text: str) -> str:
    """Return the normalised path of a picture; raise DataError if it leaves the folder."""
    name = PurePosixPath(text)
    if not text:
        raise DataError(f"{path} line {line}: no picture is named; fill the column image")
    if text.startswith("/") or ".." in name.parts:
        way = "paths start there and stay inside"
        raise DataError(f"{path} line {line}: {text} leads out of the data folder; {way}")
    return str(name)

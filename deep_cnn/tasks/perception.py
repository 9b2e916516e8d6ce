"""Perception: how people scored a picture, from scores.csv beside the pictures."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import SPLITS, Examples
from deep_cnn.errors import DataError
from deep_cnn.tasks.base import Regression

_NOT_SCORES = ("image", "split", "weight")


class Perception(Regression):
    """A mean score for each picture; columns image, score and where wanted split and weight."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """The rows of scores.csv, with what its column `split` marks."""
        return read_scores(config.data_path / "scores.csv", config.options["study"])


TASK = Perception


def read_scores(path: Path, study: str) -> tuple[Examples, list[str | None]]:
    """The pictures of scores.csv with the scores in column `study`, and their marked splits.

    DataError names the line for a number that is none, a duplicate, a path out of the folder.
    """
    names: list[str] = []
    scores: list[float] = []
    weights: list[float] = []
    marks: list[str | None] = []
    seen: dict[str, int] = {}
    for line, row in _rows(path, study):
        where = f"{path} line {line}:"
        name = _inside(row["image"], where)
        if name in seen:
            raise DataError(f"{where} {name} is there already, in line {seen[name]}; remove one")
        seen[name] = line
        names.append(name)
        scores.append(_number(row[study], where, study))
        weight = _number(row.get("weight", "1"), where, "weight")
        if weight < 0:
            raise DataError(f"{where} weight {weight:g} is negative; use 0 or more")
        weights.append(weight)
        mark = row.get("split", "").lower() or None
        if mark is not None and mark not in SPLITS:
            raise DataError(f"{where} split {mark!r} is unknown; use train, val, test or nothing")
        marks.append(mark)
    if len(names) < 3:
        raise DataError(f"{path} has {len(names)} rows with pictures; 3 at least are needed")
    pictures = [path.parent / name for name in names]
    return Examples(tuple(names), pictures, np.array(scores), np.array(weights)), marks


def _rows(path: Path, study: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            columns = [column.strip() for column in next(reader, [])]
            _check_columns(path, columns, study)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path} line {reader.line_num}: {len(cells)} values for {len(columns)}"
                        f" columns ({','.join(columns)}); make them agree"
                    )
                values = (cell.strip() for cell in cells)
                yield reader.line_num, dict(zip(columns, values, strict=True))
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error}); save it as CSV in UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file") from None


def _check_columns(path: Path, columns: list[str], study: str) -> None:
    others = [column for column in columns if column not in _NOT_SCORES]
    if len(set(columns)) < len(columns):
        raise DataError(f"{path} line 1: two columns have one name ({','.join(columns)})")
    if "image" not in columns:
        raise DataError(f"{path} line 1: no column image (it has {_listed(columns)}); name it so")
    if study not in columns:
        way = f"choose one with --study: {', '.join(others)}" if others else "add one"
        raise DataError(f"{path} line 1: no column {study} (it has {_listed(columns)}); {way}")
    if study in _NOT_SCORES:
        raise DataError(f"--study={study} is not a score; choose from {', '.join(others)}")


def _listed(columns: list[str]) -> str:
    text = ", ".join(columns)
    return text if text.isprintable() and len(text) < 200 else f"{len(columns)} columns"


def _number(text: str, where: str, column: str) -> float:
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} {column} {text!r} is not a finite number; correct or remove it")
    return number


def _inside(text: str, where: str) -> str:
    parts = PurePosixPath(text).parts
    if not text or "\0" in text:
        raise DataError(f"{where} no picture is named; fill the column image")
    if text.startswith("/") or ".." in parts:
        raise DataError(
            f"{where} {text} leads out of the data folder; paths start there and stay inside"
        )
    return str(PurePosixPath(text))

"""Find the tables in a data folder, and the columns with their pictures, scores and raters."""

import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from deep_cnn.delimited import Dialect, find_dialect, read_rows
from deep_cnn.errors import DataError
from deep_cnn.layout import SUFFIXES, is_litter, picture_names, split_folders, subfolders

_TABLES = (".csv", ".tsv", ".tab", ".txt")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
# Kaggle's tables of pictures whose scores are not known.
_UNLABELLED = re.compile("test|sample|submission", re.IGNORECASE)
# Columns of numbers that are most likely scores, and those that are not.
_SCORE = re.compile("score|rating|mean|target", re.IGNORECASE)
_IMAGE = re.compile("image|img|photo|pic|bild|file|path|name", re.IGNORECASE)
_RATER = re.compile(
    "rater|person|participant|subject|annotator|worker|judge|observer|respondent|user|proband",
    re.IGNORECASE,
)
_SAMPLE_ROWS = 100
_NO_SCORE = re.compile(
    r"(.*[ _.-])?(ids?|idx|index|no|nr|num|number|row|rank|order|x|y|lat|lon|lng|latitude|longitude"
    r"|weight|width|height|year|age|rater|person|user|participant|unnamed: 0)",
    re.IGNORECASE,
)


class Table(NamedTuple):
    """A table: its path, columns and first rows, and the column that names pictures, if any.

    `is_sure` says that its cells are names of one picture each, with the suffix or without.
    """

    path: Path
    dialect: Dialect
    columns: list[str]
    rows: list[list[str]]
    image: str | None
    is_sure: bool

    def column(self, name: str) -> list[str]:
        """Return the cells of a column in the first rows, without those that are empty."""
        at = self.columns.index(name)
        texts = (row[at].strip() for row in self.rows if at < len(row))
        return [text for text in texts if text]


def find_tables(folder: Path) -> list[Table]:
    """Return the tables in a folder, those of pictures first."""
    found = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _TABLES and not is_litter(path.name):
                with suppress(DataError, StopIteration):
                    dialect = find_dialect(path, names=lambda: _names_of_pictures(folder))
                    rows = read_rows(path, dialect)
                    columns, first = next(rows)[1], next(rows)[1]
                    others = [row for _, row in islice(rows, _SAMPLE_ROWS)]
                    found.append(
                        Table(path, dialect, columns, [first, *others], None, is_sure=False)
                    )
    names = _names_of_pictures(folder) if found else Counter()
    tables = []
    for table in found:
        fits = {name: _fit(table.column(name), folder, names) for name in table.columns if name}
        # Scores and raters may be numbers that fit pictures, too, but repeat more often than those.
        keys = {
            name: (
                fit,
                not _RATER.search(name),
                bool(_IMAGE.search(name)),
                len({*table.column(name)}),
            )
            for name, fit in fits.items()
            if fit
        }
        image = max(keys, key=keys.__getitem__, default=None)
        is_sure = image is not None and fits[image] is not _Fit.SUFFIX
        tables.append(table._replace(image=image, is_sure=is_sure))
    return sorted(
        tables, key=lambda t: (t.image is None, _UNLABELLED.search(t.path.stem) is not None)
    )


class _Fit(IntEnum):
    """How well the cells of a column name pictures."""

    NONE = 0
    NUMBER = 1  # Scores fit pictures with the names 1, 2, ..., too.
    SUFFIX = 2  # Names of pictures that are not there, or not as they are written.
    STEM = 3
    NAME = 4
    PATH = 5


def _fit(texts: Sequence[str], folder: Path, names: Mapping[str, int]) -> _Fit:
    """Return how well most of these cells name pictures in a folder."""

    def most(is_name: Callable[[str], bool]) -> bool:
        return sum(map(is_name, texts)) * 2 > len(texts)

    def is_one(text: str) -> bool:
        return names.get(unicodedata.normalize("NFC", text)) == 1

    if most(lambda text: os.path.isfile(folder / text)):  # noqa: PTH113
        return _Fit.PATH
    if most(is_picture):
        is_there = most(lambda text: is_one(re.split(r"[/\\]", text)[-1]))
        return _Fit.NAME if is_there else _Fit.SUFFIX
    if most(is_one):
        return _Fit.NUMBER if most(lambda text: bool(_NUMBER.fullmatch(text))) else _Fit.STEM
    return _Fit.NONE


def _names_of_pictures(folder: Path) -> Counter[str]:
    """Return how many pictures have each name, with and without suffix, in train/ or anywhere."""
    names = Counter[str]()
    for base in split_folders(folder)["train"] or ("", *subfolders(folder)):
        for name in picture_names(folder / base):
            name = unicodedata.normalize("NFC", name)
            names.update((name, name.rpartition(".")[0]))
    return names


def describe_table(table: Table) -> str:
    """Return the columns of a table, and the options that read it, in one line."""
    others = [column for column in table.columns if column not in ("", table.image)]
    scores = [column for column in others if any(map(_NUMBER.fullmatch, table.column(column)[:1]))]
    rater = _rater(table, others)
    likely = [column for column in scores if column != rater and not _NO_SCORE.fullmatch(column)]
    score = next(iter([*filter(_SCORE.search, likely), *likely]), "COLUMN")
    name, image = table.path.name, table.image or "COLUMN"
    options = [f"--scores={name}", f"--image_column={image}", f"--score_column={score}"]
    options += [f"--rater_column={rater}"] if rater else []
    columns = ", ".join(table.columns)
    return f"{name} with the columns {columns}; read it with {shlex.join(options)}"


def _rater(table: Table, columns: Sequence[str]) -> str | None:
    """Return the column with the raters of a table with several rows for a picture, or None.

    It is called so, or else it is the first whose cells differ among the rows of each picture.
    """
    if table.image is None:
        return None
    chosen = [table.columns.index(name) for name in (table.image, *columns)]
    rows = [row for _, row in read_rows(table.path, table.dialect)][1:]
    cells = [[row[i].strip() for row in rows if len(row) > max(chosen)] for i in chosen]
    images = cells[0]
    if len({*images}) == len(images):
        return None
    called = (name for name in columns if _RATER.search(name))
    pairs = zip(columns, cells[1:], strict=True)
    whole = (
        name
        for name, texts in pairs
        if not _SCORE.search(name)
        and len({*texts}) < len(texts) == len({*zip(images, texts, strict=True)})
    )
    return next(called, None) or next(whole, None)


def is_picture(text: str) -> bool:
    """Return whether a cell ends as the name of a picture does."""
    return text.strip().lower().endswith(SUFFIXES)

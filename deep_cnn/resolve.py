"""Find the options that depend on the data folder: the task, and the study of Place Pulse."""

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

from deep_cnn.config import TrainConfig
from deep_cnn.delimited import SPREADSHEETS, Dialect, find_dialect, read_rows
from deep_cnn.errors import ConfigError, DataError, choose_from
from deep_cnn.layout import (
    SUFFIXES,
    choose_test_folder,
    has_class_folders,
    is_litter,
    picture_names,
    split_folders,
    subfolders,
)
from deep_cnn.names import STUDIES
from deep_cnn.run_options import SAMPLE_DATA

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


def resolve(config: TrainConfig) -> TrainConfig:
    """Return `config` with its task, the folder of its pictures, and the defaults for that folder.

    Raises DataError if the folder fits no task. Raises ConfigError for an option that the task does
    not have, or a study that Place Pulse does not have.
    """
    if config.is_resolved:
        return config
    folder = data_folder(config)
    scores = config.options.get("scores")
    detected = "perception" if scores else detect_task(folder)
    task = detected if config.task == "auto" else config.task
    if task is None or (task == "perception" and detected != task):
        unread = _unread_table(folder)
        if unread or task is None:
            raise unread or _without_task(folder)
    has_studies = task == "perception" and is_place_pulse(folder, scores)
    defaults = {"study": "safer"} if has_studies else {}
    if task == "folders" and "test_folder" not in config.chosen:
        defaults = {"test_folder": choose_test_folder(folder)}
    resolved = config.resolved(detected or "auto", folder, defaults)
    if has_studies:
        study_id(resolved.options["study"])
    return resolved


def data_folder(config: TrainConfig) -> Path:
    """Return the folder of the pictures, which need not exist."""
    folder = config.data_path
    if config.data_dir == SAMPLE_DATA and not folder.exists():
        return Path(__file__).parent.parent / SAMPLE_DATA  # The sample works from any folder.
    return folder


def detect_task(folder: Path) -> str | None:
    """Return the task of a data folder, or None; tables take precedence."""
    # Path's own methods fail for a name that is too long.
    if any(os.path.isfile(folder / table) for table in ("scores.csv", "qscores.tsv")):  # noqa: PTH113
        return "perception"
    if not has_class_folders(folder):
        return None
    in_train = split_folders(folder)["train"]
    if in_train and not _has_classes(folder) and _unread_table(folder):
        return None  # Kaggle has train/<id>.jpg beside a table of the ids.
    for table in _tables(folder):
        # Beside train/, a table may be about other pictures, such as a submission to Kaggle, and
        # lists of pictures are text.
        pictures = [folder / cell.strip() for cell in table.rows[0] if _is_picture(cell)]
        is_named = pictures and (not in_train or os.path.isfile(pictures[0]))  # noqa: PTH113
        if table.path.suffix.lower() != ".txt" and (table.is_sure or is_named):
            return None
    return "folders"


def _has_classes(folder: Path) -> bool:
    """Return whether there are class folders, in train/ if there is such a folder."""
    in_train = split_folders(folder)["train"]
    return has_class_folders(folder) and all(subfolders(folder / name) for name in in_train)


def _without_task(folder: Path) -> DataError:
    try:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            return DataError(f"--data_dir={folder} {what}; name the folder with your pictures")
    except OSError as error:
        return DataError(f"--data_dir is no path ({error.strerror}); name your folder")
    inside = subfolders(folder)
    if len(inside) == 1 and detect_task(folder / inside[0]):
        return DataError(
            f"--data_dir={folder} has only the folder {inside[0]}/; use"
            f" --data_dir={folder / inside[0]}"
        )
    return DataError(
        f"--data_dir={folder} has neither scores.csv nor qscores.tsv (perception) nor"
        " train/<class>/ folders (folders); add one of them, or use --task=digits, which needs"
        " no folder"
    )


class _Table(NamedTuple):
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


def _tables(folder: Path) -> list[_Table]:
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
                        _Table(path, dialect, columns, [first, *others], None, is_sure=False)
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
    if most(_is_picture):
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


def _unread_table(folder: Path) -> DataError | None:
    """Return the error for a folder with a table of another name, or None if it has no table."""
    texts = []
    for table in _tables(folder):
        if table.image or (len(table.columns) > 1 and table.path.suffix.lower() != ".txt"):
            texts.append(_described(table))
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SPREADSHEETS and not is_litter(path.name):
                text = "a spreadsheet; save it as CSV, and name it with --scores"
                texts.append(f"{path.name}, {text}")
    if not texts:
        return None
    other = ", or the class folders with --task=folders" if _has_classes(folder) else ""
    return DataError(f"--data_dir={folder} has no scores.csv, but {texts[0]}{other}")


def _described(table: _Table) -> str:
    """Return the columns of a table, and the options that read it."""
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


def _rater(table: _Table, columns: Sequence[str]) -> str | None:
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


def _is_picture(text: str) -> bool:
    return text.strip().lower().endswith(SUFFIXES)


def is_place_pulse(folder: Path, scores: str | None = None) -> bool:
    """Return whether the folder has qscores.tsv, as Place Pulse 2.0, and no table of scores."""
    if scores:
        return False
    there = [os.path.isfile(folder / name) for name in ("scores.csv", "qscores.tsv")]  # noqa: PTH113
    return there == [False, True]


def study_id(study: str) -> str:
    """Return the id of a study of Place Pulse 2.0 for a name or an id; raise ConfigError."""
    plain = study.lower().replace("_", " ").replace("-", " ")
    for identity, study_names in STUDIES.items():
        if plain in study_names:
            return identity
    if re.fullmatch("[0-9a-f]{24}", plain):
        return plain
    legal = choose_from(study, [study_names[0] for study_names in STUDIES.values()])
    raise ConfigError(f"--study={study} is no study of Place Pulse; {legal}", option="study")

"""Find the options that depend on the data folder: the task, and the study of Place Pulse."""

import os
import re
from contextlib import suppress
from pathlib import Path

from deep_cnn.config import TrainConfig
from deep_cnn.delimited import SPREADSHEETS
from deep_cnn.errors import ConfigError, DataError, choose_from
from deep_cnn.found_tables import describe_table, find_tables, is_picture
from deep_cnn.layout import (
    MNIST_FILES,
    choose_test_folder,
    find_idx,
    has_class_folders,
    is_litter,
    split_folders,
    subfolders,
)
from deep_cnn.names import STUDIES
from deep_cnn.run_options import SAMPLE_DATA


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
        return "mnist" if find_idx(folder, MNIST_FILES[0]) else None
    in_train = split_folders(folder)["train"]
    if in_train and not _has_classes(folder) and _unread_table(folder):
        return None  # Kaggle has train/<id>.jpg beside a table of the ids.
    for table in find_tables(folder):
        # Beside train/, a table may be about other pictures, such as a submission to Kaggle, and
        # lists of pictures are text.
        pictures = [folder / cell.strip() for cell in table.rows[0] if is_picture(cell)]
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


def _unread_table(folder: Path) -> DataError | None:
    """Return the error for a folder with a table of another name, or None if it has no table."""
    texts = []
    for table in find_tables(folder):
        if table.image or (len(table.columns) > 1 and table.path.suffix.lower() != ".txt"):
            texts.append(describe_table(table))
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SPREADSHEETS and not is_litter(path.name):
                text = "a spreadsheet; save it as CSV, and name it with --scores"
                texts.append(f"{path.name}, {text}")
    if not texts:
        return None
    other = ", or the class folders with --task=folders" if _has_classes(folder) else ""
    return DataError(f"--data_dir={folder} has no scores.csv, but {texts[0]}{other}")


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

"""Find the options that depend on the data folder: the task, and the study of Place Pulse."""

import os
import re
from pathlib import Path

from deep_cnn.config import SAMPLE_DATA, TrainConfig
from deep_cnn.errors import ConfigError, DataError, choose_from
from deep_cnn.layout import (
    choose_test_folder,
    has_class_folders,
    picture_table,
    split_folders,
    subfolders,
)
from deep_cnn.names import STUDIES


def resolve(config: TrainConfig) -> TrainConfig:
    """Return `config` with its task, the folder of its pictures, and the defaults for that folder.

    Raises DataError if the folder fits no task. Raises ConfigError for an option that the task does
    not have, or a study that Place Pulse does not have.
    """
    if config.is_resolved:
        return config
    folder = data_folder(config)
    detected = detect_task(folder)
    task = detected if config.task == "auto" else config.task
    if task is None:
        raise _without_task(folder)
    has_studies = task == "perception" and is_place_pulse(folder)
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
    table = picture_table(folder)
    # Beside train/, a table may be about other pictures, such as a submission to Kaggle.
    takes_precedence = table and (not split_folders(folder)["train"] or _exists(folder, table[2]))
    return None if takes_precedence else "folders"


def _exists(folder: Path, picture: str) -> bool:
    return os.path.isfile(folder / picture)  # noqa: PTH113


def _without_task(folder: Path) -> DataError:
    try:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            return DataError(f"--data_dir={folder} {what}; name the folder with your pictures")
    except OSError as error:
        return DataError(f"--data_dir is no path ({error.strerror}); name your folder")
    table, inside = picture_table(folder), subfolders(folder)
    if table and has_class_folders(folder):
        return DataError(
            f"--data_dir={folder} has the table {table[0]} (columns {', '.join(table[1])}), which"
            f" names pictures and takes precedence over class folders; use --scores={table[0]} to"
            " learn from the table, or --task=folders to learn the classes"
        )
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


def is_place_pulse(folder: Path) -> bool:
    """Return whether the folder has qscores.tsv, as Place Pulse 2.0, and no scores.csv."""
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

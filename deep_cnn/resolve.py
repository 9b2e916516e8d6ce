"""Find what a configuration leaves to the data folder: the task, and the study of Place Pulse."""

import os
import re
from pathlib import Path

from deep_cnn.config import SAMPLE_DATA, TrainConfig
from deep_cnn.errors import ConfigError, DataError, choose_from
from deep_cnn.names import STUDIES


def resolve(config: TrainConfig) -> TrainConfig:
    """Return `config` with its task, the folder of its pictures, and the defaults for that folder.

    Raises DataError if the folder does not say which task it is for, and ConfigError for an option
    that the task does not have, or a study that Place Pulse does not have.
    """
    if config.is_resolved:
        return config
    folder = config.data_path
    if config.data_dir == SAMPLE_DATA and not folder.exists():
        folder = Path(__file__).parent.parent / SAMPLE_DATA  # The sample is found from anywhere.
    task = detect_task(folder) if config.task == "auto" else detected(folder) or "auto"
    place_pulse = (task if config.task == "auto" else config.task) == "perception" and (
        is_place_pulse(folder)
    )
    resolved = config.resolved(task, folder, {"study": "safer"} if place_pulse else {})
    if place_pulse:
        study_id(resolved.options["study"])
    return resolved


def detect_task(folder: Path) -> str:
    """Return the task of a data folder; tables take precedence. Raise DataError for none."""
    try:
        there = folder.is_dir()
    except OSError as error:
        raise DataError(f"--data_dir is no path ({error.strerror}); name your folder") from None
    if not there:
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"--data_dir={folder} {what}; name the folder with your pictures")
    task = detected(folder)
    if task is None:
        raise DataError(
            f"--data_dir={folder} has neither scores.csv nor qscores.tsv (perception) nor"
            " train/<class>/ folders (folders); add one of them, or use --task=digits, which needs"
            " no folder"
        )
    return task


def detected(folder: Path) -> str | None:
    """Return the task of a data folder, or None."""
    if (folder / "scores.csv").is_file() or is_place_pulse(folder):
        return "perception"
    return "folders" if (folder / "train").is_dir() else None


def is_place_pulse(folder: Path) -> bool:
    """Return whether scores are in qscores.tsv, as in Place Pulse 2.0, and not in scores.csv."""
    # Path's own fails for a name that is too long.
    there = [os.path.isfile(folder / name) for name in ("scores.csv", "qscores.tsv")]  # noqa: PTH113
    return there == [False, True]


def study_id(study: str) -> str:
    """Return the id of a study of Place Pulse 2.0 for a name or an id; raise ConfigError."""
    plain = study.lower().replace("_", " ").replace("-", " ")
    for known, called in STUDIES.items():
        if plain in called:
            return known
    if re.fullmatch("[0-9a-f]{24}", plain):
        return plain
    known_names = [called[0] for called in STUDIES.values()]
    text = f"--study={study} is no study of Place Pulse"
    raise ConfigError(f"{text}; {choose_from(study, known_names)}", option="study")

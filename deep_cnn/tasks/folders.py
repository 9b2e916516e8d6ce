"""Folders: the class of a picture is the folder it lies in, train/<class>/ and val/<class>/."""

import os
from pathlib import Path

import numpy as np

from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.tasks.base import Classification

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


class Folders(Classification):
    """Class folders; where there is a val/ folder it is the test split."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """The pictures of train/, and those of val/ marked as test."""
        root = config.data_path
        classes = self.classes(config)
        names: list[str] = []
        targets: list[int] = []
        marks: list[str | None] = []
        for folder, mark in (("train", None), ("val", "test")):
            for target, label in enumerate(classes if (root / folder).is_dir() else ()):
                found = _pictures(root, f"{folder}/{label}")
                names += found
                targets += [target] * len(found)
                marks += [mark] * len(found)
        examples = Examples(
            tuple(names),
            [root / name for name in names],
            np.array(targets, dtype=np.int64),
            np.ones(len(names)),
        )
        return examples, marks

    def classes(self, config: TrainConfig) -> list[str]:
        """The folders under train/, sorted; DataError unless val/, where it is, has the same."""
        root = config.data_path
        train = _subfolders(root / "train")
        if len(train) < 2:
            raise DataError(
                f"{root / 'train'} has {len(train)} class folders; put the pictures of each class"
                " in a folder of its own, two at least"
            )
        if (root / "val").is_dir():
            odd = sorted(set(train) ^ set(_subfolders(root / "val")))
            if odd:
                where = "train/ only" if odd[0] in train else "val/ only"
                raise DataError(
                    f"{root}: train/ and val/ must have the same classes; {len(odd)} differ,"
                    f" the first is {odd[0]!r}, in {where}"
                )
        return train


def _subfolders(folder: Path) -> list[str]:
    return sorted(e.name for e in _entries(folder) if _is_dir(e) and not e.name.startswith("."))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        reason = error.strerror
        raise DataError(f"{folder} cannot be listed ({reason}); class folders lie there") from None


def _pictures(root: Path, folder: str) -> list[str]:
    entries = _entries(root / folder)
    files = [e.name for e in entries if Path(e.name).suffix.lower() in SUFFIXES and not _is_dir(e)]
    if not files:
        raise DataError(f"{root / folder} has no picture ({', '.join(sorted(SUFFIXES))}); add some")
    return sorted(f"{folder}/{file}" for file in files)


TASK = Folders

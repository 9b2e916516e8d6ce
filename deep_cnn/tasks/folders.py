"""Define the task folders: the class of a picture is its folder in train/ or val/."""

import logging
import sys
from collections import defaultdict
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import broken_rule
from deep_cnn.data.listing import SUFFIXES, list_pictures
from deep_cnn.data.splits import Examples, Files
from deep_cnn.delimited import open_text
from deep_cnn.errors import DataError
from deep_cnn.tasks.base import Classification

_LOGGER = logging.getLogger("deep_cnn")
# For each class, by its plain name: its folder, and the names of its pictures joined by slashes.
# A list of names would take several times the memory, and there are millions.
_Classes = dict[str, tuple[str, str]]


class Folders(Classification):
    """The task of predicting class folders, nested or not; val/ is the test split if it exists."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return the pictures of train/, and those of val/ marked as test.

        Only the classes in --keep, and only the pictures in train.txt or val.txt if these exist.
        """
        classes, keep = self.classes(config), _keep_file(config)
        if keep:
            _LOGGER.info("%s keeps %d classes", keep, len(classes))
        names: list[str] = []
        targets: list[int] = []
        marks: list[str | None] = []
        for part, mark in (("train", None), ("val", "test")):
            for target, pictures in enumerate(_pictures(config, part, classes)):
                names += pictures
                targets += [target] * len(pictures)
                marks += [mark] * len(pictures)
        every = tuple(names)
        files, labels = Files(config.data_path, every), np.array(targets, dtype=np.int64)
        return Examples(every, files, labels, np.ones(len(every))), marks

    def classes(self, config: TrainConfig) -> list[str]:
        """Return the sorted class folders in train/ that --keep selects; val/ must have them."""
        root, keep = config.data_path, _keep_file(config)
        train = _class_folders(config, "train")
        if keep:
            train = _kept(keep, train)
        if len(train) < 2:
            raise DataError(
                f"{root / 'train'} has {len(train)} class folders; put the pictures of each class"
                " in a folder of its own, two at least"
            )
        if (root / "val").is_dir():
            val = _class_folders(config, "val")
            odd = sorted(train.keys() - val.keys() if keep else train.keys() ^ val.keys())
            if odd:
                side = "train/ only" if odd[0] in train else "val/ only"
                raise DataError(
                    f"{root}: train/ and val/ must have the same classes; {len(odd)} differ,"
                    f" the first is {(train | val)[odd[0]][0]!r}, in {side}"
                )
        return sorted(folder for folder, _ in train.values())


@lru_cache(4096)  # A list has one line for each picture, but few different folders.
def plain(folder: str) -> str:
    """Return the class name of a path, with hyphens: /b/bazaar/indoor is bazaar-indoor.

    One release of Places365 sorts its classes into folders by first letter, another does not.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if len(parts) > 1 and parts[0] == parts[1][0]:
        del parts[0]
    return "-".join(parts)


def _class_folders(config: TrainConfig, part: str) -> _Classes:
    """Return the folders in train/ or val/ that hold pictures, and those that are empty."""
    classes: _Classes = {}
    root = config.data_path / part
    for folder, listing in sorted(list_pictures(root, config.cache_path).items()):
        is_empty = not listing.folders and "/" not in folder
        if folder and (listing.pictures or is_empty):
            other, _ = classes.setdefault(plain(folder), (folder, listing.pictures))
            if other != folder:
                raise DataError(f"{root}: {other} and {folder} are one class; make them one folder")
    return classes


def _keep_file(config: TrainConfig) -> Path | None:
    keep, own = config.options["keep"], config.data_path / "keep.txt"
    if keep == "auto":
        return own if own.is_file() else None
    return None if keep == "none" else Path(keep).expanduser()


def _kept(keep: Path, classes: _Classes) -> _Classes:
    """Return the classes in the file `keep`, one per line; raise DataError for unknown ones."""
    chosen = set()
    for line, text, names in named_classes(keep):
        name = next((name for name in names if name in classes), None)
        if name is None:
            near = get_close_matches(names[1], classes, n=3)
            guess = f"did you mean {' or '.join(near)}?" if near else "correct or remove it"
            raise DataError(f"{keep} line {line}: no class folder for {text!r}; {guess}")
        chosen.add(name)
    if len(chosen) < 2:
        raise DataError(f"{keep} keeps {len(chosen)} classes; name two at least, one a line")
    return {name: classes[name] for name in classes if name in chosen}


def named_classes(keep: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, text, possible names) of a class list; MIT's lines end with a number."""
    for line, whole in _lines(keep):
        text = whole.split(" #")[0].strip()
        yield line, text, [plain(text), plain(_unnumbered(text))]


def _pictures(config: TrainConfig, part: str, classes: list[str]) -> Iterator[list[str]]:
    """Yield the pictures of each class in train/ or val/, as paths from the data folder."""
    root = config.data_path
    if not (root / part).is_dir():
        return
    folders = _class_folders(config, part)
    chosen = {name: folders[name] for name in map(plain, classes)}
    for folder, pictures in chosen.values():
        if not pictures:
            suffixes = ", ".join(SUFFIXES)
            raise DataError(f"{root / part / folder} has no picture ({suffixes}); add some")
    path = root / f"{part}.txt"
    if path.is_file():
        chosen = _listed(path, chosen, config)
    for folder, pictures in chosen.values():
        yield [f"{part}/{folder}/{file}" for file in pictures.split("/")]


def _listed(path: Path, classes: _Classes, config: TrainConfig) -> _Classes:
    """Return the classes with only the pictures in the list `path`.

    Its class numbers are ignored: they differ between lists, and the folder names the class.
    """
    listed: dict[str, set[str]] = defaultdict(set)
    for _, text in _lines(path):
        folder, _, file = _unnumbered(text).removeprefix(f"{path.stem}/").rpartition("/")
        listed[plain(folder)].add(sys.intern(file))  # Each class has the same 5,000 names.
    if _keep_file(config):
        listed = {name: listed[name] for name in classes}
    total, others = sum(map(len, listed.values())), 0
    chosen: _Classes = {}
    for name, (folder, pictures) in classes.items():
        files = pictures.split("/")
        present = [file for file in files if file in listed[name]]
        if not present:
            raise DataError(
                f"{path} lists no picture that is there of the class {name}; correct or remove the"
                " list, or name the other classes in keep.txt"
            )
        chosen[name] = folder, "/".join(present)
        others += len(files) - len(present)
        listed[name].difference_update(present)
    _LOGGER.info("%s lists %d pictures; %d others are left out", path, total, others)
    missing = [f"{name}/{file}" for name, files in listed.items() for file in files]
    if missing:
        text = f"{len(missing)} of its {total} pictures are missing, the first is {min(missing)}"
        rule = broken_rule(len(missing), total, config)
        if rule:
            raise DataError(
                f"{path}: {text}; {rule}, put them there, or remove the list, or name the classes"
                " that you have in keep.txt"
            )
        _LOGGER.warning("%s: %s", path, text)
    return chosen


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text, without blanks and comments, with their numbers."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield number, text


def _unnumbered(text: str) -> str:
    """Return a line without the class number at its end."""
    parts = text.rsplit(None, 1)
    return parts[0] if len(parts) == 2 and parts[1].isdigit() else text


TASK = Folders

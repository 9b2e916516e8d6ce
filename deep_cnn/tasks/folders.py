"""Folders: the class of a picture is the folder it lies in, train/<class>/ and val/<class>/."""

import logging
import sys
from collections import defaultdict
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np

from deep_cnn.config import TrainConfig
from deep_cnn.data.listing import SUFFIXES, list_pictures
from deep_cnn.data.splits import Examples, Files
from deep_cnn.errors import DataError
from deep_cnn.tasks.base import Classification

_LOGGER = logging.getLogger("deep_cnn")
_MOST_MISSING = 0.05
# For each class, by its plain name: its folder, and the names of its pictures joined by slashes.
_Classes = dict[str, tuple[str, str]]


class Folders(Classification):
    """Class folders, nested or not; where there is a val/ folder it is the test split."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return the pictures of train/, and those of val/ marked as test.

        Only classes that --keep names, and where there is train.txt or val.txt what it lists.
        """
        root, classes = config.data_path, self.classes(config)
        if _keep_file(config):
            _LOGGER.info("%s keeps %d classes", _keep_file(config), len(classes))
        names: list[str] = []
        targets: list[int] = []
        marks: list[str | None] = []
        for part, mark in (("train", None), ("val", "test")):
            for target, found in enumerate(_pictures(config, part, classes)):
                names += found
                targets += [target] * len(found)
                marks += [mark] * len(found)
        kept = tuple(names)
        numbers = np.array(targets, dtype=np.int64)
        return Examples(kept, Files(root, kept), numbers, np.ones(len(kept))), marks

    def classes(self, config: TrainConfig) -> list[str]:
        """Return the class folders in train/ that --keep names, sorted; val/ must have them."""
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
            odd = sorted(set(train) - set(val) if keep else set(train) ^ set(val))
            if odd:
                where = "train/ only" if odd[0] in train else "val/ only"
                raise DataError(
                    f"{root}: train/ and val/ must have the same classes; {len(odd)} differ,"
                    f" the first is {(train | val)[odd[0]][0]!r}, in {where}"
                )
        return sorted(folder for folder, _ in train.values())


@lru_cache(4096)
def plain(folder: str) -> str:
    """Return the class that a path means, with hyphens: /b/bazaar/indoor is bazaar-indoor.

    Places365 sorts its classes into folders by first letters in one release, not in another.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if len(parts) > 1 and parts[0] == parts[1][0]:
        del parts[0]
    return "-".join(parts)


def _class_folders(config: TrainConfig, part: str) -> _Classes:
    """Return the folders in train/ or val/ that hold pictures, and those that are empty."""
    found: _Classes = {}
    root = config.data_path / part
    for folder, listing in sorted(list_pictures(root, config.cache_path).items()):
        empty = not listing.folders and "/" not in folder
        if folder and (listing.pictures or empty):
            other, _ = found.setdefault(plain(folder), (folder, listing.pictures))
            if other != folder:
                raise DataError(f"{root}: {other} and {folder} are one class; make them one folder")
    return found


def _keep_file(config: TrainConfig) -> Path | None:
    keep, own = config.options["keep"], config.data_path / "keep.txt"
    if keep == "auto":
        return own if own.is_file() else None
    return None if keep == "none" else Path(keep).expanduser()


def _kept(keep: Path, classes: _Classes) -> _Classes:
    """Return the classes that the file `keep` names, one per line; raise DataError for others."""
    kept = set()
    for line, text, names in named_classes(keep):
        known = [name for name in names if name in classes]
        if not known:
            near = get_close_matches(names[1], classes, n=3)
            guess = f"did you mean {' or '.join(near)}?" if near else "correct or remove it"
            raise DataError(f"{keep} line {line}: no class folder for {text!r}; {guess}")
        kept.add(known[0])
    if len(kept) < 2:
        raise DataError(f"{keep} keeps {len(kept)} classes; name two at least, one a line")
    return {name: classes[name] for name in classes if name in kept}


def named_classes(keep: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line, text, its readings) of a file of classes: a number at the end belongs to a list."""
    for line, whole in _lines(keep):
        text = whole.split(" #")[0].strip()
        yield line, text, [plain(text), plain(_unnumbered(text))]


def _pictures(config: TrainConfig, part: str, classes: list[str]) -> Iterator[list[str]]:
    """Yield the pictures of each class in train/ or val/, by their paths from the data folder."""
    root = config.data_path
    if not (root / part).is_dir():
        return
    there = _class_folders(config, part)
    found = {name: there[name][1] for name in map(plain, classes)}
    for name, pictures in found.items():
        if not pictures:
            folder, known = root / part / there[name][0], ", ".join(SUFFIXES)
            raise DataError(f"{folder} has no picture ({known}); add some")
    path = root / f"{part}.txt"
    if path.is_file():
        found = _listed(path, found, config)
    for name, pictures in found.items():
        place = f"{part}/{there[name][0]}"
        yield [f"{place}/{file}" for file in pictures.split("/")]


def _listed(path: Path, there: dict[str, str], config: TrainConfig) -> dict[str, str]:
    """Of the pictures that are there of each class, those that the list names.

    Its numbers of classes are passed over: lists differ in them, and the folder says it anyhow.
    """
    listed: dict[str, set[str]] = defaultdict(set)
    for _, text in _lines(path):
        folder, _, file = _unnumbered(text).removeprefix(f"{path.stem}/").rpartition("/")
        listed[plain(folder)].add(sys.intern(file))  # Each class has the same 5,000 names.
    if _keep_file(config):
        listed = {name: listed[name] for name in there}
    total, others, found = sum(map(len, listed.values())), 0, {}
    for name, pictures in there.items():
        files = pictures.split("/")
        kept = [file for file in files if file in listed[name]]
        if not kept:
            raise DataError(
                f"{path} lists no picture that is there of the class {name}; correct or remove the"
                " list, or name the other classes in keep.txt"
            )
        found[name] = "/".join(kept)
        others += len(files) - len(kept)
        listed[name].difference_update(kept)
    _LOGGER.info("%s lists %d pictures; %d others are left out", path, total, others)
    missing = [f"{name}/{file}" for name, files in listed.items() for file in files]
    if missing:
        text = f"{len(missing)} of its {total} pictures are missing, the first is {min(missing)}"
        if config.strict_data or len(missing) > _MOST_MISSING * total:
            rule = "--strict_data allows none" if config.strict_data else "at most 5 % may be"
            raise DataError(
                f"{path}: {text}; {rule}, put them there, or remove the list, or name the classes"
                " that you have in keep.txt"
            )
        _LOGGER.warning("%s: %s", path, text)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text, without blanks and comments, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield number, text
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as such") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file") from None


def _unnumbered(text: str) -> str:
    words = text.rsplit(None, 1)
    return words[0] if len(words) == 2 and words[1].isdigit() else text


TASK = Folders

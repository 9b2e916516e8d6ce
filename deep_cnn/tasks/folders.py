"""Define the task folders: the class of a picture is the folder that it is in."""

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import broken_rule
from deep_cnn.data.listing import Listing, is_output, list_data, list_pictures, names_in
from deep_cnn.data.splits import Examples, Files
from deep_cnn.delimited import open_text
from deep_cnn.errors import DataError
from deep_cnn.home import expand_user
from deep_cnn.layout import (
    SUFFIXES,
    is_doubtful_class,
    loose_files,
    split_folders,
    subfolders,
    unlabelled_folders,
)
from deep_cnn.tasks.base import Classification

_LOGGER = logging.getLogger("deep_cnn")
# For each class, by its plain name: its folder, and the names of its pictures joined by slashes.
# A list of names would take several times the memory, and there are millions.
_Classes = dict[str, tuple[str, str]]


class Folders(Classification):
    """The task of predicting class folders, nested or not, in train/ or at the root."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return the pictures of the split folders; those of val/ and test/ are marked.

        Only the classes in --keep, and only the pictures in train.txt, val.txt or test.txt if these
        exist.
        """
        classes, keep = self.classes(config), _keep_file(config)
        if keep:
            _LOGGER.info("%s keeps %d classes", keep, len(classes))
        names: list[str] = []
        targets: list[int] = []
        marks: list[str | None] = []
        for part in _parts(config):
            for target, pictures in enumerate(_pictures(config, part, classes)):
                names += pictures
                targets += [target] * len(pictures)
                marks += [part.mark] * len(pictures)
        if part.mark in marks and (part.split, part.mark) == ("val", "test"):
            text = "%s/ is the test split; validation takes a part of the training pictures"
            _LOGGER.info(text, part.folder)
        for name in classes if not part.folder else ():
            if is_doubtful_class(name):
                text = (
                    "%s/ is read as a class; if it is none, move it, or put the classes in train/"
                )
                _LOGGER.warning(text, config.data_path / name)
        every = tuple(names)
        files, labels = Files(config.data_path, every), np.array(targets, dtype=np.int64)
        return Examples(every, files, labels, np.ones(len(every))), marks

    def classes(self, config: TrainConfig) -> list[str]:
        """Return the sorted classes that --keep selects; val/ and test/ must have no others."""
        root, keep = config.data_path, _keep_file(config)
        first, *others = _parts(config)
        train = _class_folders(config, first.folder)
        if keep:
            train = _kept(keep, train)
        if len(train) < 2:
            raise DataError(
                f"{root / first.folder} has {len(train)} class folders; put the pictures of each"
                " class in a folder of its own, two at least"
            )
        for _, part, _ in others if not keep else ():
            folders = _class_folders(config, part)
            odd = sorted(folders.keys() - train.keys())
            if odd:
                raise DataError(
                    f"{root}: {first.folder}/ and {part}/ must have the same classes; {len(odd)}"
                    f" differ, the first is {folders[odd[0]][0]!r}, in {part}/ only"
                )
        return sorted(folder for folder, _ in train.values())

    def left_out(self, config: TrainConfig) -> Mapping[str, int]:
        """Return the number of files in the data folder that are no examples, by reason."""
        root, parts, reasons = config.data_path, _parts(config), Counter[str]()
        chosen = {plain(folder) for folder in self.classes(config)}
        for _, part, _ in parts:
            for folder, listing in _listings(config, part).items():
                reasons.update(listing.others)
                pictures = len(listing.pictures.split("/")) if listing.pictures else 0
                if not folder:
                    reasons["pictures outside of class folders"] += pictures
                elif plain(folder) not in chosen:
                    reasons["pictures of classes that --keep leaves out"] += pictures
        if parts[0].folder:
            reasons.update(loose_files(root))
        unused = {*subfolders(root)} - {part for _, part, _ in parts}
        for name in sorted(unused) if parts[0].folder else unlabelled_folders(root):
            if not is_output(config, root / name):
                reasons[f"folder {name}/, which is no split ({_count(config, name)})"] = 1
        return +reasons


class _Part(NamedTuple):
    """A split folder: its split for the list of its pictures, its name, and the mark of these."""

    split: str
    folder: str
    mark: str | None


def _parts(config: TrainConfig) -> list[_Part]:
    """Return the folder with the training pictures, "" for the data folder, and the others."""
    root, test = config.data_path, config.options["test_folder"]
    folders = split_folders(root)
    if not folders["train"]:
        unlabelled = unlabelled_folders(root)
        others = [name for name in folders["val"] + folders["test"] if name not in unlabelled]
        if others or test != "val":
            raise DataError(
                f"{root} has {others[0] if others else f'--test_folder={test}'}/ and no train/; put"
                " the training pictures in train/<class>/"
            )
        return [_Part("train", "", None)]
    names = (*subfolders(root), *chain(*folders.values()))
    if test not in names:  # As everywhere, upper and lower case do not matter.
        test = next((name for name in names if name.casefold() == test.casefold()), test)
    parts = [_Part("train", folders["train"][0], None)]
    if test not in ("val", *folders["val"]) and folders["val"]:
        parts.append(_Part("val", folders["val"][0], "val"))
    if test not in folders["train"] and test in names:
        split = "test" if test in folders["test"] else "val" if test in folders["val"] else test
        parts.append(_Part(split, test, "test"))
    elif test != "val":
        raise DataError(f"--test_folder={test} is no folder beside {root / parts[0].folder}")
    return parts


@lru_cache(4096)  # A list has one line for each picture, but few different folders.
def plain(folder: str) -> str:
    """Return the class name of a path, with hyphens: /b/bazaar/indoor is bazaar-indoor.

    One release of Places365 sorts its classes into folders by first letter, another does not.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if len(parts) > 1 and parts[0] == parts[1][0]:
        del parts[0]
    return "-".join(parts)


def _count(config: TrainConfig, folder: str) -> str:
    try:
        pictures = names_in(list_pictures(config.data_path / folder, config.cache_path))
    except DataError:
        return "unreadable"
    return f"{sum(1 for _ in pictures)} pictures"


def _listings(config: TrainConfig, part: str) -> Mapping[str, Listing]:
    """Return what a split folder contains; for "", what the class folders of the root contain."""
    root = config.data_path
    if part:
        return list_pictures(root / part, config.cache_path)
    return list_data(config, unlabelled_folders(root))


def _class_folders(config: TrainConfig, part: str) -> _Classes:
    """Return the folders in a split folder that hold pictures, and those that are empty."""
    classes: _Classes = {}
    root = config.data_path / part
    for folder, listing in sorted(_listings(config, part).items()):
        is_empty = part and not listing.folders and "/" not in folder
        if folder and (listing.pictures or is_empty):
            other, _ = classes.setdefault(plain(folder), (folder, listing.pictures))
            if other != folder:
                raise DataError(f"{root}: {other} and {folder} are one class; make them one folder")
    return classes


def _keep_file(config: TrainConfig) -> Path | None:
    keep, own = config.options["keep"], config.data_path / "keep.txt"
    if keep == "auto":
        return own if own.is_file() else None
    return None if keep == "none" else expand_user(keep)


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


def _pictures(config: TrainConfig, part: _Part, classes: list[str]) -> Iterator[list[str]]:
    """Yield the pictures of each class in a split folder, as paths from the data folder."""
    root = config.data_path
    folders = _class_folders(config, part.folder)
    chosen = {name: folders.get(name, (name, "")) for name in map(plain, classes)}
    missing = [folder for folder, pictures in chosen.values() if not pictures]
    if missing and part.mark is None:
        suffixes = ", ".join(SUFFIXES)
        raise DataError(f"{root / part.folder / missing[0]} has no picture ({suffixes}); add some")
    if missing:
        text = "%s has no picture of %d of %d classes, the first is %s"
        _LOGGER.warning(text, root / part.folder, len(missing), len(classes), missing[0])
        chosen = {name: each for name, each in chosen.items() if each[1]}
    path = root / f"{part.split}.txt"
    if part.folder and path.is_file():
        chosen = _listed(path, part.folder, chosen, config)
    for name in map(plain, classes):
        folder, pictures = chosen.get(name, ("", ""))
        prefix = f"{part.folder}/{folder}".lstrip("/")
        yield [f"{prefix}/{file}" for file in pictures.split("/")] if pictures else []


def _listed(path: Path, part: str, classes: _Classes, config: TrainConfig) -> _Classes:
    """Return the classes with only the pictures in the list `path`.

    Its class numbers are ignored: they differ between lists, and the folder names the class.
    """
    listed: dict[str, set[str]] = defaultdict(set)
    for _, text in _lines(path):
        folder, _, file = _unnumbered(text).removeprefix(f"{part}/").rpartition("/")
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

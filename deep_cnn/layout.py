"""Recognise pictures, split folders and the litter of operating systems by their names."""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from deep_cnn.errors import DataError

# Pillow's names of the raster formats that are read, with their suffixes. Formats that start
# another program (PostScript) or draw (WMF) are left out on purpose.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PCX": (".pcx",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "SGI": (".sgi",),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = tuple(sorted(suffix for suffixes in FORMATS.values() for suffix in suffixes))
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_NAMES = {alias: split for split, aliases in _SPLITS.items() for alias in aliases}
# What Synology, QNAP, macOS, Windows, Linux and Python leave in folders, in lower case.
_LITTER = frozenset(
    (
        "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "#recycle", "#snapshot",
        "__macosx", "icon\r", "network trash folder", "temporary items", "thumbs.db",
        "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler", "recycled",
        "system volume information", "found.000", "lost+found", "__pycache__",
    )
)  # fmt: skip

# MNIST's files: images and labels for training, and those for the test.
MNIST_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
# Folders that hold something else than the pictures of a class, most of the time.
_DOUBTFUL = re.compile(
    "((train|test|val)[ _-]?)?(images?|imgs?|set)"
    "|annotations|data|labels|logs|masks|models|outputs?|photos|pictures|predictions"
    "|results|runs|segmentations?|thumb(nail)?s",
    re.IGNORECASE,
)


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, temporary or made by a system, by its name."""
    return name.startswith((".", "~")) or name.lower() in _LITTER


def is_doubtful_class(name: str) -> bool:
    """Return whether a folder most likely holds something else than the pictures of a class."""
    return _DOUBTFUL.fullmatch(name) is not None


def subfolders(root: Path) -> list[str]:
    """Return the sorted names of the folders in `root` without litter; [] if it is unreadable."""
    names = []
    with suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            with suppress(OSError):  # A link that leads to itself.
                if not is_litter(entry.name) and entry.is_dir():
                    names.append(entry.name)
    return sorted(names)


def split_folders(root: Path) -> dict[str, list[str]]:
    """Return the names of the folders for train, val and test, the usual name first.

    Upper and lower case do not matter.
    """
    folders: dict[str, list[str]] = {}
    names = subfolders(root)
    for split, aliases in _SPLITS.items():
        found = [name for alias in aliases for name in names if name.lower() == alias]
        # Where the file system ignores case, a folder has the name by which it is asked for.
        usual = split in found or not os.path.isdir(root / split)  # noqa: PTH112
        folders[split] = found if usual else [split, *found[1:]]
    return folders


def choose_test_folder(root: Path) -> str:
    """Return the folder of the test split: test/ if it has classes of train/, or else val/.

    Classes count if they differ in upper and lower case or punctuation only, because the task then
    refuses them by name. Returns "val" if there is neither folder, or no train/. Raises DataError
    if one split has two folders.
    """
    folders = split_folders(root)
    for split, names in folders.items():
        if len(names) > 1:
            raise DataError(
                f"{root}: {' and '.join(f'{name}/' for name in names)} are both the {split} split;"
                " rename or join them"
            )
    train, val, test = folders.values()
    if train and test:
        one, other = ({*map(_letters, subfolders(root / name[0]))} for name in (train, test))
        if one & other:
            return test[0]
    return val[0] if train and val else "val"


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name.casefold())))


def unlabelled_folders(root: Path) -> list[str]:
    """Return the folders for val and test without folders of classes, as Kaggle has them."""
    aliases = (*_SPLITS["val"], *_SPLITS["test"])
    names = (name for name in subfolders(root) if name.lower() in aliases)
    return [name for name in names if not subfolders(root / name)]


def has_class_folders(root: Path) -> bool:
    """Return whether there is a train/ folder, or else two folders with pictures in them."""
    folders, unlabelled = split_folders(root), unlabelled_folders(root)
    if folders["train"] or {*folders["val"], *folders["test"]}.difference(unlabelled):
        return bool(folders["train"])
    names = (name for name in subfolders(root) if name not in unlabelled)
    pictured = (name for name in names if any(picture_names(root / name)))
    return len([*islice(pictured, 2)]) == 2


def picture_names(folder: Path) -> Iterator[str]:
    """Yield the names of the pictures directly in a folder; none if it is unreadable."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(SUFFIXES) and not is_litter(entry.name):
                yield entry.name


def loose_files(root: Path) -> dict[str, int]:
    """Return the numbers of pictures and tables beside the split folders, by what they are."""
    names = {"pictures outside of class folders": sum(1 for _ in picture_names(root))}
    with suppress(OSError):
        for name in sorted(os.listdir(root)):  # noqa: PTH208
            if name.lower().endswith((".csv", ".tsv")) and not is_litter(name):
                names[f"table {name}, which is not read"] = 1
    return names


def find_idx(folder: Path, name: str) -> Path | None:
    """Return MNIST's file `name` in a data folder, gzipped or not, or None.

    It may be called train-images-idx3-ubyte or train-images.idx3-ubyte, and lie in the folder, in
    MNIST/raw/ or raw/, as torchvision has it, or in a folder of its own name, as Kaggle has it.
    """
    for parent in (folder, folder / "MNIST" / "raw", folder / "raw"):
        for stem in (name, name.replace("-idx", ".idx")):
            for file in (parent / stem, parent / stem / stem, parent / f"{stem}.gz"):
                if os.path.isfile(file):  # noqa: PTH113 - Path's own fails for a long name.
                    return file
    return None

"""List the pictures under a folder, millions of them, and list again only what has changed."""

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from deep_cnn.config import TrainConfig
from deep_cnn.data.array_cache import fingerprint
from deep_cnn.errors import DataError, OutputError
from deep_cnn.files import write_text
from deep_cnn.layout import SUFFIXES, is_litter, subfolders

# Increase this number when a listing changes its meaning.
_VERSION = 2
HIDDEN = "hidden files and files of the operating system"
# A file system may store times in steps of up to two seconds.
_COARSE = 2 * 10**9


class Listing(NamedTuple):
    """The contents of one folder: `folders` and `pictures` are sorted names, joined by slashes.

    `others` counts everything else: litter as HIDDEN, other files by their suffix.
    """

    stamp: list[int]  # inode, mtime and ctime in ns
    listed: int  # when, in ns
    folders: str
    pictures: str
    others: dict[str, int]


_listed: dict[str, Mapping[str, Listing]] = {}


def list_data(config: TrainConfig, skip: Collection[str] = ()) -> Mapping[str, Listing]:
    """Return what the data folder contains, without the results of runs; see `list_pictures`."""
    root = config.data_path
    outputs = [name for name in subfolders(root) if is_output(config, root / name)]
    return list_pictures(root, config.cache_path, [*skip, *outputs])


def is_output(config: TrainConfig, folder: Path) -> bool:
    """Return whether a folder holds the results or the cache of the run."""
    outputs = [path.resolve() for path in (config.out_path, config.cache_path) if path]
    return any(path.is_relative_to(folder.resolve()) for path in outputs)


def names_in(listings: Mapping[str, Listing]) -> Iterator[str]:
    """Yield the path of each picture from the folder that was listed."""
    for folder, listing in listings.items():
        for file in listing.pictures.split("/") if listing.pictures else ():
            yield f"{folder}/{file}".lstrip("/")


def list_pictures(
    root: Path, cache: Path | None, skip: Collection[str] = ()
) -> Mapping[str, Listing]:
    """Return what `root` and every folder below it contain, by path from there ("" is `root`).

    Skips litter, and the folders `skip` in `root`. Neither opens pictures nor reads their sizes or
    times. The listings stay in memory, and under `cache` if it is writable. A folder is listed
    again if its times show a change, or a change just before it was listed. Raises DataError.
    """
    path = os.path.abspath(root)  # noqa: PTH100 - a link and its target are two names.
    key = "/".join([path, *sorted(skip)])
    file = cache and cache / "listings" / f"{fingerprint([_VERSION, SUFFIXES, key])}.json"
    before = _listed.get(key) or (_read(file) if file else {})
    folders: dict[str, Listing] = {}
    level = [("", frozenset[tuple[int, int]]())]
    with ThreadPoolExecutor() as pool:  # On a network file system most of the time is waiting.
        while level:
            listings = pool.map(lambda each: _list(root / each[0], before.get(each[0])), level)
            below = []
            for (name, above), (identity, listing) in zip(level, listings, strict=True):
                if identity in above:  # A link that leads back up.
                    continue
                folders[name] = listing
                skipped = {"", *(() if name else skip)}
                children = [each for each in listing.folders.split("/") if each not in skipped]
                below += [(f"{name}/{each}".lstrip("/"), above | {identity}) for each in children]
            level = below
    if file and folders != before:
        with suppress(OutputError):  # Then each run lists for itself.
            write_text(file, json.dumps(folders))
    _listed[key] = folders
    return folders


def _list(folder: Path, before: Listing | None) -> tuple[tuple[int, int], Listing]:
    """Return the folder's device and inode, and its listing, which is `before` if unchanged."""
    now = time.time_ns()
    try:
        stat = folder.stat()
        stamp = [stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        if not before or before.stamp != stamp or before.listed < max(stamp[1:]) + _COARSE:
            with os.scandir(folder) as entries:
                before = Listing(stamp, now, *_sorted(entries))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror}); it must hold one folder per class"
        ) from None
    return (stat.st_dev, stat.st_ino), before


def _sorted(entries: Iterable[os.DirEntry[str]]) -> tuple[str, str, dict[str, int]]:
    folders, pictures, others = [], [], Counter[str]()
    for entry in entries:
        name = entry.name
        if is_litter(name):
            others[HIDDEN] += 1
        # Only the name of a link is read, because following millions of links takes minutes.
        elif name.lower().endswith(SUFFIXES) and (entry.is_symlink() or not entry.is_dir()):
            pictures.append(name)
        else:
            with suppress(OSError):  # A link that leads to itself.
                if entry.is_dir():
                    folders.append(name)
                else:
                    others[kind_of(name)] += 1
    return "/".join(sorted(folders)), "/".join(sorted(pictures)), dict(others)


def kind_of(name: str) -> str:
    """Return the reason in `Listing.others` for a file that is no picture."""
    return f"files of type {Path(name).suffix.lower() or 'unknown'}"


def _read(file: Path) -> Mapping[str, Listing]:
    kinds = [list, int, str, str, dict]
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows = content.items()
        return {name: Listing(*row) for name, row in rows if [type(cell) for cell in row] == kinds}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}

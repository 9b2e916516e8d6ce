"""List the pictures under a folder, millions of them, and list again only what has changed."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from deep_cnn.data.array_cache import fingerprint
from deep_cnn.errors import DataError, OutputError
from deep_cnn.files import write_text

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# A file system may tell times in steps of up to two seconds.
_COARSE = 2 * 10**9


class Listing(NamedTuple):
    """What lies in one folder: `folders` and `pictures` are names, sorted, joined by slashes."""

    stamp: list[int]  # inode, mtime and ctime in ns
    listed: int  # when, in ns
    folders: str
    pictures: str


_listed: dict[str, Mapping[str, Listing]] = {}


def list_pictures(root: Path, cache: Path | None) -> Mapping[str, Listing]:
    """Return what lies in `root` and in every folder below, by its path from there ("" is `root`).

    Hidden folders are passed over; no picture is opened, nor asked for its size or time. What
    was found is kept in memory, and under `cache` where that can be written: a folder is listed
    anew when its times say that it has changed, or had done so just before. DataError.
    """
    where = os.path.abspath(root)  # noqa: PTH100 - a link and its target are two names.
    place = cache and cache / "listings" / f"{fingerprint([SUFFIXES, where])}.json"
    known = _listed.get(where) or (_read(place) if place else {})
    found: dict[str, Listing] = {}
    level = [("", frozenset[tuple[int, int]]())]
    with ThreadPoolExecutor() as pool:  # On a network file system most of the time is waiting.
        while level:
            listings = pool.map(lambda each: _list(root / each[0], known.get(each[0])), level)
            below = []
            for (name, above), (identity, listing) in zip(level, listings, strict=True):
                if identity in above:  # A link that leads back up.
                    continue
                found[name] = listing
                folders = filter(None, listing.folders.split("/"))
                below += [(f"{name}/{each}".lstrip("/"), above | {identity}) for each in folders]
            level = below
    if place and found != known:
        with suppress(OutputError):  # Then each run lists for itself.
            write_text(place, json.dumps(found))
    _listed[where] = found
    return found


def _list(folder: Path, known: Listing | None) -> tuple[tuple[int, int], Listing]:
    """Return the folder's device and inode, and what lies in it: `known` if nothing has changed."""
    now = time.time_ns()
    try:
        stat = folder.stat()
        stamp = [stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        if not known or known.stamp != stamp or known.listed < max(stamp[1:]) + _COARSE:
            with os.scandir(folder) as entries:
                known = _sorted(stamp, now, entries)
    except OSError as error:
        reason = error.strerror
        raise DataError(
            f"{folder} cannot be read ({reason}); it must hold one folder per class"
        ) from None
    return (stat.st_dev, stat.st_ino), known


def _sorted(stamp: list[int], now: int, entries: Iterable[os.DirEntry[str]]) -> Listing:
    folders, pictures = [], []
    for entry in entries:
        # Of a link only its name is looked at: following millions of them takes minutes.
        if entry.name.lower().endswith(SUFFIXES) and (entry.is_symlink() or not entry.is_dir()):
            pictures.append(entry.name)
        elif not entry.name.startswith(".") and _is_dir(entry):
            folders.append(entry.name)
    return Listing(stamp, now, "/".join(sorted(folders)), "/".join(sorted(pictures)))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def _read(place: Path) -> Mapping[str, Listing]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        return {name: Listing(*row) for name, row in content.items() if _is_listing(row)}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_listing(row: object) -> bool:
    kinds = [list, int, str, str]
    return isinstance(row, list) and [type(value) for value in row] == kinds

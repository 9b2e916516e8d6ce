"""Keep arrays that are the same in many runs on disk, built once and mapped into memory.

An entry is a folder with `values.npy` and `entry.json`. It is built under a lock, in a folder
beside, and renamed when it is complete. If two processes need the same entry, one builds it and the
other waits; interrupted builds are discarded. The name of an entry is a fingerprint of everything
that its values depend on.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

_LOGGER = logging.getLogger("deep_cnn")
# A cache must not be what fills the disk.
_LARGEST_PART_OF_FREE_SPACE = 0.8
_LOCK_TIMEOUT = 0.2
_SECONDS_BEFORE_MESSAGE = 2.0
Check = Callable[[], None]
Notes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """An array to be kept: its name, shape and type, and how to fill it.

    `fill` writes into the array and returns notes, by name, that are kept beside it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]
    fill: Callable[[NDArray[Any]], Notes]


def fingerprint(parts: Iterable[Any]) -> str:
    """Return a short hash of anything that has a repr."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:24]


def open_array(entry: ArrayEntry, folder: Path, check: Check) -> tuple[NDArray[Any], Notes] | None:
    """Return the array and its notes, built if it is missing or damaged.

    Returns None, after a warning, if it cannot be kept in `folder`. `check` is called while waiting
    for another process that builds it, and may raise.
    """
    found = _read(entry, folder)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _Locked(folder / f"{entry.name}.lock", check):
            found = _read(entry, folder)  # Another process may have built it meanwhile.
            return _build(entry, folder) if found is None else found
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        _LOGGER.warning("%s: nothing is kept there (%s); it is done for each run", folder, reason)
        return None


class _Locked:
    """A file lock that is freed whenever its owner ends; waiting for it can be interrupted."""

    def __init__(self, path: Path, check: Check) -> None:
        self.lock, self.check = FileLock(path), check

    def __enter__(self) -> None:
        logged, begun = False, time.monotonic()
        while True:
            self.check()
            with suppress(Timeout):
                self.lock.acquire(timeout=_LOCK_TIMEOUT)
                return
            if not logged and time.monotonic() - begun > _SECONDS_BEFORE_MESSAGE:
                logged = True
                _LOGGER.info(
                    "Waiting for another process that makes %s; --cache=off does not wait",
                    Path(self.lock.lock_file).with_suffix(""),
                )

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _read(entry: ArrayEntry, folder: Path) -> tuple[NDArray[Any], Notes] | None:
    place = folder / entry.name
    try:
        notes = json.loads((place / "entry.json").read_text(encoding="utf-8"))["bad"]
        values = np.load(place / "values.npy", mmap_mode="r")
    except Exception:  # A damaged header raises many kinds of errors, tokenize's among them.
        return None
    fits = values.shape == entry.shape and values.dtype == entry.dtype and isinstance(notes, dict)
    return (values, notes) if fits else None


def _discard_interrupted(place: Path) -> None:
    """Remove what interrupted builds left; the lock of `place` itself is already held."""
    for left in place.parent.glob(".*.part"):
        name = left.name[1:].split(".")[0]
        with suppress(Timeout, OSError):
            lock = FileLock(place.with_name(f"{name}.lock"))
            with nullcontext() if name == place.name else lock.acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _build(entry: ArrayEntry, folder: Path) -> tuple[NDArray[Any], Notes]:
    place, dtype = folder / entry.name, np.dtype(entry.dtype)
    _discard_interrupted(place)
    # A unique name: if the folder is removed the lock goes with it, and then two may build.
    beside = place.with_name(f".{place.name}.{uuid4().hex}.part")
    shutil.rmtree(place, ignore_errors=True)  # Damaged, or it would have been read.
    needed = int(np.prod(entry.shape)) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if needed > _LARGEST_PART_OF_FREE_SPACE * free:
        raise OSError(f"{needed / 2**30:.2g} GiB are needed, {free / 2**30:.2g} GiB are free")
    try:
        beside.mkdir()
        path = beside / "values.npy"
        values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=entry.shape)
        # A mapped page for which the disk has no room kills the process: allocate all of it now.
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        notes = entry.fill(values)
        values.flush()
        (beside / "entry.json").write_text(json.dumps({"bad": notes}), encoding="utf-8")
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    built = _read(entry, folder)
    if built is None:
        raise OSError(f"{place.name} cannot be read back")
    return built

"""Cache arrays that many runs share on disk: built once, then mapped into memory.

An entry is a folder with `values.npy` and `entry.json`. It is built under a lock in a temporary
folder and renamed when it is complete. If two processes need the same entry, one builds it and the
other waits; interrupted builds are discarded. The name of an entry is a fingerprint of everything
that its values depend on.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

_LOGGER = logging.getLogger("deep_cnn")
# The cache must not fill the disk.
_LARGEST_PART_OF_FREE_SPACE = 0.8
_LOCK_TIMEOUT = 0.2
_SECONDS_BEFORE_MESSAGE = 2.0
Check = Callable[[], None]
Notes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """An array in the cache: its folder, shape and type, and how to fill it.

    `fill` writes into the array and returns notes, by name, that are stored beside it.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: type[np.generic]
    fill: Callable[[NDArray[Any]], Notes]


def fingerprint(parts: Iterable[Any]) -> str:
    """Return a short hash of anything that has a repr."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:24]


def open_array(entry: ArrayEntry, check: Check) -> tuple[NDArray[Any], Notes] | None:
    """Return the array and its notes; build the entry if it is missing or damaged.

    Returns None, after a warning, if it cannot be stored. `check` is called while waiting for
    another process that builds it, and may raise.
    """
    stored = _read(entry)
    if stored:
        return stored
    folder = entry.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{entry.path.name}.lock", check):
            # Another process may have built it meanwhile.
            return _read(entry) or _build(entry)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        _LOGGER.warning("%s: nothing is kept there (%s); it is done for each run", folder, reason)
        return None


@contextmanager
def _locked(path: Path, check: Check) -> Iterator[None]:
    """Hold a file lock, which is released if its owner ends; `check` may interrupt the wait."""
    lock, logged, begun = FileLock(path), False, time.monotonic()
    while True:
        check()
        with suppress(Timeout):
            lock.acquire(timeout=_LOCK_TIMEOUT)
            break
        if not logged and time.monotonic() - begun > _SECONDS_BEFORE_MESSAGE:
            logged = True
            text = "Waiting for another process that makes %s; --cache=off does not wait"
            _LOGGER.info(text, path.with_suffix(""))
    try:
        yield
    finally:
        lock.release()


def _read(entry: ArrayEntry) -> tuple[NDArray[Any], Notes] | None:
    try:
        text = (entry.path / "entry.json").read_text(encoding="utf-8")
        notes = json.loads(text)["bad"]
        values = np.load(entry.path / "values.npy", mmap_mode="r")
    except Exception:  # A damaged header raises many kinds of errors, tokenize's among them.
        return None
    fits = values.shape == entry.shape and values.dtype == entry.dtype and isinstance(notes, dict)
    return (values, notes) if fits else None


def _discard_interrupted(target: Path) -> None:
    """Remove the files of interrupted builds; the caller holds the lock of `target`."""
    for left in target.parent.glob(".*.part"):
        name = left.name[1:].split(".")[0]
        with suppress(Timeout, OSError):
            lock = FileLock(target.with_name(f"{name}.lock"))
            with nullcontext() if name == target.name else lock.acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _build(entry: ArrayEntry) -> tuple[NDArray[Any], Notes]:
    target, dtype = entry.path, np.dtype(entry.dtype)
    _discard_interrupted(target)
    # Use a unique name: if the folder and its lock are removed, two processes may build.
    beside = target.with_name(f".{target.name}.{uuid4().hex}.part")
    shutil.rmtree(target, ignore_errors=True)  # Damaged, or it would have been read.
    needed = int(np.prod(entry.shape)) * dtype.itemsize
    free = shutil.disk_usage(target.parent).free
    if needed > _LARGEST_PART_OF_FREE_SPACE * free:
        raise OSError(f"{needed / 2**30:.2g} GiB are needed, {free / 2**30:.2g} GiB are free")
    try:
        beside.mkdir()
        path = beside / "values.npy"
        values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=entry.shape)
        # If the disk has no room for a mapped page, the process is killed: allocate all of it now.
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        notes = entry.fill(values)
        values.flush()
        (beside / "entry.json").write_text(json.dumps({"bad": notes}), encoding="utf-8")
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    built = _read(entry)
    if not built:
        raise OSError(f"{target.name} cannot be read back")
    return built

"""Do once for all runs what is the same in all: decoded pictures, and features of a frozen trunk.

An entry is a folder `<kind>-<fingerprint>` with `values.npy` (mapped into memory, so that
processes share it) and `entry.json`. It is made under a lock in a folder beside, and renamed when
it is whole: who is killed leaves nothing that anybody reads. The fingerprint holds all that the
values depend on.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from deep_cnn.data.images import SHAPES, Picture, decode, to_array
from deep_cnn.data.splits import Examples
from deep_cnn.names import InputFormat

_LOGGER = logging.getLogger("deep_cnn")
# To be raised when what is in an entry changes its meaning.
_VERSION = 1
# A cache must not be what fills the disk.
_MOST_OF_THE_DISK = 0.8
_WAIT = 0.2
_PATIENCE = 2.0
# Not the picture's fault, and another time it may be read.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOMEM)
_AT_ONCE = 256
_BAR: dict[str, Any] = {"unit": "", "delay": 2, "leave": False, "disable": None}
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Store:
    """Pictures shaped as --pre says, (N, C, H, W) uint8, in rows by name; `bad` ones say why.

    `fingerprint` tells one store from another.
    """

    values: NDArray[np.uint8]
    rows: Mapping[str, int]
    bad: Mapping[str, str]
    fingerprint: str

    def rows_of(self, examples: Examples) -> NDArray[np.int64]:
        """The row of each picture."""
        return np.array([self.rows[name] for name in examples.names], dtype=np.int64)


_in_memory: dict[str, Store] = {}


def open_pictures(
    examples: Examples,
    pre: str,
    form: InputFormat,
    folder: Path | None,
    check: Check,
    crop_bottom: int = 0,
) -> Store | None:
    """The pictures of `examples`, decoded and shaped: from `folder`, where they are put if need be.

    None where there is no folder, or none that can be written, which a warning says. `check` is
    called now and then, and may raise. Pictures that are arrays already are kept in memory.
    """
    shape, channels = SHAPES[pre], form.channels
    shaping = [shape.__name__, asdict(form), crop_bottom]

    def shaped(picture: Picture) -> NDArray[np.uint8] | str:
        try:
            return to_array(shape(decode(picture, crop_bottom), form), channels)
        except ValueError as error:
            cause = error.__cause__
            if isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _PASSING:
                raise OSError(f"a picture could not be read: {error}") from None
            return str(error)

    if all(isinstance(picture, np.ndarray) for picture in examples.pictures):
        raw = [hashlib.sha256(picture).digest() for picture in examples.pictures]  # type: ignore[arg-type]
        key = fingerprint([*shaping, examples.names, raw])
        if key not in _in_memory:
            values = np.stack([np.asarray(shaped(picture)) for picture in examples.pictures])
            rows = {name: i for i, name in enumerate(examples.names)}
            _in_memory.clear()  # The last one is what the next run wants.
            _in_memory[key] = Store(values, rows, {}, key)
        return _in_memory[key]
    if folder is None:
        return None
    order = sorted(range(len(examples)), key=examples.names.__getitem__)
    ordered = examples.take(order)
    names, pictures = ordered.names, ordered.pictures
    key = fingerprint(chain([_VERSION, *shaping], map(_stamp, names, pictures)))

    def fill(values: NDArray[np.uint8]) -> Mapping[str, Any]:
        bad = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            bar = tqdm(total=len(pictures), desc="Decoding pictures, once for all", **_BAR)
            try:
                for begin in range(0, len(pictures), _AT_ONCE):
                    check()
                    part = [pictures[i] for i in range(begin, min(begin + _AT_ONCE, len(names)))]
                    for i, found in enumerate(pool.map(shaped, part), begin):
                        if isinstance(found, str):
                            bad[names[i]] = found
                        else:
                            values[i] = found
                    bar.update(len(part))
            finally:
                bar.close()
                pool.shutdown(wait=False, cancel_futures=True)
        return {"bad": bad}

    size = (len(pictures), channels, form.crop, form.crop)
    entry = _open(folder, f"pictures-{key}", size, np.dtype(np.uint8), fill, check)
    if entry is None:
        return None
    rows = {name: i for i, name in enumerate(names)}
    return Store(entry[0], rows, entry[1]["bad"], key)


def open_features(
    store: Store,
    key: str,
    count: int,
    folder: Path | None,
    compute: Callable[[Sequence[int]], NDArray[np.float32]],
    check: Check,
) -> NDArray[np.float32] | None:
    """(N, count) float32, a row for each of the store's: from `folder`, or by `compute` of rows.

    `key` says what computes them. None where they cannot be kept. Rows of bad pictures are zero.
    """
    if folder is None:
        return None
    name = f"features-{fingerprint([_VERSION, store.fingerprint, key])}"

    def fill(values: NDArray[np.float32]) -> Mapping[str, Any]:
        rows = [row for each, row in store.rows.items() if each not in store.bad]
        for begin in tqdm(range(0, len(rows), _AT_ONCE), desc="Features, once for all", **_BAR):
            check()
            part = rows[begin : begin + _AT_ONCE]
            values[part] = compute(part)
        return {"bad": {}}

    size = (len(store.rows), count)
    entry = _open(folder, name, size, np.dtype(np.float32), fill, check)
    return None if entry is None else entry[0]


def fingerprint(parts: Iterable[Any]) -> str:
    """A short hash of anything that has a repr."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:24]


def _stamp(name: str, picture: Picture) -> tuple[Any, ...]:
    """What changes when a file does; its change time cannot be set back, as the other can."""
    assert isinstance(picture, Path)
    path = os.path.abspath(picture)  # noqa: PTH100 - a link and its target are two names.
    try:
        found = picture.stat()
    except OSError:
        return (name, path)
    return (name, path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _open(
    folder: Path,
    name: str,
    size: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Callable[[Any], Mapping[str, Any]],
    check: Check,
) -> tuple[NDArray[Any], Mapping[str, Any]] | None:
    """The entry `name`, made by `fill` where it is not there; None where it cannot be kept."""
    place = folder / name
    found = _read(place, size, dtype)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _Locked(folder / f"{name}.lock", check):
            found = _read(place, size, dtype)  # Somebody else may have made it meanwhile.
            return _make(place, size, dtype, fill) if found is None else found
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        _LOGGER.warning("%s: nothing is kept there (%s); it is done for each run", folder, reason)
        return None


class _Locked:
    """A lock that the end of its owner frees, whatever the end is; waiting for it can be ended."""

    def __init__(self, path: Path, check: Check) -> None:
        self.lock, self.check = FileLock(path), check

    def __enter__(self) -> None:
        said, begun = False, time.monotonic()
        while True:
            self.check()
            with suppress(Timeout):
                self.lock.acquire(timeout=_WAIT)
                return
            if not said and time.monotonic() - begun > _PATIENCE:
                said = True
                _LOGGER.info(
                    "Waiting for another process that makes %s; --cache=off does not wait",
                    Path(self.lock.lock_file).with_suffix(""),
                )

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _read(
    place: Path, size: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], Mapping[str, Any]] | None:
    try:
        notes = json.loads((place / "entry.json").read_text(encoding="utf-8"))
        values = np.load(place / "values.npy", mmap_mode="r")
        fits = values.shape == size and values.dtype == dtype and isinstance(notes["bad"], dict)
    except Exception:  # What is damaged raises many kinds, as tokenize's for a header.
        return None
    return (values, notes) if fits else None


def _clean(place: Path) -> None:
    """Remove what killed builds left: their locks are nobody's, and that of `place` is ours."""
    for left in place.parent.glob(".*.part"):
        name = left.name[1:].split(".")[0]
        with suppress(Timeout, OSError):
            lock = FileLock(place.with_name(f"{name}.lock"))
            with nullcontext() if name == place.name else lock.acquire(timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _make(
    place: Path,
    size: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Callable[[Any], Mapping[str, Any]],
) -> tuple[NDArray[Any], Mapping[str, Any]]:
    _clean(place)
    # A name of its own: whoever removes the folder takes the lock away with it, and then two build.
    beside = place.with_name(f".{place.name}.{uuid4().hex}.part")
    shutil.rmtree(place, ignore_errors=True)  # Damaged, or it would have been read.
    wanted = int(np.prod(size)) * dtype.itemsize
    free = shutil.disk_usage(place.parent).free
    if wanted > _MOST_OF_THE_DISK * free:
        raise OSError(f"{wanted / 2**30:.2g} GiB are wanted, {free / 2**30:.2g} GiB are free")
    try:
        beside.mkdir()
        path = beside / "values.npy"
        values = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=size)
        # A mapped page for which the disk has no room kills the process: ask for all of it now.
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        notes = fill(values)
        values.flush()
        (beside / "entry.json").write_text(json.dumps(notes), encoding="utf-8")
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    found = _read(place, size, dtype)
    if found is None:
        raise OSError(f"{place.name} cannot be read back")
    return found

"""Decode and shape pictures once for all runs, and compute features of a frozen trunk once."""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_cnn.data.array_cache import ArrayEntry, Check, Notes, fingerprint, open_array
from deep_cnn.data.preprocessing import Picture, Preprocessing
from deep_cnn.data.splits import Examples
from deep_cnn.progress import progress_bar, track

# To be raised when the values of an entry change their meaning.
_VERSION = 1
# Errors that are not the fault of the picture: it may be read another time.
_TRANSIENT = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOMEM)
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Pictures that are decoded and shaped.

    Attributes:
        values: (N, C, H, W) uint8; rows of unreadable pictures are undefined.
        rows: The row of each picture, by its name.
        unreadable: Why a picture cannot be read, by its name.
        fingerprint: Differs between caches with different values.
    """

    values: NDArray[np.uint8]
    rows: Mapping[str, int]
    unreadable: Mapping[str, str]
    fingerprint: str

    def rows_of(self, examples: Examples) -> NDArray[np.int64]:
        """Return the row of each picture, (N,)."""
        return np.array([self.rows[name] for name in examples.names], dtype=np.int64)


_in_memory: dict[str, ImageCache] = {}


def open_image_cache(
    examples: Examples, preprocessing: Preprocessing, folder: Path | None, check: Check
) -> ImageCache | None:
    """Return the pictures of `examples`, decoded and shaped; they are added to `folder` if missing.

    Returns None without a folder, or, after a warning, if nothing can be kept there. `check` is
    called now and then, and may raise. Pictures that are arrays already are kept in memory.
    """
    if all(isinstance(picture, np.ndarray) for picture in examples.pictures):
        return _open_in_memory(examples, preprocessing)
    if folder is None:
        return None
    order = sorted(range(len(examples)), key=examples.names.__getitem__)
    ordered = examples.take(order)
    names, pictures = ordered.names, ordered.pictures
    key = fingerprint(chain([_VERSION, *preprocessing.key], map(_stamp, names, pictures)))

    def fill(values: NDArray[np.uint8]) -> Notes:
        return _decode_all(ordered, preprocessing, values, check)

    spec = preprocessing.spec
    shape = (len(pictures), spec.channels, spec.crop, spec.crop)
    found = open_array(ArrayEntry(f"pictures-{key}", shape, np.uint8, fill), folder, check)
    if found is None:
        return None
    rows = {name: i for i, name in enumerate(names)}
    return ImageCache(found[0], rows, found[1], key)


def open_features(
    images: ImageCache,
    key: str,
    width: int,
    folder: Path,
    compute: Callable[[Sequence[int]], NDArray[np.float32]],
    check: Check,
) -> NDArray[np.float32] | None:
    """Return the features of all pictures of a cache, (N, width), in its order.

    Features that are not in `folder` are computed by `compute`, which takes rows of the cache;
    `key` says what computes them. Rows of unreadable pictures are zero. Returns None if they cannot
    be kept.
    """

    def fill(values: NDArray[np.float32]) -> Notes:
        rows = [row for name, row in images.rows.items() if name not in images.unreadable]
        chunks = [rows[begin : begin + _CHUNK] for begin in range(0, len(rows), _CHUNK)]
        for chunk in track(chunks, "Features, once for all", len(chunks)):
            check()
            values[chunk] = compute(chunk)
        return {}

    name = f"features-{fingerprint([_VERSION, images.fingerprint, key])}"
    entry = ArrayEntry(name, (len(images.rows), width), np.float32, fill)
    found = open_array(entry, folder, check)
    return None if found is None else found[0]


def _open_in_memory(examples: Examples, preprocessing: Preprocessing) -> ImageCache:
    raw = [hashlib.sha256(picture).digest() for picture in examples.pictures]  # type: ignore[arg-type]
    key = fingerprint([*preprocessing.key, examples.names, raw])
    if key not in _in_memory:
        values = np.stack([preprocessing.shape(picture) for picture in examples.pictures])
        rows = {name: i for i, name in enumerate(examples.names)}
        _in_memory.clear()  # The next run of this process most likely needs the same.
        _in_memory[key] = ImageCache(values, rows, {}, key)
    return _in_memory[key]


def _decode_all(
    examples: Examples, preprocessing: Preprocessing, values: NDArray[np.uint8], check: Check
) -> Notes:
    """Write each picture into its row; return why some cannot be read, by name."""
    unreadable = {}

    def shape(picture: Picture) -> NDArray[np.uint8] | str:
        try:
            return preprocessing.shape(picture)
        except ValueError as error:
            cause = error.__cause__
            if isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _TRANSIENT:
                raise OSError(f"a picture could not be read: {error}") from None
            return str(error)

    count = len(examples)
    bar = progress_bar("Decoding pictures, once for all", count, "", delay=2, leave=False)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        try:
            for begin in range(0, count, _CHUNK):
                check()
                chunk = range(begin, min(begin + _CHUNK, count))
                shaped = pool.map(shape, [examples.pictures[i] for i in chunk])
                for i, result in zip(chunk, shaped, strict=True):
                    if isinstance(result, str):
                        unreadable[examples.names[i]] = result
                    else:
                        values[i] = result
                bar.update(len(chunk))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return unreadable


def _stamp(name: str, picture: Picture) -> tuple[Any, ...]:
    """Return what changes when a file does; its change time cannot be set back, as others can."""
    assert isinstance(picture, Path)
    path = os.path.abspath(picture)  # noqa: PTH100 - a link and its target are two names.
    try:
        stat = picture.stat()
    except OSError:
        return (name, path)
    return (name, path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

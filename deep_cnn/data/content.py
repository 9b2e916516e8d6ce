"""Recognise pictures by their content: digests of the pictures of each split."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deep_cnn.data.decoding import Picture
from deep_cnn.data.splits import SPLITS
from deep_cnn.files import write_whole

_hash = partial(hashlib.blake2b, digest_size=8)
_ROW = np.dtype([("digest", "<u8"), ("split", "u1")])


def content_digest(picture: Picture) -> int:
    """Return a hash below 2^64 of the bytes of a file or array, or 0 if the file is unreadable."""
    if isinstance(picture, np.ndarray):
        return int.from_bytes(_hash(picture.tobytes()).digest(), "little")
    try:
        if picture.stat().st_size == 0:  # Pipes, too, which would block.
            return 0
        with picture.open("rb", buffering=0) as file:
            return int.from_bytes(hashlib.file_digest(file, _hash).digest(), "little")
    except OSError:
        return 0


def write_splits(
    path: Path, digests: Mapping[str, NDArray[np.uint64]], *, make_folder: bool = True
) -> None:
    """Write the digests of the pictures of each split as a whole file; raise OutputError.

    The file is an array of (digest, split), where split is an index in train, val, test. Pictures
    that could not be read are left out.
    """
    parts = []
    for split, values in digests.items():
        rows = np.zeros(np.count_nonzero(values), _ROW)
        rows["digest"], rows["split"] = values[values > 0], SPLITS.index(split)
        parts.append(rows)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, np.concatenate(parts), allow_pickle=False)

    write_whole(path, write, make_folder=make_folder)


def count_in_splits(path: Path, digests: NDArray[np.uint64]) -> dict[str, int] | None:
    """Return how many of the digests, (N,), are in each split; None if `path` has no splits."""
    try:
        rows = np.load(path, allow_pickle=False)
        if rows.dtype != _ROW or rows.ndim != 1:
            return None
    except Exception:  # A damaged header raises many kinds of errors, tokenize's among them.
        return None
    read = digests[digests > 0]
    members = ((name, rows["digest"][rows["split"] == i]) for i, name in enumerate(SPLITS))
    return {name: int(np.isin(read, each).sum()) for name, each in members}

"""Read arrays in IDX files, the format of MNIST, gzipped or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from deep_cnn.errors import DataError

_GZIP = b"\x1f\x8b"
_BYTES = 0x0800  # The type of the numbers, which the number of dimensions is added to.
_KINDS = {1: "labels", 3: "images"}
_CHUNK = 2**20
_WAY = "take another copy, such as that of python -m deep_cnn fetch --data=mnist"


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array in an IDX file of bytes; raise DataError if it has another form.

    Args:
        path: The file; its content decides whether it is gzipped, whatever its name.
        dimensions: 1 for labels, (N,), and 3 for images, (N, H, W).
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            if packed:
                with gzip.open(file) as unpacked:
                    return _read(unpacked, path, dimensions)
            return _read(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); {_WAY}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); {_WAY}") from None


def _read(file: IO[bytes] | gzip.GzipFile, path: Path, dimensions: int) -> NDArray[np.uint8]:
    start = file.read(4 * (1 + dimensions))
    if len(start) < 4 * (1 + dimensions):
        raise DataError(f"{path} has only {len(start)} bytes; {_WAY}")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", start)
    if magic != _BYTES + dimensions:
        other = _KINDS.get(magic - _BYTES)
        what = f"has {other}" if other else f"is no IDX file (its magic number is {magic})"
        raise DataError(
            f"{path} {what}, where {_KINDS[dimensions]} (magic number {_BYTES + dimensions}) are"
            f" expected; {_WAY}"
        )
    size = math.prod(shape)
    if not size:
        raise DataError(f"{path} has no {_KINDS[dimensions]}; {_WAY}")
    # The header of a damaged file may name more than the memory holds.
    parts, missing = [], size + 1
    while missing and (part := file.read(min(missing, _CHUNK))):
        parts.append(part)
        missing -= len(part)
    content = b"".join(parts)
    if len(content) != size:
        text = "more" if len(content) > size else str(len(content))
        raise DataError(
            f"{path} has {text} bytes after its header, not the {size} that its header names; it is"
            f" cut off or damaged, {_WAY}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)

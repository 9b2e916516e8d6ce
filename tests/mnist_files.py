"""Write files in the format of MNIST, with scikit-learn's digits."""

import gzip
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from deep_cnn.layout import MNIST_FILES


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array as the content of an IDX file."""
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">I", 0x0800 + array.ndim) + shape + array.tobytes()


def contents(train: int = 200, test: int = 50) -> dict[str, bytes]:
    """Return the contents of MNIST's four files, by name, with so many pictures."""
    digits = load_digits()
    small = (digits.images[: train + test] * 15.9).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(each).resize((28, 28))) for each in small])
    labels = digits.target[: train + test].astype(np.uint8)
    arrays = images[:train], labels[:train], images[train:], labels[train:]
    return dict(zip(MNIST_FILES, map(idx, arrays), strict=True))


def gzipped(name: str) -> str:
    """Return the name of a file as MNIST is released."""
    return f"{name}.gz"


def write(folder: Path, files: Mapping[str, bytes], name: Callable[[str], str] = str) -> Path:
    """Write the files into a folder under other names; those that end with .gz are gzipped."""
    for stem, content in files.items():
        path = folder / name(stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder

"""Define the task mnist: MNIST's handwritten digits, in the IDX files in which it is released."""

from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.idx import read_idx
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.layout import MNIST_FILES, find_idx
from deep_cnn.tasks.digits import Digits


class Mnist(Digits):
    """The task of recognising the digits of MNIST; the test split is that of its files."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return the pictures of both pairs of files; those of t10k are marked as the test split.

        A picture is called by its split and its index, as train-00000. Raises DataError.
        """
        files = [_find(config.data_path, name) for name in MNIST_FILES]
        images, labels = zip(*(_read(*files[i : i + 2]) for i in (0, 2)), strict=True)
        train, test = map(len, labels)
        names = (*(f"train-{i:05d}" for i in range(train)), *(f"test-{i:05d}" for i in range(test)))
        pictures = [picture for part in images for picture in part]
        targets = np.concatenate(labels).astype(np.int64)
        examples = Examples(names, pictures, targets, np.ones(len(names)))
        return examples, [None] * train + ["test"] * test


TASK = Mnist


def _find(folder: Path, name: str) -> Path:
    file = find_idx(folder, name)
    if file is None:
        raise DataError(
            f"--data_dir={folder} has no {name}, gzipped or not; name the folder with MNIST's four"
            f" files, or download them: python -m deep_cnn fetch --data=mnist"
            f" --data_dir={quote(str(folder))}"
        )
    return file


def _read(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return pictures, (N, H, W), and their digits, (N,); raise DataError if they do not fit."""
    pictures, digits = read_idx(images, 3), read_idx(labels, 1)
    if len(pictures) != len(digits):
        raise DataError(
            f"{images} has {len(pictures)} images and {labels} has {len(digits)} labels; take both"
            " files from the same source"
        )
    if (odd := np.flatnonzero(digits > 9)).size:
        raise DataError(
            f"{labels}: label {odd[0]} is {digits[odd[0]]}, and {odd.size} labels in all are no"
            " digit from 0 to 9; take another copy"
        )
    return pictures, digits

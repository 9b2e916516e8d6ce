"""Define the task digits: scikit-learn's 1,797 handwritten digits, resized to 28x28x1."""

from functools import cache

import numpy as np
from PIL import Image

from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import Examples
from deep_cnn.models.lenet import FORMAT
from deep_cnn.tasks.base import Classification


class Digits(Classification):
    """The task of recognising handwritten digits, which come with scikit-learn."""

    input_spec = FORMAT

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return all 1,797 digits, without marks."""
        examples = _all_digits()
        return examples, [None] * len(examples)

    def classes(self, config: TrainConfig) -> list[str]:
        """Return the digits 0 to 9."""
        return [str(digit) for digit in range(10)]


TASK = Digits


@cache
def _all_digits() -> Examples:
    from sklearn.datasets import load_digits  # Half a second, for this task alone.

    digits = load_digits()
    # The digits have 8x8 pixels with 17 levels of grey.
    small = (digits.images * (255 / 16)).round().astype(np.uint8)
    pictures = [np.asarray(Image.fromarray(p).resize((28, 28))) for p in small]
    names = tuple(f"digit-{i:04d}" for i in range(len(pictures)))
    return Examples(names, pictures, digits.target.astype(np.int64), np.ones(len(names)))

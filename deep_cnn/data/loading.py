"""Load pictures in batches, decoded in this process or in several others."""

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deep_cnn.data.preprocessing import Preprocessing, decode, random_state, to_array, to_image
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The seed of augmentations, which also depends on the name of each picture."""

    seed: int
    epoch: int


class PictureSet(Dataset[tuple[Tensor, int]]):
    """Pictures as (C, H, W) uint8 with their indices, augmented if `augmentation` is set.

    `shaped` pictures, (M, C, H, W) uint8 and the row of each example, (N,), are not decoded again.
    """

    def __init__(
        self,
        examples: Examples,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        shaped: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> None:
        self.examples, self.preprocessing = examples, preprocessing
        self.augmentation = augmentation if preprocessing.augments else None
        whole = self.augmentation is not None and preprocessing.augments_whole_picture
        self.shaped, self.whole = None if whole else shaped, whole

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a picture and its index; raise DataError if it can no longer be read."""
        image = self._image(index)
        if self.augmentation is not None:
            seed, epoch = self.augmentation.seed, self.augmentation.epoch
            random = random_state(seed, epoch, self.examples.names[index])
            image = self.preprocessing.augment(image, random)
        return torch.from_numpy(to_array(image, self.preprocessing.spec.channels)), index

    def _image(self, index: int) -> Image:
        if self.shaped is not None:
            values, rows = self.shaped
            return to_image(values[rows[index]])
        picture = self.examples.pictures[index]
        try:
            if self.whole:
                return decode(picture, self.preprocessing.crop_bottom)
            # As it would be in the image cache, which is grey for a network that sees grey.
            return to_image(self.preprocessing.shape(picture))
        except ValueError as error:  # It was readable when the run began.
            name = self.examples.names[index]
            raise DataError(f"{name} cannot be read any more ({error}); put it back") from None


def _init_worker(_: int) -> None:
    # A scheduler signals the whole group; workers end with the loader, or with their parent.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)  # The workers share the cores already.


def load_batches(
    pictures: PictureSet,
    order: list[list[int]],
    *,
    workers: int = 0,
    pin: bool = False,
    seed: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pictures (B, C, H, W) uint8 with their indices (B,) int64, in the given order."""
    # Only forked processes share mapped memory; others would each get a copy.
    alone = pictures.shaped is not None and multiprocessing.get_start_method() != "fork"
    loader = DataLoader(
        pictures,
        batch_sampler=order,
        num_workers=0 if alone else min(workers, len(order)),
        worker_init_fn=_init_worker,
        pin_memory=pin,
        # Its own generator: a loader otherwise draws a seed from torch's global one.
        generator=torch.Generator().manual_seed(seed),
    )
    try:
        yield from loader
    except DataError as error:  # A worker's comes with its whole trace; the last line says it.
        text = str(error).splitlines()[-1]
        raise DataError(text.removeprefix("deep_cnn.errors.DataError: ")) from None


def epoch_order(count: int, batch_size: int, *, seed: int, epoch: int | None) -> list[list[int]]:
    """Return the indices of each batch: shuffled by seed and epoch, or in order if epoch is None.

    A last batch of one picture is merged with the batch before, because batch norm cannot train
    on it.
    """
    indices = np.arange(count)
    if epoch is not None:
        indices = np.random.default_rng([seed, epoch]).permutation(count)
    batches = [indices[i : i + batch_size].tolist() for i in range(0, count, batch_size)]
    if epoch is not None and batch_size > 1 < len(batches) and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches

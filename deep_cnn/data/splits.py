"""Part pictures into train, val and test, seeded and stable, and load them in batches."""

import hashlib
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deep_cnn.data.images import (
    AUGMENTS,
    SHAPES,
    UNSHAPED,
    Picture,
    decode,
    random_state,
    to_array,
    to_image,
)
from deep_cnn.errors import DataError
from deep_cnn.names import InputFormat

Shaped = tuple[NDArray[np.uint8], NDArray[np.int64]]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Files(Sequence[Path]):
    """The files `names` under `root`; a path is made when it is asked for, and not kept."""

    root: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]
        return self.root / self.names[index]


@dataclass(frozen=True, slots=True)
class Examples:
    """The pictures of one split, with what is to be learned of each.

    `names` tell pictures apart for ever; `targets` is (N,) float64 scores or int64 classes,
    `weights` (N,) float64. Pictures with one of the `keys` belong in one split; where there are
    none, a picture's name is its key.
    """

    names: tuple[str, ...]
    pictures: Sequence[Picture]
    targets: NDArray[np.float64] | NDArray[np.int64]
    weights: NDArray[np.float64]
    keys: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int]) -> "Examples":
        """Only the pictures at `indices`, in that order."""
        kept = list(indices)
        names = tuple(self.names[i] for i in kept)
        pictures: Sequence[Picture]
        if isinstance(self.pictures, Files):
            pictures = Files(self.pictures.root, names)
        else:
            pictures = [self.pictures[i] for i in kept]
        keys = tuple(self.keys[i] for i in kept) if self.keys else ()
        return Examples(names, pictures, self.targets[kept], self.weights[kept], keys)


def hashed(names: Iterable[str], salt: str) -> NDArray[np.float64]:
    """For each name a number in [0, 1) that depends on it and on `salt` alone."""
    start = f"{salt}\0"
    texts = ((start + name).encode(errors="surrogatepass") for name in names)
    digests = (hashlib.sha256(text).digest() for text in texts)
    numbers = (int.from_bytes(digest[:7], "little") for digest in digests)
    return np.fromiter(numbers, dtype=np.uint64) / 2**56


def assign_splits(
    keys: Sequence[str],
    marks: Sequence[str | None],
    *,
    val_split: float,
    test_split: float,
    seed: int,
) -> list[str]:
    """The split of each picture: as marked, else by a hash of its key.

    A picture's split does not depend on what other pictures there are, unless they are marked.
    Test does not depend on `seed`: a repeat with another seed must not train on the first one's.
    """
    splits = [mark or "train" for mark in marks]
    train = np.array([split == "train" for split in splits], dtype=bool)
    if "test" not in splits:
        chosen = np.flatnonzero(train)[hashed(compress(keys, train), "test") < test_split]
        for i in chosen:
            splits[i] = "test"
        train[chosen] = False
    if "val" not in splits and train.any():
        numbers = hashed(compress(keys, train), f"val {seed}")
        at_least_one = max(val_split, np.nextafter(numbers.min(), 1))
        for i in np.flatnonzero(train)[numbers < at_least_one]:
            splits[i] = "val"
    return splits


def subset(examples: Examples, size: int, seed: int) -> Examples:
    """`size` of the pictures, the same ones each time for the same seed."""
    numbers = hashed(examples.names, f"subset {seed}")
    return examples.take(sorted(np.argsort(numbers, kind="stable")[:size].tolist()))


def joined(one: Examples, other: Examples) -> Examples:
    """The pictures of both, which lie under one root where they are files."""
    names = one.names + other.names
    pictures: Sequence[Picture]
    if isinstance(one.pictures, Files):
        pictures = Files(one.pictures.root, names)
    else:
        pictures = [*one.pictures, *other.pictures]
    return Examples(
        names,
        pictures,
        np.concatenate([one.targets, other.targets]),
        np.concatenate([one.weights, other.weights]),
        one.keys + other.keys,
    )


class _PictureSet(Dataset[tuple[Tensor, int]]):
    def __init__(
        self,
        examples: Examples,
        pre: str,
        form: InputFormat,
        *,
        augment: bool,
        seed: int,
        epoch: int,
        crop_bottom: int,
        shaped: Shaped | None,
    ) -> None:
        self.examples, self.form, self.seed, self.epoch = examples, form, seed, epoch
        self.crop_bottom, self.shaped = crop_bottom, shaped
        self.augment = AUGMENTS.get(pre) if augment else None
        self.shape = None if self.augment and pre in UNSHAPED else SHAPES[pre]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._image(index)
        if self.augment:
            random = random_state(self.seed, self.epoch, self.examples.names[index])
            image = self.augment(image, self.form, random)
        return torch.from_numpy(to_array(image, self.form.channels)), index

    def _image(self, index: int) -> Image:
        if self.shaped is not None:
            values, rows = self.shaped
            return to_image(values[rows[index]])
        try:
            image = decode(self.examples.pictures[index], self.crop_bottom)
        except ValueError as error:  # It was checked when the run began.
            name = self.examples.names[index]
            raise DataError(f"{name} cannot be read any more ({error}); put it back") from None
        if self.shape is None:
            return image
        # As it would be in the store, which is grey for a network that sees grey.
        return to_image(to_array(self.shape(image, self.form), self.form.channels))


def _leave_signals_to_the_parent(_: int) -> None:
    # A scheduler signals the whole group; workers end with the loader, or with their parent.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)


def load_batches(
    examples: Examples,
    order: Sequence[Sequence[int]],
    *,
    pre: str,
    form: InputFormat,
    augment: bool = False,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    pin: bool = False,
    crop_bottom: int = 0,
    shaped: Shaped | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pictures (B, C, H, W) uint8 with their indices (B,) int64, in the given order.

    `shaped` pictures, (M, C, H, W) uint8 and the row of each example, (N,), are not decoded again.
    """
    pictures = _PictureSet(
        examples,
        pre,
        form,
        augment=augment,
        seed=seed,
        epoch=epoch,
        crop_bottom=crop_bottom,
        shaped=shaped,
    )
    # Only a fork shares what is mapped into memory; other processes would get a copy each.
    alone = shaped is not None and multiprocessing.get_start_method() != "fork"
    loader = DataLoader(
        pictures,
        batch_sampler=[list(batch) for batch in order],
        num_workers=0 if alone else min(workers, len(order)),
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=pin,
        # Its own generator: a loader otherwise draws a seed from torch's global one.
        generator=torch.Generator().manual_seed(seed),
    )
    try:
        yield from loader
    except DataError as error:  # A worker's comes with its whole trace; the last line says it.
        said = str(error).splitlines()[-1]
        raise DataError(said.removeprefix("deep_cnn.errors.DataError: ")) from None


def epoch_order(count: int, batch_size: int, *, seed: int, epoch: int | None) -> list[list[int]]:
    """The indices of each batch: shuffled by seed and epoch, or in order where epoch is None.

    A last batch of one picture joins the one before, because batch norm cannot train on it.
    """
    indices = np.arange(count)
    if epoch is not None:
        indices = np.random.default_rng([seed, epoch]).permutation(count)
    batches = [indices[i : i + batch_size].tolist() for i in range(0, count, batch_size)]
    if epoch is not None and batch_size > 1 < len(batches) and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches

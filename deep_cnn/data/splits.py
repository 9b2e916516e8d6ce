"""Divide pictures into train, val and test, by their marks or else by a stable seeded hash."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.decoding import Picture

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Files(Sequence[Path]):
    """The files `names` under `root`; each path is built on access and not stored."""

    root: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]
        return self.root / self.names[index]


@dataclass(frozen=True, slots=True)
class Examples:
    """Pictures with their targets.

    Attributes:
        names: Identify the pictures, in this run and in later ones.
        pictures: Files, or arrays (H, W) uint8.
        targets: (N,) float64 scores or int64 classes.
        weights: (N,) float64, the weight of each picture in the loss.
        keys: Pictures with the same key belong in the same split; () if every picture's name is
            its own key.
    """

    names: tuple[str, ...]
    pictures: Sequence[Picture]
    targets: NDArray[np.float64] | NDArray[np.int64]
    weights: NDArray[np.float64]
    keys: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int]) -> "Examples":
        """Return only the pictures at `indices`, in that order."""
        indices = list(indices)
        names = tuple(self.names[i] for i in indices)
        keys = tuple(self.keys[i] for i in indices if self.keys)
        pictures = _select(self.pictures, names, (self.pictures[i] for i in indices))
        return Examples(names, pictures, self.targets[indices], self.weights[indices], keys)


class Splits(dict[str, Examples]):
    """The pictures of train, val and test; `marked` are the splits that the data mark."""

    marked: frozenset[str] = frozenset()


def joined(one: Examples, other: Examples) -> Examples:
    """Return the pictures of both arguments; their files must be under the same root."""
    names = one.names + other.names
    pictures = _select(one.pictures, names, chain(one.pictures, other.pictures))
    targets = np.concatenate([one.targets, other.targets])
    weights = np.concatenate([one.weights, other.weights])
    return Examples(names, pictures, targets, weights, one.keys + other.keys)


def _select(
    pictures: Sequence[Picture], names: Sequence[str], selected: Iterable[Picture]
) -> Sequence[Picture]:
    """Return the selected files as Files, and anything else as a list."""
    return Files(pictures.root, names) if isinstance(pictures, Files) else [*selected]


def hashed(names: Iterable[str], salt: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each name, (N,), that depends only on the name and `salt`."""
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
    """Return the split of each picture: as marked, or else by a hash of its key.

    The split of a picture does not depend on other pictures, unless they are marked. The test split
    does not depend on `seed`, so a repeat with a new seed never trains on test pictures.
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
    """Return `size` pictures, which are the same for the same seed."""
    numbers = hashed(examples.names, f"subset {seed}")
    return examples.take(sorted(np.argsort(numbers, kind="stable")[:size].tolist()))


def choose_pictures(config: TrainConfig, parts: dict[str, Examples]) -> dict[str, Examples]:
    """Return the splits as --train_samples and --train_on change them."""
    if config.train_samples is not None and "train" in parts:
        parts["train"] = subset(parts["train"], config.train_samples, config.seed)
    if config.train_on == "train+val" and "val" in parts:
        return {"train": joined(parts["train"], parts["val"])}
    return parts

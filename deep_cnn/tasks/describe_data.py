"""Describe the data of a configuration without training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import broken_rule, find_unreadable
from deep_cnn.data.splits import SPLITS, Examples
from deep_cnn.tasks import get_task
from deep_cnn.tasks.base import Classification

_BINS, _WIDTH = 10, 40
_MOST_NAMED, _CLASSES_NAMED = 20, 5


def describe_data(config: TrainConfig) -> Iterator[str]:
    """Yield lines on the splits, the scores or classes, and the pictures that cannot be decoded.

    Decodes every picture, including those of the test split, and writes nothing. Raises DataError
    as a run does, but only after all other lines.
    """
    config = config.replace(cache="off")  # Which would write the listings of folders.
    task = get_task(config.task)
    yield f"task {config.task}, data {config.data_path}"
    splits = task.all_splits(config)
    yield _row("", SPLITS)
    yield _row("pictures", [len(splits[name]) for name in SPLITS])
    if config.options.get("group", "none") != "none":
        yield _row("groups", [len(set(splits[name].keys)) for name in SPLITS])
    targets = [splits[name].targets for name in SPLITS]
    if isinstance(task, Classification):
        yield from _classes(targets, task.classes(config))
    else:
        yield from _scores(targets)
    yield from _unreadable(splits, config)
    task.check_splits(splits, config, ("train", "val"))
    task.labels(splits["train"], config)


def _row(title: str, cells: Iterable[object]) -> str:
    return f"{title:<24}" + "".join(f"{cell:>12}" for cell in cells)


def _scores(targets: Sequence[NDArray[Any]]) -> Iterator[str]:
    """Yield mean and standard deviation of each split, and a histogram of all scores."""
    yield _row("mean", [f"{some.mean():.4g}" if len(some) else "" for some in targets])
    yield _row("sd", [f"{some.std():.4g}" if len(some) else "" for some in targets])
    counts, edges = np.histogram(np.concatenate(targets), bins=_BINS)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * round(_WIDTH * count / counts.max())
        yield f"{low:>10.4g} to {high:<10.4g}{count:>8} {bar}".rstrip()


def _classes(targets: Sequence[NDArray[Any]], classes: Sequence[str]) -> Iterator[str]:
    """Yield the number of pictures of the largest and smallest classes in each split."""
    counts = np.array([np.bincount(some, minlength=len(classes)) for some in targets]).T
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    yield f"{len(classes)} classes"
    rows = [_row(classes[i], counts[i]) for i in order]
    left_out = len(rows) - 2 * _CLASSES_NAMED
    if left_out > 0:
        rows[_CLASSES_NAMED:-_CLASSES_NAMED] = [f"and {left_out} classes between them"]
    yield from rows


def _unreadable(splits: Mapping[str, Examples], config: TrainConfig) -> Iterator[str]:
    """Yield the pictures that cannot be decoded, and the splits with too many of them."""
    bad = {k: find_unreadable(part, crop_bottom=config.crop_bottom) for k, part in splits.items()}
    lines = [f"  {splits[k].names[i]}: {why}" for k in bad for i, why in bad[k].items()]
    yield f"{len(lines)} of {sum(map(len, splits.values()))} pictures cannot be decoded"
    yield from lines[:_MOST_NAMED]
    if len(lines) > _MOST_NAMED:
        yield f"  and {len(lines) - _MOST_NAMED} more"
    for name, part in splits.items():
        rule = broken_rule(len(bad[name]), len(part), config)
        if rule:
            yield f"a run stops: {len(bad[name])} of {len(part)} in {name} are bad; {rule}"

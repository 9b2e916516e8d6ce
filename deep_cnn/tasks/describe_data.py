"""Describe the data of a configuration, before anything is trained."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import numpy as np

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import broken_rule, find_unreadable
from deep_cnn.data.splits import SPLITS, Examples, joined
from deep_cnn.tasks import get_task
from deep_cnn.tasks.base import Classification

_BINS, _WIDTH = 10, 40
_NAMED, _CLASSES_NAMED = 20, 5


def describe_data(config: TrainConfig) -> Iterator[str]:
    """Yield lines on the splits, the scores or classes, and the pictures that cannot be decoded.

    Decodes every picture, those of the test split included, and writes nothing. Raises DataError as
    a run does, but only after everything else has been said.
    """
    config = config.replace(cache="off")
    task = get_task(config.task)
    yield f"task {config.task}, data {config.data_path}"
    found = task.all_splits(config)
    yield _row("", SPLITS)
    yield _row("pictures", [str(len(found[split])) for split in SPLITS])
    if config.options.get("group", "none") != "none":
        yield _row("groups", [str(len(set(found[split].keys))) for split in SPLITS])
    if isinstance(task, Classification):
        yield from _classes(found, task.classes(config))
    else:
        yield from _scores(found)
    yield from _bad(found, config)
    task.check_splits(found, config, ("train", "val"))
    task.labels(found["train"], config)


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:<24}" + "".join(f"{cell:>12}" for cell in cells)


def _scores(found: Mapping[str, Examples]) -> Iterator[str]:
    """Mean and standard deviation of each split, and a histogram of all scores."""
    targets = [found[split].targets for split in SPLITS]
    yield _row("mean", [f"{some.mean():.4g}" if len(some) else "" for some in targets])
    yield _row("sd", [f"{some.std():.4g}" if len(some) else "" for some in targets])
    counts, edges = np.histogram(np.concatenate(targets), bins=_BINS)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * round(_WIDTH * count / counts.max())
        yield f"{low:>10.4g} to {high:<10.4g}{count:>8} {bar}".rstrip()


def _classes(found: Mapping[str, Examples], classes: Sequence[str]) -> Iterator[str]:
    """How many pictures the largest and the smallest classes have in each split."""
    counts = np.array([np.bincount(found[s].targets, minlength=len(classes)) for s in SPLITS]).T
    order = np.argsort(-counts.sum(axis=1), kind="stable").tolist()
    yield f"{len(classes)} classes"
    left_out = len(order) - 2 * _CLASSES_NAMED
    for place, i in enumerate(order):
        if left_out <= 0 or not _CLASSES_NAMED <= place < _CLASSES_NAMED + left_out:
            yield _row(classes[i], [str(count) for count in counts[i]])
        elif place == _CLASSES_NAMED:
            yield f"and {left_out} classes between them"


def _bad(found: Mapping[str, Examples], config: TrainConfig) -> Iterator[str]:
    """Which pictures cannot be decoded, and the splits in which they are too many for a run."""
    examples = reduce(joined, found.values())
    bad = find_unreadable(examples, crop_bottom=config.crop_bottom)
    yield f"{len(bad)} of {len(examples)} pictures cannot be decoded"
    for i in list(bad)[:_NAMED]:
        yield f"  {examples.names[i]}: {bad[i]}"
    if len(bad) > _NAMED:
        yield f"  and {len(bad) - _NAMED} more"
    begin = 0
    for split, part in found.items():
        count = sum(begin <= i < begin + len(part) for i in bad)
        rule = broken_rule(count, len(part), config)
        if rule:
            yield f"a run stops: {count} of {len(part)} in {split} are bad; {rule}"
        begin += len(part)

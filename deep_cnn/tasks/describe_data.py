"""Describe the data of a configuration without training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import broken_rule, find_unreadable
from deep_cnn.data.splits import SPLITS, Examples, Splits, choose_pictures
from deep_cnn.errors import DataError
from deep_cnn.metrics import HUGE, mean_and_std
from deep_cnn.names import TASKS
from deep_cnn.tasks import Task, get_task
from deep_cnn.tasks.base import Classification

_BINS, _WIDTH = 10, 40
_MOST_NAMED, _CLASSES_NAMED = 20, 5


@dataclass(slots=True)
class DataDescription:
    """What a dry run has found.

    Attributes:
        splits: The pictures of train, val and test.
        unreadable: The reason for each picture that cannot be decoded, by its name.
    """

    splits: Splits = field(default_factory=Splits)
    unreadable: dict[str, str] = field(default_factory=dict)

    def lines(self, config: TrainConfig) -> Iterator[str]:
        """Yield lines on the splits, the scores or classes, and what cannot be decoded.

        Decodes every picture, including those of the test split, and writes nothing. Raises
        DataError for data that cannot be read.
        """
        config = config.replace(cache="off")  # Which would write the listings of folders.
        task = get_task(config.task)
        yield f"task {config.task}, data {config.data_path}"
        self.splits = splits = task.all_splits(config)
        yield summarize(task, splits, config)
        yield _row("", SPLITS)
        yield _row("pictures", [len(splits[name]) for name in SPLITS])
        if config.options.get("group", "none") != "none":
            yield _row("groups", [len(set(splits[name].keys)) for name in SPLITS])
        targets = [splits[name].targets for name in SPLITS]
        if isinstance(task, Classification):
            yield from _classes(targets, task.classes(config))
        else:
            yield from _scores(targets)
            yield from _baseline(splits, task, config)
        yield from task.notes(config)
        yield from _unreadable(splits, config, self.unreadable)


def summarize(task: Task, splits: Splits, config: TrainConfig) -> str:
    """Return one line on the pictures, classes and splits, and on what is left out and why."""
    pictures = f"{sum(map(len, splits.values()))} pictures"
    if isinstance(task, Classification):
        pictures += f" in {len(task.classes(config))} classes"
    counts = ", ".join(
        f"{name} {len(part)}{' (marked)' if name in splits.marked - {'train'} else ''}"
        for name, part in splits.items()
    )
    where = config.data_dir if TASKS[config.task].reads_folder else config.task
    line, reasons = f"Data {where}: {pictures}: {counts}", task.left_out(config)
    if reasons is None:
        return line
    text = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    return f"{line}; left out: {text or 'nothing'}"


def _row(title: str, cells: Iterable[object]) -> str:
    return f"{title:<24}" + "".join(f"{cell:>12}" for cell in cells)


def _scores(targets: Sequence[NDArray[Any]]) -> Iterator[str]:
    """Yield mean and standard deviation of each split, and a histogram of all scores."""
    numbers = [mean_and_std(some) if len(some) else None for some in targets]
    for i, title in enumerate(("mean", "sd")):
        yield _row(title, ["" if pair is None else f"{pair[i]:.4g}" for pair in numbers])
    every = np.concatenate(targets)
    if not len(every):
        return
    counts, edges = _histogram(every)
    # As many digits as make the edges differ.
    texts = ([f"{edge:.{digits}g}" for edge in edges] for digits in range(4, 18))
    shown = next((text for text in texts if len(set(text)) == len(text)), None)
    shown = shown or [repr(float(edge)) for edge in edges]
    for count, low, high in zip(counts, shown, shown[1:], strict=False):
        bar = "#" * round(_WIDTH * count / counts.max())
        yield f"{low:>10} to {high:<10}{count:>8} {bar}".rstrip()


def _baseline(splits: Mapping[str, Examples], task: Task, config: TrainConfig) -> Iterator[str]:
    """Yield the metrics on val of the mean of the training scores, which sees no picture."""
    train, val = splits["train"], splits["val"]
    if len(val) and len(train):
        with suppress(DataError), np.errstate(all="ignore"):
            labels = task.labels(train, config)
            outputs = task.baseline(train.targets, len(val), labels)
            predictions = task.predictions(outputs, labels)
            values = {f"{k}_val": fn(predictions, val.targets) for k, fn in task.metrics.items()}
            text = " ".join(f"{k}={v:.4g}" for k, v in values.items() if np.isfinite(v))
            yield f"Baseline that sees no picture: {text}"


def _histogram(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return counts, (B,), and edges, (B + 1,), also for scores that are huge or nearly equal."""
    quarters = values / 4  # The range of the values may overflow, that of their quarters cannot.
    try:
        if np.abs(values).max() > HUGE:
            counts, edges = np.histogram(quarters, bins=_BINS)
            return counts, 4 * edges
        return np.histogram(values, bins=_BINS)
    except ValueError:  # Fewer floats than bins lie between the smallest and the largest.
        return np.array([len(values)]), np.array([values.min(), values.max()])


def _classes(targets: Sequence[NDArray[Any]], classes: Sequence[str]) -> Iterator[str]:
    """Yield the number of pictures of the largest and smallest classes in each split."""
    counts = np.array(
        [np.bincount(some.astype(np.int64), minlength=len(classes)) for some in targets]
    ).T
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    yield f"{len(classes)} classes"
    rows = [_row(classes[i], counts[i]) for i in order]
    left_out = len(rows) - 2 * _CLASSES_NAMED
    if left_out > 0:
        rows[_CLASSES_NAMED:-_CLASSES_NAMED] = [f"and {left_out} classes between them"]
    yield from rows


def _unreadable(
    splits: Mapping[str, Examples], config: TrainConfig, reasons: dict[str, str]
) -> Iterator[str]:
    """Yield the pictures that cannot be decoded, and add them to `reasons`."""
    bad = {k: find_unreadable(part, crop_bottom=config.crop_bottom) for k, part in splits.items()}
    reasons |= {splits[k].names[i]: why for k in bad for i, why in bad[k].items()}
    lines = [f"  {splits[k].names[i]}: {why}" for k in bad for i, why in bad[k].items()]
    yield f"{len(lines)} of {sum(map(len, splits.values()))} pictures cannot be decoded"
    yield from lines[:_MOST_NAMED]
    if len(lines) > _MOST_NAMED:
        yield f"  and {len(lines) - _MOST_NAMED} more"
    parts = choose_pictures(config, dict(splits)) | {"test": splits["test"]}
    for name, part in parts.items():
        count = sum(picture in reasons for picture in part.names)
        rule = broken_rule(count, len(part), config)
        if rule:
            other = "training" if config.test_net else "--test_net"
            who = "a run" if (name == "test") == bool(config.test_net) else other
            yield f"{who} stops: {count} of {len(part)} in {name} are bad; {rule}"

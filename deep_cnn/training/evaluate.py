"""Evaluate a checkpoint on the test split."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deep_cnn.bootstrap import Statistic, bootstrap_intervals, mean_of, statistics_of
from deep_cnn.config import TrainConfig
from deep_cnn.files import (
    RunFiles,
    csv_text,
    make_exclusively,
    unwritable,
    write_csv,
)
from deep_cnn.metrics import confusion
from deep_cnn.progress import Progress
from deep_cnn.resolve import resolve
from deep_cnn.results import LookAtTest, RunResult
from deep_cnn.tracking import Start, open_tracker
from deep_cnn.tracking.files import change_result, log_to
from deep_cnn.training.checkpoint import Checkpoint, load_resumable
from deep_cnn.training.devices import choose_device, choose_threads, threads_restored
from deep_cnn.training.epochs import format_metrics
from deep_cnn.training.loop import EpochOutput, compute_features, evaluate, score
from deep_cnn.training.session import Session, open_session
from deep_cnn.training.stop import StopToken

_LOGGER = logging.getLogger("deep_cnn")


def test(config: TrainConfig) -> Mapping[str, float]:
    """Evaluate the checkpoint config.test_net on the test split and return `{metric_test: value}`.

    See `look_at_test`.
    """
    return look_at_test(config)[1].values


def look_at_test(config: TrainConfig) -> tuple[int, LookAtTest]:
    """Evaluate the checkpoint config.test_net on the test split; return the look and its number.

    The first look of a run writes results/<run>.test.csv and, for classes, <run>.confusion.csv,
    and adds the metrics to results/<run>.json. A later look leaves them as they are: it writes
    <run>.test-2.csv and so on, and is added to `later_tests`. Warns if the same pictures were
    opened before. Raises a DeepCnnError if the checkpoint or the data are not usable.
    """
    config = resolve(config)
    device = choose_device(config.device)
    _LOGGER.info("Running on %s device", device.type)
    checkpoint = load_resumable(Path(str(config.test_net)), config)
    files = RunFiles(config.out_path, checkpoint.run_name)
    with log_to(files.log), threads_restored():
        torch.set_num_threads(choose_threads(config, checkpoint.threads))
        number, look = _evaluate(config, checkpoint, files)
    if number > 1:  # W&B keeps the first, too.
        return number, look
    start = Start(files, config.to_dict(), state=checkpoint.tracking, is_continued=True)
    tracker = open_tracker(config)
    tracker.tested(start, look)
    if unsynced := tracker.unsynced:
        change_result(files, lambda known: replace(known, unsynced=known.unsynced + unsynced))
    return number, look


def _evaluate(
    config: TrainConfig, checkpoint: Checkpoint, files: RunFiles
) -> tuple[int, LookAtTest]:
    session = open_session(config, ("test",), StopToken(), checkpoint)
    session.restore(checkpoint, config.test_net)
    compute_features(session, "test")
    with Progress("Test", len(session.order(session.splits["test"]))) as progress:
        output = evaluate(session, "test", progress)
    examples, task, labels = session.splits["test"].examples, session.task, session.labels
    predictions = task.predictions(output.outputs, labels)
    extra = task.extra_metrics(config, examples, predictions)
    metrics = {**score(session, "test", output), **extra}
    _warn_if_opened_before(files, set(examples.names), config.data_path.resolve())
    truths, predicted = task.display(examples.targets, labels), task.display(predictions, labels)
    rows = zip(examples.names, truths, predicted, strict=True)
    number = _write_predictions(files, csv_text(("image", "truth", "prediction"), rows))
    look = LookAtTest(
        checkpoint=str(config.test_net),
        epoch=checkpoint.epoch - 1,
        time=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        file=files.predictions_of(number).name,
        metrics=metrics,
        intervals=bootstrap_intervals(_statistics(session, output, predictions), len(examples)),
        pictures=len(examples),
    )
    if "classes" in labels and number == 1:
        counts = confusion(predictions, examples.targets).tolist()
        table = [(name, *row) for name, row in zip(labels["classes"], counts, strict=True)]
        write_csv(files.confusion, ("truth", *labels["classes"]), table)

    def add_look(known: RunResult) -> RunResult:
        if number == 1:
            return replace(known, test=look.metrics, first_test=look)
        return replace(known, later_tests=(*known.later_tests, look))

    change_result(files, add_look)
    _LOGGER.info("Test of %s: %s", config.test_net, format_metrics(metrics))
    _log_look(files, number, look)
    return number, look


def _statistics(
    session: Session, output: EpochOutput, predictions: NDArray[np.float64]
) -> Mapping[str, Statistic]:
    """Return the metrics of the test split as statistics of resampled pictures."""
    examples, task = session.splits["test"].examples, session.task
    weights = examples.weights if examples.weights.any() else None
    with np.errstate(all="ignore"):  # As in `score`.
        own = statistics_of(task.metrics, predictions, examples.targets)
    every = {"loss": mean_of(output.losses, weights), **own}
    extra = task.extra_statistics(session.config, examples, predictions)
    return {**{f"{name}_test": statistic for name, statistic in every.items()}, **extra}


def _write_predictions(files: RunFiles, text: str) -> int:
    """Write the predictions to the file of the next look, and return its number.

    No file is replaced, also if two processes look at the same time.
    """
    result = RunResult.read(files.result)
    first = 2 if result and result.looks else 1
    try:
        files.predictions.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(files.predictions, error) from error
    return next(n for n in count(first) if make_exclusively(files.predictions_of(n), text))


def _log_look(files: RunFiles, number: int, look: LookAtTest) -> None:
    if number == 1:
        _LOGGER.info("95 %% bootstrap intervals: %s", "; ".join(format_intervals(look)))
        return
    _LOGGER.warning(
        f"This test split was opened before by this run: this is look {number}; the first stays in"
        f" {files.predictions.name}, this one is in {look.file}; the more often it is looked at,"
        " the less its numbers mean"
    )


def format_intervals(look: LookAtTest) -> Iterator[str]:
    """Yield a text with the interval of each metric, such as `mae_test 0.41 to 0.55`."""
    for name, interval in look.intervals.items():
        yield f"{name} {'none' if interval is None else '{:.4g} to {:.4g}'.format(*interval)}"


def _warn_if_opened_before(files: RunFiles, pictures: set[str], folder: Path) -> None:
    """Log a warning for each earlier run that opened some of these pictures of the same folder."""
    for path in sorted(files.predictions.parent.glob("*.test.csv")):
        name = path.name.removesuffix(".test.csv")
        if name == files.name:
            continue
        try:
            with path.open(encoding="utf-8", newline="") as file:
                opened = pictures & {row["image"] for row in csv.DictReader(file)}
        except (OSError, ValueError, KeyError, csv.Error):
            continue
        elsewhere = False  # A run whose arguments are lost is assumed to be on the same data.
        with suppress(OSError, ValueError, KeyError, TypeError):
            args = json.loads(RunFiles(files.out, name).arguments.read_text(encoding="utf-8"))
            elsewhere = (Path(args["root_dir"]) / args["data_dir"]).resolve() != folder
        if opened and not elsewhere:
            _LOGGER.warning(
                f"This test split was opened before: {len(opened)} of its {len(pictures)} pictures"
                f" by the run {name}; the more often it is looked at, the less its numbers mean"
            )

"""Evaluate a checkpoint on the test split."""

import csv
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from deep_cnn.config import TrainConfig
from deep_cnn.files import RunFiles, write_csv, write_text
from deep_cnn.metrics import confusion
from deep_cnn.progress import Progress
from deep_cnn.resolve import resolve
from deep_cnn.results import RunResult
from deep_cnn.tracking import Start, open_tracker
from deep_cnn.tracking.files import log_to
from deep_cnn.training.checkpoint import Checkpoint, load_resumable
from deep_cnn.training.devices import choose_device, choose_threads, threads_restored
from deep_cnn.training.epochs import format_metrics
from deep_cnn.training.loop import compute_features, evaluate, score
from deep_cnn.training.session import open_session
from deep_cnn.training.stop import StopToken

_LOGGER = logging.getLogger("deep_cnn")


def test(config: TrainConfig) -> Mapping[str, float]:
    """Evaluate the checkpoint config.test_net on the test split and return `{metric_test: value}`.

    Writes results/<run>.test.csv and, for classes, <run>.confusion.csv, and adds the metrics to
    results/<run>.json. Warns if the same pictures were opened before. Raises a DeepCnnError if
    the checkpoint or the data are not usable.
    """
    config = resolve(config)
    device = choose_device(config.device)
    _LOGGER.info("Running on %s device", device.type)
    checkpoint = load_resumable(Path(str(config.test_net)), config)
    files = RunFiles(config.out_path, checkpoint.run_name)
    with log_to(files.log), threads_restored():
        torch.set_num_threads(choose_threads(config, checkpoint.threads))
        metrics = _evaluate(config, checkpoint, files)
    start = Start(files, config.to_dict(), state=checkpoint.tracking)
    tracker = open_tracker(config)
    tracker.tested(start, metrics)
    if tracker.unsynced:
        _update_result(files.result, unsynced=tracker.unsynced)
    return metrics


def _evaluate(config: TrainConfig, checkpoint: Checkpoint, files: RunFiles) -> Mapping[str, float]:
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
    write_csv(files.predictions, ("image", "truth", "prediction"), rows)
    if "classes" in labels:
        counts = confusion(predictions, examples.targets).tolist()
        table = [(name, *row) for name, row in zip(labels["classes"], counts, strict=True)]
        write_csv(files.confusion, ("truth", *labels["classes"]), table)
    _update_result(files.result, test=metrics)
    _LOGGER.info("Test of %s: %s", config.test_net, format_metrics(metrics))
    return metrics


def _warn_if_opened_before(files: RunFiles, pictures: set[str], folder: Path) -> None:
    """Log a warning for each earlier run that opened some of these pictures of the same folder."""
    for path in sorted(files.predictions.parent.glob("*.test.csv")):
        name = path.name.removesuffix(".test.csv")
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


def _update_result(
    path: Path, test: Mapping[str, float] | None = None, unsynced: tuple[str, ...] = ()
) -> None:
    result = RunResult.read(path)
    if result:  # Else the run is not over, or its result is lost: the CSV is enough.
        changed = replace(result, test=test or result.test, unsynced=result.unsynced + unsynced)
        write_text(path, changed.to_json())

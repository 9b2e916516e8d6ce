"""Look once at the test split: `test`."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deep_cnn import runs
from deep_cnn.checkpoint import load_checkpoint
from deep_cnn.config import TrainConfig
from deep_cnn.data.usable import usable
from deep_cnn.devices import choose_device
from deep_cnn.metrics import confusion
from deep_cnn.resuming import check_resumable, restore_into
from deep_cnn.runs import RunFiles, RunResult
from deep_cnn.session import Session
from deep_cnn.tasks import Labels, get_task
from deep_cnn.tracking import Start, open_tracker
from deep_cnn.tracking.files import log_to
from deep_cnn.training import no_signal, shown
from deep_cnn.writing import write_csv, write_text

_LOGGER = logging.getLogger("deep_cnn")


def test(config: TrainConfig) -> Mapping[str, float]:
    """Evaluate the checkpoint config.test_net on the test split: `{metric_test: value}`.

    Writes results/<run>.test.csv, for classes <run>.confusion.csv, and puts the numbers into
    results/<run>.json. Says so if these pictures were looked at before. Raises a DeepCnnError for
    what the user can mend.
    """
    device = choose_device(config.device)
    _LOGGER.info("Running on %s device", device.type)
    content = load_checkpoint(Path(str(config.test_net)))
    check_resumable(config, content)
    files = RunFiles(config.out_path, content["run_name"])
    with log_to(files.log):
        metrics = _test(config, content, files, device)
    start = Start(files, config.to_dict(), kept=content.get("tracking", {}))
    open_tracker(config).tested(start, metrics)
    return metrics


def _test(
    config: TrainConfig, content: Mapping[str, Any], files: RunFiles, device: torch.device
) -> Mapping[str, float]:
    task = get_task(config.task)
    examples = usable(task.splits(config, ("test",))["test"], config, lambda: None)
    labels: Labels = content["labels"]
    task.check_labels(labels, config)
    network = task.network(config, labels, weights="none")
    session = Session(config, task, labels, network, device, no_signal)
    restore_into(session, content, config.test_net)
    split = session.split(examples)
    session.prepare_features(split, "Features of test")
    answers = session.evaluate(split, "Test")
    predictions = task.predictions(answers.outputs, labels)
    judged = task.judge(config, examples, predictions)
    metrics = {**session.score(split, answers, "test"), **judged}
    truths = task.shown(examples.targets, labels)
    rows = list(zip(examples.names, truths, task.shown(predictions, labels), strict=True))
    _say_opened_before(files, set(examples.names), str(config.data_path.resolve()))
    write_csv(files.predictions, ("image", "truth", "prediction"), rows)
    if "classes" in labels:
        counts = confusion(predictions, examples.targets).tolist()
        table = [(name, *row) for name, row in zip(labels["classes"], counts, strict=True)]
        write_csv(files.confusion, ("truth", *labels["classes"]), table)
    _add_to_result(files.result, metrics)
    _LOGGER.info("Test of %s: %s", config.test_net, shown(metrics))
    return metrics


def _say_opened_before(files: RunFiles, pictures: set[str], folder: str) -> None:
    for name, opened, data_dir in runs.opened_tests(files.out):
        elsewhere = data_dir is not None and str(Path(data_dir).resolve()) != folder
        if opened & pictures and not elsewhere:
            _LOGGER.warning(
                "This test split was opened before: %d of its %d pictures by the run %s; the more"
                " often it is looked at, the less its numbers mean",
                len(opened & pictures),
                len(pictures),
                name,
            )


def _add_to_result(path: Path, metrics: Mapping[str, float]) -> None:
    try:
        result = RunResult.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return  # The run is not over, or its result is lost: the CSV stands by itself.
    write_text(path, replace(result, test=dict(metrics)).to_json())

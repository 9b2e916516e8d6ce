"""Describe the data of a run, and refuse what the run would refuse, without training."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import refuse_unreadable
from deep_cnn.data.splits import Examples, choose_pictures
from deep_cnn.errors import CheckpointError
from deep_cnn.files import unwritable
from deep_cnn.names import weights_name
from deep_cnn.options import is_code
from deep_cnn.source import read_source
from deep_cnn.tasks import get_task
from deep_cnn.tasks.describe_data import DataDescription
from deep_cnn.training.checkpoint import load_resumable
from deep_cnn.training.devices import choose_device
from deep_cnn.training.session import check_labels


def dry_run(config: TrainConfig) -> Iterator[str]:
    """Yield lines that describe the data, and then check all that a run checks before it trains.

    Writes and downloads nothing. Raises the DeepCnnError with which the run would end, but only
    after all lines that the data allow.
    """
    data = DataDescription()
    yield from data.lines(config)
    choose_device(config.device)
    path = config.test_net or config.resume
    checkpoint = load_resumable(Path(path), config) if path else None
    _check_writable(config.out_path)
    task, wanted = get_task(config.task), ("test",) if config.test_net else ("train", "val")
    config = config.replace(cache="off")
    task.check_splits(data.splits, config, wanted)
    parts = choose_pictures(config, {name: data.splits[name] for name in wanted})
    if checkpoint:
        check_labels(task, checkpoint, config)
    parts = {name: _readable(part, data.unreadable, config) for name, part in parts.items()}
    labels = checkpoint.labels if checkpoint else task.labels(parts["train"], config)
    if checkpoint:
        try:
            task.network(config, labels, weights="none").load_state_dict(checkpoint.state_dict)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError):
            text = f"{path} does not fit --model={config.model}; take another checkpoint"
            raise CheckpointError(text) from None
    elif is_code(config.model) or (
        config.weights not in ("imagenet", "none") and not weights_name(config.weights)
    ):
        task.network(config, labels)  # Reads the file with the weights, or the user's code.
    if is_code(config.schedule) and not config.test_net:
        read_source("schedule", config.schedule)


def _readable(examples: Examples, reasons: Mapping[str, str], config: TrainConfig) -> Examples:
    """Return the pictures that can be decoded; raise DataError if these are too few."""
    bad = {i: reasons[name] for i, name in enumerate(examples.names) if name in reasons}
    refuse_unreadable(examples, bad, config)
    return examples.take([i for i in range(len(examples)) if i not in bad])


def _check_writable(folder: Path) -> None:
    """Raise OutputError if the folder for results cannot be made or written."""
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise unwritable(folder, error) from None

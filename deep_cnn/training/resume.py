"""Say whether and how a run goes on from a checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import CheckpointError
from deep_cnn.files import RunFiles
from deep_cnn.resolve import resolve
from deep_cnn.results import RunResult
from deep_cnn.training.checkpoint import (
    Checkpoint,
    copy_checkpoint,
    load_checkpoint,
    restore_random_states,
)
from deep_cnn.training.session import Session

_LOGGER = logging.getLogger("deep_cnn")
# What may differ between a checkpoint and the run that goes on from it; classes are compared.
_FREE_ON_RESUME = ("epochs", "patience", "data_dir", "keep", "strict_data")


def resumed_config(path: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration in the checkpoint `path`, with these options changed.

    Results go where the checkpoint lies, unless --out_dir is among `changes`. Raises
    CheckpointError for a file that is no checkpoint, ConfigError for an option that is not legal.
    """
    checkpoint = load_checkpoint(path)
    folder = path.resolve().parent
    place = {"out_dir": str(folder.parent)} if folder.name == "models" else {}
    return resolve(TrainConfig.parse({**checkpoint.config, **place, **changes}))


def check_resumable(config: TrainConfig, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless `config` is the checkpoint's, except for what may change."""
    known = all_options(config.task)
    if config.resume and config.epochs < checkpoint.epoch:
        raise CheckpointError(
            f"--epochs={config.epochs}: {checkpoint.epoch} epochs are done already; give more"
        )
    for name, value in config.to_dict().items():
        free = name in _FREE_ON_RESUME or not known[name].affects_result
        had = checkpoint.config.get(name, known[name].default)
        if not free and value != had:
            raise CheckpointError(
                f"--{name}={value} does not fit the checkpoint, which has"
                f" {had}; drop --{name}, or begin a new run with"
                " --weights=CHECKPOINT"
            )


def resume(session: Session, checkpoint: Checkpoint, files: RunFiles, source: Path) -> None:
    """Bring a run to where the checkpoint `source` is, its best checkpoint included."""
    restore_weights(session, checkpoint, source)
    restore_random_states(checkpoint.random)
    _warn_of_changes(checkpoint, session.digest)
    beside = source.with_name(source.name.removesuffix(".pt") + ".best.pt")
    if checkpoint.best and checkpoint.best.epoch == checkpoint.epoch - 1:
        copy_checkpoint(source, files.best)
    elif beside.exists() and not files.best.exists():
        copy_checkpoint(beside, files.best)
    _LOGGER.info("Going on at epoch %d of %d", checkpoint.epoch, session.config.epochs)


def restore_weights(session: Session, checkpoint: Checkpoint, source: object) -> None:
    """Give a session the checkpoint's weights; raise CheckpointError if they do not fit."""
    try:
        session.stepper.restore(checkpoint)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(
            f"{source} does not fit --model={session.config.model} ({reason}); it is damaged or was"
            " changed, take another checkpoint"
        ) from error


def test_result(files: RunFiles) -> Mapping[str, float] | None:
    """Return the test metrics of a run that is over, or None."""
    try:
        return RunResult.from_json(files.result.read_text(encoding="utf-8")).test
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _warn_of_changes(checkpoint: Checkpoint, digest: str) -> None:
    threads = torch.get_num_threads()
    if checkpoint.threads != threads:
        _LOGGER.warning(
            "The checkpoint was computed with %d threads, this is with %d: numbers may differ"
            " in the last digits (OMP_NUM_THREADS=%d repeats them)",
            checkpoint.threads,
            threads,
            checkpoint.threads,
        )
    if checkpoint.data != digest:
        _LOGGER.warning("The pictures or scores have changed since the checkpoint")

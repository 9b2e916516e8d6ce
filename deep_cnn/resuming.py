"""Whether and how a run goes on from a checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deep_cnn.checkpoint import load_checkpoint
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import CheckpointError
from deep_cnn.resolve import resolve
from deep_cnn.runs import RunFiles, RunResult
from deep_cnn.session import Session

_LOGGER = logging.getLogger("deep_cnn")
# What may differ between a checkpoint and the run that goes on from it; classes are compared.
_FREE_ON_RESUME = ("epochs", "patience", "data_dir", "keep", "strict_data")


def resumed_config(path: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration in the checkpoint `path`, with these flags changed.

    Results go where the checkpoint lies, unless --out_dir is among `changes`. CheckpointError for
    a file that is no checkpoint, ConfigError for a flag that is not legal.
    """
    content = load_checkpoint(path)
    folder = path.resolve().parent
    place = {"out_dir": str(folder.parent)} if folder.name == "models" else {}
    return resolve(TrainConfig.parse({**content["config"], **place, **changes}))


def check_resumable(config: TrainConfig, content: Mapping[str, Any]) -> None:
    """CheckpointError unless `config` is the checkpoint's but for what may change."""
    known = all_options(config.task)
    if config.resume and config.epochs < content["epoch"]:
        raise CheckpointError(
            f"--epochs={config.epochs}: {content['epoch']} epochs are done already; give more"
        )
    for name, value in config.to_dict().items():
        free = name in _FREE_ON_RESUME or not known[name].affects_result
        had = content["config"].get(name, known[name].default)
        if not free and value != had:
            raise CheckpointError(
                f"--{name}={value} does not fit the checkpoint, which has"
                f" {had}; drop --{name}, or begin a new run with"
                " --weights=CHECKPOINT"
            )


def test_of(files: RunFiles) -> Mapping[str, float] | None:
    """The test metrics of a run that is over."""
    try:
        return RunResult.from_json(files.result.read_text(encoding="utf-8")).test
    except (OSError, ValueError, TypeError, KeyError):
        return None


def restore_into(session: Session, content: Mapping[str, Any], path: object) -> None:
    """Bring a session to where the checkpoint is; CheckpointError where it does not fit."""
    try:
        session.restore(content)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(
            f"{path} does not fit --model={session.config.model} ({reason}); it is damaged or was"
            " changed, take another checkpoint"
        ) from error


def say_changes(content: Mapping[str, Any], digest: str) -> None:
    """Warn where the threads or the data are not those that the checkpoint was computed with."""
    had, has = content["threads"], torch.get_num_threads()
    if had != has:
        _LOGGER.warning(
            "The checkpoint was computed with %d threads, this is with %d: numbers may differ"
            " in the last digits (OMP_NUM_THREADS=%d repeats them)",
            had,
            has,
            had,
        )
    if content["data"] != digest:
        _LOGGER.warning("The pictures or scores have changed since the checkpoint")

"""Save and load all that a run needs to go on: complete files, loaded as data, never as code."""

import math
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deep_cnn.errors import CheckpointError
from deep_cnn.files import write_whole
from deep_cnn.results import Best, EpochRecord
from deep_cnn.tracking import TrackingState

VERSION = 1
# A checkpoint costs some 30 ms; epochs that are as short share one.
_SECONDS_BETWEEN = 1.0
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A run after `epoch` epochs, as it is kept in models/<run>.pt.

    Attributes:
        run_name: The run that wrote it.
        config: Every option with its value; folders are absolute.
        epoch: The number of the next epoch.
        state_dict: The weights that are evaluated.
        learning: The weights that training goes on from, if they differ (--ema).
        optimizer, scaler: States of the optimizer and of the gradient scaler.
        random: States of every global random generator.
        threads: Threads that torch computed with; another number may change the last digits.
        labels: What is known about the labels: a scale, or the class names.
        input: The preprocessing, and what the network expects.
        data: A digest of the pictures and their targets.
        history: The epochs so far.
        best: The best of them.
        seconds: How long the run has taken.
        tracking: What trackers need to go on with the same run.
    """

    run_name: str
    config: Mapping[str, Any]
    epoch: int
    state_dict: Weights
    optimizer: Mapping[str, Any]
    random: Mapping[str, Any]
    threads: int
    labels: Mapping[str, Any]
    input: Mapping[str, Any]
    data: str
    history: tuple[EpochRecord, ...]
    best: Best | None
    seconds: float
    tracking: TrackingState
    scaler: Mapping[str, Any] | None = None
    learning: Weights | None = None


_OPTIONAL = {"scaler", "learning"}
_REQUIRED = {"version", *(field.name for field in fields(Checkpoint))} - _OPTIONAL


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a complete file; raise OutputError if that fails."""
    content = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    content["history"] = [record.to_dict() for record in checkpoint.history]
    content["best"] = asdict(checkpoint.best) if checkpoint.best else None
    content["tracking"] = checkpoint.tracking.to_dict()
    if checkpoint.learning is None:
        del content["learning"]

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save({**content, "version": VERSION}, file)
            file.flush()
            os.fsync(file.fileno())  # A rename may outlive the bytes when the power fails.

    write_whole(path, save)


def load_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint of deep_cnn; raise CheckpointError for anything else."""
    content = _read(path)
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer deep_cnn (format {version}, this one reads {VERSION});"
            " update deep_cnn"
        )
    missing = _REQUIRED - content.keys() if isinstance(content, dict) else _REQUIRED
    if missing:
        raise CheckpointError(
            f"{path} is no checkpoint of deep_cnn (it has no {sorted(missing or {'config'})[0]});"
            " for weights alone use --weights=FILE"
        )
    known = {
        field.name: content[field.name] for field in fields(Checkpoint) if field.name in content
    }
    return Checkpoint(
        **{
            **known,
            "history": tuple(EpochRecord(**row) for row in content["history"]),
            "best": Best(**content["best"]) if content["best"] else None,
            "tracking": TrackingState.from_dict(content["tracking"]),
        }
    )


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; checkpoints are in <out_dir>/models"
        ) from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder; name a .pt file in it") from None
    except PermissionError:
        raise CheckpointError(f"{path} cannot be read; ask for permission") from None
    except Exception as error:  # Damaged bytes make the reader fail in a dozen ways.
        raise CheckpointError(
            f"{path} is damaged or no checkpoint at all; take the .best.pt or .pt beside it,"
            " or start the run again"
        ) from error


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make `target` what `source` is now; later saves to `source` do not change it."""

    def duplicate(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)  # Free, because a save replaces the file, never its bytes.
        except OSError:
            shutil.copyfile(source, temporary)

    write_whole(target, duplicate)


class CheckpointWriter:
    """The last and the best checkpoint of a run: handed over each epoch, written when it is due."""

    def __init__(self, last: Path, best: Path) -> None:
        self.last, self.best = last, best
        self._last: Checkpoint | None = None
        self._best: Checkpoint | None = None
        self._written = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether the last `write` is long enough ago."""
        return time.monotonic() - self._written >= _SECONDS_BETWEEN

    def keep(self, checkpoint: Checkpoint, *, best: bool) -> None:
        """Take the last checkpoint, which must not change before `write`."""
        self._last = checkpoint
        if best:
            self._best = checkpoint

    def write(self) -> None:
        """Write what is not yet on disk; raise OutputError."""
        if self._last is None:
            return
        if self._best is not None and self._best is not self._last:
            save_checkpoint(self.best, self._best)  # First: a kill in between only repeats epochs.
        save_checkpoint(self.last, self._last)
        if self._best is self._last:
            copy_checkpoint(self.last, self.best)
        self._last = self._best = None
        self._written = time.monotonic()


def random_states() -> dict[str, Any]:
    """Return the states of every global generator, as plain values and tensors.

    Their many numbers are tensors: as values they would take more space than the network's.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), _tensor(keys), position, has_gauss, gauss),
        "python": (version, _tensor(numbers), following),
    }


def _tensor(numbers: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(numbers, dtype=np.int64))


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Go back to what `random_states` returned; CUDA's only if there are as many devices."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    if torch.backends.mps.is_available() and states["mps"] is not None:
        torch.mps.set_rng_state(states["mps"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers.tolist()), following))

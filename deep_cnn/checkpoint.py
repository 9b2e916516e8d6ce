"""Save and load all that a run needs to go on: whole files, loaded as data, never as code."""

import math
import os
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deep_cnn.errors import CheckpointError
from deep_cnn.writing import write_whole

VERSION = 1
# A checkpoint costs some 30 ms; epochs that are as short share one.
_EVERY = 1.0
_KEYS = {
    "version",
    "run_name",
    "config",
    "epoch",
    "state_dict",
    "optimizer",
    "random",
    "threads",
    "labels",
    "input",
    "data",
    "history",
    "best",
    "seconds",
    "tracking",
}


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content`, plain values and tensors, as a whole file; OutputError when that fails."""
    assert content.keys() | {"version"} >= _KEYS, "a checkpoint is complete"

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save({**content, "version": VERSION}, file)
            file.flush()
            os.fsync(file.fileno())  # A rename may outlive the bytes when the power fails.

    write_whole(path, save)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Let `target` be what `source` is now; later saves to `source` do not change it."""

    def duplicate(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)  # Free, because a save replaces the file, never its bytes.
        except OSError:
            shutil.copyfile(source, temporary)

    write_whole(target, duplicate)


class Checkpoints:
    """The last and the best checkpoint of a run: kept after each epoch, written when it is due."""

    def __init__(self, last: Path, best: Path) -> None:
        self.last, self.best = last, best
        self._last: Mapping[str, Any] | None = None
        self._best: Mapping[str, Any] | None = None
        self._written = -math.inf

    @property
    def due(self) -> bool:
        """Whether the last `write` is long enough ago."""
        return time.monotonic() - self._written >= _EVERY

    def keep(self, content: Mapping[str, Any], *, best: bool) -> None:
        """Let `content`, which nobody may change before `write`, be the last one."""
        self._last = content
        if best:
            self._best = content

    def write(self) -> None:
        """Write what is not yet on disk; OutputError."""
        if self._last is None:
            return
        if self._best is not None and self._best is not self._last:
            save_checkpoint(self.best, self._best)  # First: a kill in between only repeats epochs.
        save_checkpoint(self.last, self._last)
        if self._best is self._last:
            copy_checkpoint(self.last, self.best)
        self._last = self._best = None
        self._written = time.monotonic()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ours; CheckpointError for anything else, saying what it is."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
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
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer deep_cnn (format {version}, this one reads {VERSION});"
            " update deep_cnn"
        )
    missing = _KEYS - content.keys() if isinstance(content, dict) else _KEYS
    if missing:
        raise CheckpointError(
            f"{path} is no checkpoint of deep_cnn (it has no {sorted(missing or {'config'})[0]});"
            " for weights alone use --weights=FILE"
        )
    return dict(content)


def random_states() -> dict[str, Any]:
    """The states of every global generator, as plain values and tensors.

    Their many numbers are tensors: as values they would cost more than the network's.
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
    """Go back to what `random_states` returned; CUDA's only where there are as many devices."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    if torch.backends.mps.is_available() and states["mps"] is not None:
        torch.mps.set_rng_state(states["mps"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers.tolist()), following))

"""Follow a schedule of the learning rate that is a class of the user."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import optim

from deep_cnn.errors import CheckpointError
from deep_cnn.own_code import create
from deep_cnn.source import read_source

StateDict = dict[str, Any]


class OwnSchedule:
    """A schedule of a class of the user.

    The constructor is called with the optimizer, and with `epochs=` if it takes the number of
    epochs. `step()` is called after each epoch. If the schedule has `lr`, that is the rate of the
    next epoch; otherwise it sets the rates of the optimizer's groups by itself, as torch's
    schedulers do. Raises ConfigError if the class cannot be used.

    Attributes:
        has_rate: Whether the schedule has `lr`.
    """

    def __init__(self, text: str, optimizer: optim.Optimizer, epochs: int, initial: int) -> None:
        self.source, self.optimizer = read_source("schedule", text), optimizer
        self._schedule, _ = create(self.source, object, optimizer, epochs=epochs)
        with self.source.errors():
            names = ("step", "lr", "state_dict", "load_state_dict")
            # A property with an error would else look as if it were not there.
            places = (self._schedule, type(self._schedule))
            has_step, self.has_rate, *has_state = (
                any(hasattr(place, each) for place in places) for each in names
            )
        if not has_step:
            raise self.source.error("it has no step(), which is called after each epoch; add it")
        self.is_resumable = all(has_state)
        for _ in range(initial):
            self.step()
        self.state_dict()

    @property
    def rate(self) -> float:
        """The learning rate of the next epoch; raise ConfigError if it is none."""
        with self.source.errors():
            groups = self.optimizer.param_groups
            lr = self._schedule.lr if self.has_rate else groups[0]["lr"]
        if isinstance(lr, bool) or not isinstance(lr, int | float | np.number | torch.Tensor):
            raise self.source.error(
                f"its lr is of type {type(lr).__name__}, not a number; correct the code"
            )
        with self.source.errors():
            rate = float(lr)
        if not (math.isfinite(rate) and rate >= 0):
            raise self.source.error(
                f"its learning rate is {rate}; it must be 0 or more, and finite"
            )
        return rate

    def step(self) -> None:
        """End an epoch."""
        with self.source.errors():
            self._schedule.step()

    def state_dict(self) -> StateDict | None:
        """Return a copy of the state, of plain values, or None if the schedule has none.

        Raises ConfigError if a checkpoint cannot hold it.
        """
        if not self.is_resumable:
            return None
        file = io.BytesIO()
        with self.source.errors():
            content = self._schedule.state_dict()
            if not isinstance(content, dict):
                raise self.source.error(f"its state_dict() returns {content!r}, not a dict; do so")
            torch.save(_without_numpy(dict(content)), file)
            file.seek(0)
            try:
                state: StateDict = torch.load(file, map_location="cpu", weights_only=True)
                return state
            except Exception:
                text = (
                    "its state_dict() has other values than numbers, texts, lists, dicts, tensors"
                )
                raise self.source.error(f"{text}; a checkpoint cannot hold them") from None

    def resume(self, state: StateDict | None, path: Path) -> None:
        """Restore the state in the checkpoint `path`; raise CheckpointError if it has none."""
        if state is None or not self.is_resumable:
            raise CheckpointError(
                f"{path} cannot be resumed: --schedule={self.source.text} has no state_dict() and"
                f" load_state_dict(); add them, or begin a new run with --weights={path}"
            )
        with self.source.errors():
            self._schedule.load_state_dict(state)


def _without_numpy(value: Any) -> Any:
    """Return a value with Python's numbers in place of NumPy's, which a checkpoint cannot hold."""
    if type(value) is dict:
        return {k: _without_numpy(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_without_numpy, value))
    return value.item() if isinstance(value, np.generic) else value

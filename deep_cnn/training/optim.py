"""Build the optimizer of a run, and take steps at the scheduled learning rate."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import get_ema_multi_avg_fn

from deep_cnn.config import TrainConfig
from deep_cnn.models import Network
from deep_cnn.options import is_code
from deep_cnn.training.checkpoint import Checkpoint
from deep_cnn.training.schedule import OwnSchedule

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
Losses = Sequence[float]
_BAD_EPOCHS = 3  # torch waits for 10 by default, which is half of a run of 20 epochs.


def _eager(kind: type[optim.Optimizer]) -> Callable[..., optim.Optimizer]:
    """Return `kind` without the wrappers of its methods for torch.compile, which we do not use.

    They import torch._dynamo, which takes 2 seconds, longer than torch itself.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "step": step})


_ADAM, _ADAMW, _SGD = _eager(optim.Adam), _eager(optim.AdamW), _eager(optim.SGD)
# Fused optimizers update all parameters in one call per step.
OPTIMIZERS: Mapping[str, Callable[[Parameters, TrainConfig], optim.Optimizer]] = {
    "adam": lambda p, c: _ADAM(p, c.lr, weight_decay=c.weight_decay, fused=True),
    "adamw": lambda p, c: _ADAMW(p, c.lr, weight_decay=c.weight_decay, fused=True),
    "sgd": lambda p, c: _SGD(p, c.lr, c.momentum, weight_decay=c.weight_decay, fused=True),
}


def _plateau(losses: Losses, decay: float) -> float:
    """Return the factor of torch's ReduceLROnPlateau, with less patience and no minimum rate."""
    best, bad, factor = math.inf, 0, 1.0
    for loss in losses:
        better = loss < best * (1 - 1e-4)
        best, bad = (loss, 0) if better else (best, bad + 1)
        if bad == _BAD_EPOCHS:
            bad, factor = 0, factor * decay
    return factor


def _one_cycle(part: float) -> float:
    """Return the factor of torch's OneCycleLR with its defaults, at this fraction of training."""

    def between(start: float, end: float, part: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * part)) / 2

    return between(1 / 25, 1, part / 0.3) if part < 0.3 else between(1, 4e-6, (part - 0.3) / 0.7)


# The factor of --lr in an epoch (the first is 0), given the losses of the epochs before.
SCHEDULES: Mapping[str, Callable[[int, TrainConfig, Losses], float]] = {
    "constant": lambda epoch, c, losses: 1.0,
    "hyperbolic": lambda epoch, c, losses: 1 / (1 + c.decay * epoch),
    "step": lambda epoch, c, losses: c.decay ** (3 * epoch // c.epochs),
    "cosine": lambda epoch, c, losses: (1 + math.cos(math.pi * epoch / c.epochs)) / 2,
    "plateau": lambda epoch, c, losses: _plateau(losses, c.decay),
    "onecycle": lambda epoch, c, losses: _one_cycle((epoch + 0.5) / c.epochs),
}


class Stepper:
    """The optimizer of a network, with the learning rates and the weight averaging of a run.

    `ema_model` is the network to evaluate: the average of --ema, or else the network itself.
    """

    def __init__(
        self, network: Network, config: TrainConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.network, self.config = network, config
        self.ema_model = deepcopy(network) if config.ema else network
        self.parameters, self.ema_parameters = (
            [p for p in some.parameters() if p.requires_grad] for some in (network, self.ema_model)
        )
        self._average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
        self.optimizer = OPTIMIZERS[config.optimizer](self._groups(), config)
        # In float16, the gradient of a small loss would be 0.
        self._new_scaler = partial(
            torch.amp.GradScaler, device.type, enabled=dtype == torch.float16
        )
        self.reset_grad_scaler()
        self.schedule: OwnSchedule | None = None

    def follow_own_schedule(self) -> None:
        """Let a --schedule of the user, if it is one, choose the rates; raise ConfigError."""
        config = self.config
        if is_code(config.schedule):
            self._set_rates(config.lr)
            self.schedule = OwnSchedule(
                config.schedule, self.optimizer, config.epochs, config.initial_epoch
            )

    def _groups(self) -> Parameters:
        """Return the trainable parameters, with a separate group for the head if rates differ."""
        if self.config.lr_trunk == 1:
            return self.parameters
        head = set(self.network.head.parameters())
        return [{"params": [p for p in self.parameters if (p in head) == h]} for h in (True, False)]

    def begin(self, epoch: int, losses: Losses) -> float:
        """Set the learning rates of an epoch and return the head's.

        They depend only on the options, the epoch and the losses of earlier epochs, so a larger
        --epochs stretches the schedule. A schedule of the user knows its rate by itself.
        """
        config = self.config
        if self.schedule:
            rate = self.schedule.rate
            if self.schedule.has_rate:
                self._set_rates(rate)
            return rate
        rate = config.lr * SCHEDULES[config.schedule](epoch, config, losses)
        rate *= min(1.0, (epoch + 1) / (config.warmup + 1))
        self._set_rates(rate)
        return rate

    def _set_rates(self, rate: float) -> None:
        factors = (1, self.config.lr_trunk)
        for group, factor in zip(self.optimizer.param_groups, factors, strict=False):
            group["lr"] = rate * factor

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of `loss`, a scalar."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.config.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.config.ema:
            self._average(self.ema_parameters, self.parameters, 0)

    def reset_grad_scaler(self) -> None:
        """Prepare for the first step, or for a new attempt after a failed step."""
        self.scaler = self._new_scaler()

    def end(self) -> None:
        """End an epoch; buffers such as a batch norm's mean are copied to the average."""
        if self.schedule:
            self.schedule.step()
        if self.config.ema:
            pairs = zip(self.network.buffers(), self.ema_model.buffers(), strict=True)
            for buffer, averaged in pairs:
                averaged.copy_(buffer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore a checkpoint; raise torch's error if it does not fit."""
        self.ema_model.load_state_dict(checkpoint.state_dict)
        self.network.load_state_dict(checkpoint.learning or checkpoint.state_dict)
        if checkpoint.optimizer is not None:  # Evaluation needs none.
            self.optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)


def weights_of(network: Network, *, copied: bool = False) -> dict[str, Tensor]:
    """Return the state dict of a network; if `copied`, later steps do not change it."""
    weights = network.state_dict()
    for name, value in weights.items():
        if copied and not (network.frozen and name.startswith("trunk.")):  # That never changes.
            weights[name] = value.clone()
    return weights

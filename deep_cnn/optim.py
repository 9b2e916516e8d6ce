"""Build the optimizer and the learning-rate schedule that the flags name."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from deep_cnn.config import TrainConfig

Parameters = Iterable[nn.Parameter]


def _eager(kind: type[optim.Optimizer]) -> Callable[..., optim.Optimizer]:
    """`kind` without what torch wraps its methods in for torch.compile, which we do not use.

    That imports torch._dynamo, which takes 2 seconds: longer than torch itself.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "step": step})


_ADAM, _ADAMW, _SGD = _eager(optim.Adam), _eager(optim.AdamW), _eager(optim.SGD)
# Fused: one call a step over all parameters.
OPTIMIZERS: Mapping[str, Callable[[Parameters, TrainConfig], optim.Optimizer]] = {
    "adam": lambda p, c: _ADAM(p, c.lr, weight_decay=c.weight_decay, fused=True),
    "adamw": lambda p, c: _ADAMW(p, c.lr, weight_decay=c.weight_decay, fused=True),
    "sgd": lambda p, c: _SGD(p, c.lr, c.momentum, weight_decay=c.weight_decay, fused=True),
}

# The factor of --lr in each epoch, the first one being number 0.
SCHEDULES: Mapping[str, Callable[[int, TrainConfig], float]] = {
    "constant": lambda epoch, c: 1.0,
    "hyperbolic": lambda epoch, c: 1 / (1 + c.decay * epoch),
    "step": lambda epoch, c: c.decay ** (3 * epoch // c.epochs),
    "cosine": lambda epoch, c: (1 + math.cos(math.pi * epoch / c.epochs)) / 2,
}


def build_optimizer(network: nn.Module, config: TrainConfig) -> optim.Optimizer:
    """The optimizer over every parameter that is not frozen."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return OPTIMIZERS[config.optimizer](parameters, config)


def build_scheduler(optimizer: optim.Optimizer, config: TrainConfig) -> LambdaLR:
    """The schedule, to be stepped once an epoch; it begins at --initial_epoch."""
    factor = SCHEDULES[config.schedule]
    first = config.initial_epoch
    return LambdaLR(optimizer, lambda steps: factor(first + steps, config))

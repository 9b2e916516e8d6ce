"""Go over a split in batches, learning from it or not: the one loop of training and evaluation."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.progress import Progress
from deep_cnn.training.stop import StopToken

Batch = tuple[Tensor, Tensor]  # What the network takes, (B, ...), and the indices, (B,) int64.


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of one epoch, and how many there are."""

    count: int
    items: Iterable[Batch]


class LossNotFinite(Exception):
    """The loss of step `step` is not a finite number."""

    def __init__(self, loss: float, step: int) -> None:
        super().__init__(loss)
        self.loss, self.step = loss, step


@dataclass(frozen=True, slots=True)
class EpochOutput:
    """What one epoch over a split of N pictures gave, in the order of the split."""

    outputs: Tensor  # (N, outputs) float32
    losses: NDArray[np.float64]  # (N,)
    step_losses: list[float]


@dataclass(frozen=True, slots=True)
class Objective:
    """The network's outputs for a batch, and the loss of each picture.

    Attributes:
        forward: Maps what the network takes, (B, ...), to outputs, (B, outputs) float32.
        loss: Maps outputs and encoded targets, (B,), to losses, (B,).
        targets: Encoded targets of the whole split, (N,), on the CPU.
        weights: Weights of the losses, (N,), 1 on average, on the CPU.
        device: Where to compute.
        stop: Asked between two steps.
    """

    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    targets: Tensor
    weights: Tensor
    device: torch.device
    stop: StopToken


def run_epoch(
    objective: Objective,
    batches: Batches,
    title: str,
    step: Callable[[Tensor], None] | None = None,
) -> EpochOutput:
    """Go once over the batches; with a `step`, which takes the loss of a batch, learn from them.

    Nothing in the loop waits for the device, except that the loss is displayed twice a second.

    Raises:
        LossNotFinite: The loss of a step is nan or infinite.
        Interrupted: The run was asked to end.
    """
    outputs: list[Tensor] = []
    losses: list[Tensor] = []
    steps: list[Tensor] = []
    orders: list[Tensor] = []
    device = objective.device
    targets, weights = objective.targets.to(device), objective.weights.to(device)
    mode = torch.enable_grad() if step else torch.inference_mode()
    with mode, Progress(title, batches.count) as progress:
        for x, indices in batches.items:
            objective.stop.raise_if_set(len(steps))
            rows = to_device(indices, device)
            output = objective.forward(to_device(x, device))
            each = objective.loss(output, targets[rows])
            loss = (each * weights[rows]).mean()
            if step is not None:
                step(loss)
            outputs.append(output.detach())
            losses.append(each.detach())
            steps.append(loss.detach())
            orders.append(indices)
            read = progress.is_due() or len(steps) == batches.count
            value = loss.item() if read else None
            progress.step(value)
            if value is not None and not math.isfinite(value):
                break
    return _collect(outputs, losses, steps, orders)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on the device, without waiting for what the device is still computing."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    # From memory that is not pinned even a copy that does not block waits for the stream.
    return tensor.pin_memory().to(device, non_blocking=True)


def _collect(
    outputs: Sequence[Tensor],
    losses: Sequence[Tensor],
    steps: Sequence[Tensor],
    orders: Sequence[Tensor],
) -> EpochOutput:
    step_losses = torch.stack(list(steps)).tolist()
    for step, loss in enumerate(step_losses):
        if not math.isfinite(loss):
            raise LossNotFinite(loss, step)
    back = torch.cat(list(orders)).argsort()
    return EpochOutput(
        torch.cat(list(outputs)).cpu()[back],
        torch.cat(list(losses)).cpu()[back].double().numpy(),
        step_losses,
    )


def weighted_mean(losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the loss of a split: each picture counts by its weight, whatever batch it was in."""
    total = weights.sum()
    return float((losses * weights).sum() / total) if total else float(losses.mean())

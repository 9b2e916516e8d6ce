"""The one loop: go over a split in batches, learning from it or not."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.progress import Progress


class Interrupted(Exception):
    """A signal asked the run to end; `steps` of the current pass were done."""

    def __init__(self, signum: int, steps: int = 0) -> None:
        super().__init__(signum)
        self.signum, self.steps = signum, steps


def heed(signalled: Callable[[], int | None], steps: int = 0) -> None:
    """Raise Interrupted where a signal has asked the run to end."""
    signum = signalled()
    if signum is not None:
        raise Interrupted(signum, steps)


class LossNotFinite(Exception):
    """The loss of step `step` is not a finite number."""

    def __init__(self, loss: float, step: int) -> None:
        super().__init__(loss)
        self.loss, self.step = loss, step


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass over a split of N pictures gave, in the order of the split."""

    outputs: Tensor  # (N, outputs) float32
    losses: NDArray[np.float64]  # (N,)
    step_losses: list[float]


Batch = tuple[Tensor, Tensor]  # What the network takes, (B, ...), and the indices, (B,) int64.


@dataclass(frozen=True, slots=True)
class Learner:
    """How answers are made and scored: shared by training and evaluation."""

    answer: Callable[[Tensor], Tensor]  # (B, ...) -> (B, outputs) float32
    loss: Callable[[Tensor, Tensor], Tensor]  # (B, outputs), (B,) -> (B,)
    device: torch.device
    check: Callable[[], int | None]  # the signal that asked to end, or None


def run_pass(
    learner: Learner,
    batches: Iterable[Batch],
    targets: Tensor,
    weights: Tensor,
    *,
    title: str,
    count: int,
    step: Callable[[Tensor], None] | None = None,
) -> Pass:
    """Go once over `batches`, `count` of them; learn where there is a `step` to take for a loss.

    `targets` (N,) are encoded, `weights` (N,), 1 on average, weigh the losses; both on the CPU.
    Raises LossNotFinite, or Interrupted between two steps. Nothing in the loop waits for the
    device but the loss that is shown twice a second.
    """
    outputs: list[Tensor] = []
    losses: list[Tensor] = []
    steps: list[Tensor] = []
    orders: list[Tensor] = []
    targets, weights = targets.to(learner.device), weights.to(learner.device)
    mode = torch.enable_grad() if step else torch.inference_mode()
    with mode, Progress(title, count) as progress:
        for x, indices in batches:
            heed(learner.check, len(steps))
            there = moved(indices, learner.device)
            answers = learner.answer(moved(x, learner.device))
            each = learner.loss(answers, targets[there])
            loss = (each * weights[there]).mean()
            if step is not None:
                step(loss)
            outputs.append(answers.detach())
            losses.append(each.detach())
            steps.append(loss.detach())
            orders.append(indices)
            shown = loss.item() if progress.due() or len(steps) == count else None
            progress.step(shown)
            if shown is not None and not math.isfinite(shown):
                break
    return _collect(outputs, losses, steps, orders)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on the device, without waiting for what that is still computing."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    # From memory that is not pinned even a copy that does not block waits for the stream.
    return tensor.pin_memory().to(device, non_blocking=True)


def largest(below: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `below` that `fits`, by bisection; 0 where none does."""
    good, bad = 0, below
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says, in one of the many ways, that memory was not enough."""
    words = (
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "ALLOC_FAILED",
        "could not create a primitive",  # oneDNN knows no better word.
    )
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _collect(
    outputs: Sequence[Tensor],
    losses: Sequence[Tensor],
    steps: Sequence[Tensor],
    orders: Sequence[Tensor],
) -> Pass:
    step_losses = torch.stack(list(steps)).tolist()
    for step, loss in enumerate(step_losses):
        if not math.isfinite(loss):
            raise LossNotFinite(loss, step)
    back = torch.cat(list(orders)).argsort()
    return Pass(
        torch.cat(list(outputs)).cpu()[back],
        torch.cat(list(losses)).cpu()[back].double().numpy(),
        step_losses,
    )


def weighted_mean(losses: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The loss over a split: each picture counts by its weight, whatever batch it was in."""
    total = weights.sum()
    return float((losses * weights).sum() / total) if total else float(losses.mean())

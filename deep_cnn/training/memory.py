"""Find the largest batch that fits into memory, by trying."""

import gc
import os
import signal
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from deep_cnn.training.session import Session

_SECONDS_OF_A_HANGING_STEP = 300


def advise_batch_size(session: Session | None, batch_size: int, error: str) -> str:
    """Return what to do about memory that was not enough, for the error of a failed run."""
    if session is None:
        return f"out of memory at --batch_size={batch_size}; lower it ({error})"
    train = session.splits["train"]
    cached = train.features is not None
    fits = partial(fits_in_memory, session, cached=cached)
    found = _largest_below(min(batch_size, len(train)), fits)
    way = f"--batch_size={found} fits" if found else "not even 1 fits, take a smaller --model"
    return f"out of memory at --batch_size={batch_size}; {way} ({error})"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says, in one of the many ways, that memory was not enough."""
    texts = (
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "ALLOC_FAILED",
        "could not create a primitive",  # What oneDNN says.
    )
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def fits_in_memory(session: Session, count: int, *, cached: bool) -> bool:
    """Return whether a step with `count` pictures, or cached features, fits; it changes weights."""
    attempt = partial(_attempt, session, count, cached=cached)
    return _survives(attempt) if session.device.type == "cpu" else attempt()


def _largest_below(bound: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number below `bound` that `fits`, by bisection; 0 if none does."""
    good, bad = 0, bound
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _attempt(session: Session, count: int, *, cached: bool) -> bool:
    spec, width = session.network.input_spec, session.network.width
    train = session.splits["train"]
    objective = session.objective(train, learn=True)
    # What a failed step left: autograd's queue holds its tensors until the next backward pass.
    torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    session.stepper.reset_grad_scaler()
    gc.collect()
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        shape = (count, spec.channels, spec.crop, spec.crop)
        x = torch.zeros(count, width) if cached else torch.zeros(shape, dtype=torch.uint8)
        targets = session.task.encode(np.zeros(count, dtype=np.int64), session.labels)
        outputs = objective.forward(x.to(session.device))
        session.stepper.step(objective.loss(outputs, targets.to(session.device)).mean())
    except (MemoryError, RuntimeError):
        return False
    return True


def _survives(attempt: Callable[[], bool]) -> bool:
    """Return whether an attempt at the CPU's memory succeeds, made in a fork if there are forks.

    Native code seldom checks whether it was given memory, and dies if it was not.
    """
    if not hasattr(os, "fork"):
        return attempt()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS_OF_A_HANGING_STEP)
        torch.set_num_threads(1)  # The other threads are not in a fork.
        status = 0 if attempt() else 1
    finally:
        os._exit(status)

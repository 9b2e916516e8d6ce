"""Find the largest batch that fits into memory, by trial."""

import gc
import os
import signal
from bisect import bisect_left

import numpy as np
import torch

from deep_cnn.training.session import Session

_SECONDS_OF_A_HANGING_STEP = 300


def advise_batch_size(session: Session | None, batch_size: int, error: str) -> str:
    """Return the advice for the error message of a run that is out of memory."""
    text = f"out of memory at --batch_size={batch_size};"
    if session is None:
        return f"{text} lower it ({error})"
    sizes = range(1, min(batch_size, len(session.splits["train"])))
    fits = bisect_left(sizes, True, key=lambda size: not _fits_in_memory(session, size))
    advice = f"--batch_size={fits} fits" if fits else "not even 1 fits, take a smaller --model"
    return f"{text} {advice} ({error})"


def _fits_in_memory(session: Session, size: int) -> bool:
    """Return whether a step with `size` pictures, or their features, fits; it changes weights.

    Native code rarely checks an allocation, and crashes if it fails. On a CPU, the attempt is
    therefore made in a forked process, if the system supports it.
    """
    if session.device.type != "cpu" or not hasattr(os, "fork"):
        return _attempt(session, size)
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS_OF_A_HANGING_STEP)
        torch.set_num_threads(1)  # The other threads are not in a fork.
        status = 0 if _attempt(session, size) else 1
    finally:
        os._exit(status)


def _attempt(session: Session, size: int) -> bool:
    spec, train = session.network.input_spec, session.splits["train"]
    # After a failed step, autograd's queue holds its tensors until the next backward pass.
    torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    session.stepper.reset_grad_scaler()
    gc.collect()
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        if train.features is None:
            x = torch.zeros(size, spec.channels, spec.crop, spec.crop, dtype=torch.uint8)
        else:
            x = torch.zeros(size, session.network.width)
        targets = session.task.encode(np.zeros(size, dtype=np.int64), session.labels)
        outputs = session.forward(train, x.to(session.device), learn=True)
        losses = session.losses(outputs, targets.to(session.device), learn=True)
        session.stepper.step(losses.mean())
    except (MemoryError, RuntimeError):
        return False
    return True

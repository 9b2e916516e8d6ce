"""Make warm worker processes: where they are forked from, and how they are initialized."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection, parent_process
from multiprocessing.context import ForkServerContext
from pathlib import Path

from deep_cnn.progress import use_thread_lock
from deep_cnn.resources import available_memory, cores

# What fine-tuning a whole network of middle size may need.
_MEMORY_EACH = 2**32


def warm_context() -> ForkServerContext:
    """Return a context whose processes are forked from a server that has imported torch.

    The server never touches CUDA.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deep_cnn.sweep.forkserver_preload"])
    return context


def default_workers(method: str, total: int | None) -> int:
    """Return how many of `total` trials to run at once: one a GPU, else one for up to four cores.

    A trial a core is quicker than all cores for one (tests/benchmarks/workers.py), but each needs
    memory. Bayesian search knows less of those that still run, so there it is one at a time.
    """
    if method == "bayes":
        return 1
    most = _gpus() or min(cores(), 4, available_memory() // _MEMORY_EACH)
    return max(1, most if total is None else min(most, total))


def _gpus() -> int:
    """Return the number of GPUs that this process may use, without importing torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return len([name for name in named.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def threads_each(workers: int) -> int:
    """Return the number of cores that each worker may use."""
    return max(1, cores() // workers)


def init_worker(slot: int, threads: int) -> None:
    """Make this process worker number `slot`: silent, ending with its parent, on its own cores."""
    from deep_cnn.training.devices import share_cores

    _die_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; one decides.
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - the parent's alone.
    use_thread_lock()
    logging.getLogger("deep_cnn").setLevel(logging.INFO)
    _take_a_gpu(slot)
    share_cores(threads)


def _die_with_the_parent() -> None:
    """End this process when its parent ends, even by SIGKILL: the pipe between them closes."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _take_a_gpu(slot: int) -> None:
    """Choose one GPU for each worker in turn, before CUDA is initialized."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    if there and there != [""]:
        os.environ["CUDA_VISIBLE_DEVICES"] = there[slot % len(there)]

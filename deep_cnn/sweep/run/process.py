"""Make warm worker processes: where they are forked from, and how they are initialized."""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing import parent_process, resource_tracker, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deep_cnn.errors import ConfigError
from deep_cnn.processes import EXIT_STATUS, Handler, blocked_signals, end_with_parent
from deep_cnn.progress import use_thread_lock
from deep_cnn.resources import available_memory, cores

# What fine-tuning a whole network of middle size may need.
_MEMORY_EACH = 2**32
# A path of a socket has at most 104 bytes on macOS, and multiprocessing appends 32.
_LONGEST_FOR_SOCKETS = 70
# What the server has imported, torch among it.
PRELOAD = "deep_cnn.sweep.forkserver_preload"
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def start_warm(
    target: Callable[..., None], args: tuple[Any, ...], name: str, preload: str = PRELOAD
) -> BaseProcess:
    """Start a process that is forked from a server that has imported torch; return it.

    The server is started if there is none. It never touches CUDA. A scheduler signals the whole
    group: the server must outlive its workers, or no process could wait for them, so it gets no
    signals. It ends when the pipes to the processes that use it close. The started process gets
    signals once it calls `unblock_signals`.

    Raises:
        OSError, EOFError: The server or the process died, or the system refuses another one.
        ConfigError: There is no folder for the server's socket.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    process = context.Process(target=target, args=args, name=name)
    _choose_folder_for_sockets()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns if the tracker was killed, and starts another.
        with blocked_signals():
            # Before the server: where it starts, it unblocks some signals.
            resource_tracker.ensure_running()
        with blocked_signals():
            process.start()
    return process


def _choose_folder_for_sockets() -> None:
    """Let multiprocessing put its sockets elsewhere if the path of TMPDIR is too long for them."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= _LONGEST_FOR_SOCKETS:
        return
    short = (folder for folder in _SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK))
    tempfile.tempdir = next(short, None)
    try:
        if tempfile.tempdir is None:
            raise ConfigError(
                f"TMPDIR={usual} is too long for a socket, and none of {', '.join(_SHORT_FOLDERS)}"
                " can be written; set TMPDIR to a folder with a path of at most"
                f" {_LONGEST_FOR_SOCKETS} bytes"
            )
        util.get_temp_dir()  # It makes a folder, and keeps its name.
    finally:
        tempfile.tempdir = usual


def default_workers(method: str, total: int | None, *, trains: bool = True) -> int:
    """Return how many of `total` trials to run at once: one a GPU, else one for up to four cores.

    Other programs than ours, which do not share the cores, run one a GPU, else one at a time.

    A trial a core is quicker than all cores for one (tests/benchmarks/workers.py), but each needs
    memory. Bayesian search knows less of those that still run, so there it is one at a time.
    """
    if method == "bayes":
        return 1
    most = gpus() or (min(cores(), 4, available_memory() // _MEMORY_EACH) if trains else 1)
    return max(1, most if total is None else min(most, total))


def gpus() -> int:
    """Return the number of GPUs that this process may use, without importing torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return len([name for name in named.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def threads_each(workers: int) -> int:
    """Return the number of cores that each worker may use."""
    return max(1, cores() // workers)


def init_worker(slot: int, threads: int) -> None:
    """Make this process worker number `slot`, which trains on its own cores; see `begin_worker`."""
    from deep_cnn.training.devices import share_cores

    begin_worker()
    _take_a_gpu(slot)
    share_cores(threads)


def begin_worker(
    at_end: Callable[[], None] | None = None, handler: Handler = signal.SIG_IGN
) -> None:
    """Make this process a worker: silent, and ending with its parents. SIGTERM stays blocked.

    Its parents are the process that has started it and the fork server.

    Args:
        at_end: Called before the process ends because a parent is gone.
        handler: For the signals that one process decides on.
    """
    starter = parent_process()
    assert starter is not None
    end_with_parent(os.getppid(), starter.sentinel, at_end=at_end)
    # Ctrl-C, a closed terminal and a scheduler reach every process; one decides.
    for number in EXIT_STATUS.keys() - {signal.SIGTERM}:
        signal.signal(number, handler)
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - the parent's alone.
    use_thread_lock()
    logging.getLogger("deep_cnn").setLevel(logging.INFO)


def _take_a_gpu(slot: int) -> None:
    """Choose one GPU for each worker in turn, before CUDA is initialized."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    if there and there != [""]:
        os.environ["CUDA_VISIBLE_DEVICES"] = there[slot % len(there)]

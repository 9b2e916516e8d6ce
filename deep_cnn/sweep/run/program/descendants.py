"""Find and end the processes that a process has started, and those that these have started.

On Linux, a process that is a subreaper becomes the parent of every orphan below it, so that no
daemon escapes. Elsewhere, only the process group of a program is known.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path

_SET_CHILD_SUBREAPER = 36
_PAUSE = 0.02
# After so many seconds, what still lives is in the kernel, where no signal reaches it.
_PATIENCE = 5.0
_PROC = Path("/proc")


def become_subreaper() -> None:
    """Make this process the parent of all orphans among its descendants, where that exists."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> set[int]:
    """Return the living descendants of a process, without itself."""
    parents = dict(_living())
    found, level = set[int](), {root}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found - {root}


def with_variable(name: str, value: str) -> set[int]:
    """Return the processes that were started with a variable in their environment."""
    text = os.fsencode(f"{name}={value}\0")
    found = set()
    for pid, _ in _living():
        with suppress(OSError):
            if text in (_PROC / str(pid) / "environ").read_bytes() + b"\0":
                found.add(pid)
    return found - {os.getpid()}


def end(find: Callable[[], Set[int]], grace: float = 0.0) -> None:
    """Kill the processes that are found, again and again until there are none.

    Args:
        find: Returns the processes.
        grace: The seconds in which they may end by themselves.
    """
    start = time.monotonic()
    while (found := find()) and time.monotonic() < start + grace + _PATIENCE:
        kills = time.monotonic() >= start + grace
        for pid in found if kills else ():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        reap(found)
        # What forks all the time is caught only by looking again at once.
        time.sleep(0 if kills else _PAUSE)


def end_descendants(grace: float = 0.0) -> None:
    """Kill all descendants of this process; see `end`."""
    end(lambda: descendants(os.getpid()), grace)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program, and where descendants cannot be found its process group."""
    if process.poll() is None:
        process.kill()
        process.wait()
    if not _PROC.exists():
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def reap(pids: Set[int]) -> None:
    """Take the exit status of children that have ended, so that they disappear."""
    for pid in pids:
        with suppress(OSError):
            os.waitpid(pid, os.WNOHANG)


def _living() -> Iterator[tuple[int, int]]:
    """Yield each process that is no zombie, and its parent."""
    for name in os.listdir(_PROC) if _PROC.exists() else ():  # noqa: PTH208 - it is faster.
        if name.isdecimal():
            with suppress(OSError):
                state, parent = (_PROC / name / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    yield int(name), int(parent)

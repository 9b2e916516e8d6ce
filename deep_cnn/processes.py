"""End processes: the signals that ask for it, and parents that are gone."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_NAMES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGUSR1": 75}
# The exit status after each signal that asks a process to end; Windows lacks some of them. A
# preempted run is continued later.
EXIT_STATUS = {
    getattr(signal, name): status for name, status in _NAMES.items() if hasattr(signal, name)
}
_HANGUP: int | None = getattr(signal, "SIGHUP", None)
_PAUSE = 0.5

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


def set_handlers(handler: Handler) -> dict[int, Handler]:
    """Set the handler of every signal that asks to end; return those that were replaced.

    SIGHUP stays ignored if it is, because nohup promises that.
    """
    ignored = {_HANGUP} if _HANGUP and signal.getsignal(_HANGUP) == signal.SIG_IGN else set()
    return {number: signal.signal(number, handler) for number in EXIT_STATUS.keys() - ignored}


def exit_at_once(number: int, frame: FrameType | None = None) -> None:
    """End this process, which has nothing to save yet, with the exit status of a signal."""
    with suppress(OSError):  # The terminal may be gone.
        os.write(2, b"deep_cnn: interrupted\n")
    os._exit(EXIT_STATUS[signal.Signals(number)])


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Delay the signals that ask to end. Processes that are started meanwhile never get them.

    A process forked from one of these gets them once it calls `unblock_signals`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_STATUS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Receive the signals that `blocked_signals` has delayed, and later ones."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_STATUS)


def end_with_parent(parent: int, *sentinels: int, at_end: Callable[[], None] | None = None) -> None:
    """Kill this process as soon as its parent is gone, even if that was killed.

    Args:
        parent: The number of the parent process. An orphan gets another parent.
        sentinels: Handles that become readable when another process is gone that counts, too.
        at_end: Called before this process is killed.
    """
    from multiprocessing import connection  # Not needed by the command line, which imports this.

    def watch() -> None:
        while os.getppid() == parent and not connection.wait(sentinels, _PAUSE):
            pass
        if at_end is not None:
            at_end()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()

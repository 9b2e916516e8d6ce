"""Turn signals into a flag that the training loop reads between two steps."""

import signal
from types import FrameType, TracebackType

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
# A run that was asked to make room comes back; the others were asked to end.
_STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 75}


class Signals:
    """While open, SIGINT, SIGTERM and SIGUSR1 are kept instead of acting; a second SIGINT acts."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]

    def __call__(self) -> int | None:
        """The signal that asked the run to end, or None."""
        return self.received

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> "Signals":
        self.before = {number: signal.signal(number, self._keep) for number in self.numbers}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            # The run is over: a request to end that comes late must not turn it into a failure.
            late = handler == signal.SIG_DFL and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if late else handler)


def is_agents_stop(error: BaseException) -> bool:
    """Whether W&B's in-process agent asks to stop: it raises a bare Exception in our thread."""
    return type(error) is Exception and not error.args


def exit_status(number: int) -> int:
    """What the process ends with after this signal: 130, 143, or 75 for "preempted"."""
    return _STATUS.get(signal.Signals(number).name, 128 + number)

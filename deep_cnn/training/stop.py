"""Say why a run should end: signals and other requests, asked for between two steps."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to end a run.

    Attributes:
        signum: The signal that asked, or that the request counts as.
        is_final: Whether the run is over then; otherwise it is interrupted, to be continued.
    """

    signum: int
    is_final: bool = False


class Interrupted(Exception):
    """A run has noticed the request to end; `steps` of the current epoch were done."""

    def __init__(self, request: StopRequest, steps: int = 0) -> None:
        super().__init__(request)
        self.request, self.steps = request, steps


class StopToken:
    """Says why a run should end, by itself or by asking its `sources`.

    It may be set in a signal handler or in another thread.
    """

    def __init__(self, *sources: Callable[[], StopRequest | None]) -> None:
        self._request: StopRequest | None = None
        self._sources = sources

    def set(self, request: StopRequest) -> None:
        """Ask the run to end."""
        self._request = request

    @property
    def reason(self) -> StopRequest | None:
        """The request to end, or None while the run should go on."""
        if self._request is not None:
            return self._request
        return next((request for ask in self._sources if (request := ask()) is not None), None)

    @property
    def signum(self) -> int | None:
        """The signal of the request, or None."""
        request = self.reason
        return request.signum if request else None

    def raise_if_set(self, steps: int = 0) -> None:
        """Raise Interrupted if the run should end, after `steps` of the current epoch."""
        request = self.reason
        if request is not None:
            raise Interrupted(request, steps)

    def final_on_sigterm(self) -> "StopToken":
        """Return a token that takes SIGTERM for a request to stop, as W&B's agent means it."""

        def ask() -> StopRequest | None:
            request = self.reason
            is_final = request is not None and request.signum == signal.SIGTERM
            return StopRequest(signal.SIGTERM, is_final=True) if is_final else request

        return StopToken(ask)


class Signals(StopToken):
    """While open, SIGINT, SIGTERM and SIGUSR1 set the token instead of acting.

    A second SIGINT raises KeyboardInterrupt.
    """

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._request is not None and self._request.signum == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.set(StopRequest(number))

    def __enter__(self) -> "Signals":
        # Windows has no SIGUSR1.
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # The run is over: a request to end that comes late must not turn it into a failure.
            late = handler == signal.SIG_DFL and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if late else handler)

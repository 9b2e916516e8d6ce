"""Define requests to end a run, by signals and other sources, checked between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from deep_cnn.processes import exit_at_once, set_handlers
from deep_cnn.streams import write_at_once


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to end a run.

    Attributes:
        signum: The signal of the request, or the one that the request counts as.
        is_final: Whether the run then counts as over; otherwise it is interrupted and resumable.
    """

    signum: int
    is_final: bool = False


class Interrupted(Exception):
    """Raised when a run ends on request, after `steps` steps of the current epoch."""

    def __init__(self, request: StopRequest, steps: int = 0) -> None:
        super().__init__(request)
        self.request, self.steps = request, steps


class StopToken:
    """A token that holds a request to end a run, or finds one in its `sources`.

    It can be set in a signal handler or in another thread.
    """

    def __init__(self, *sources: Callable[[], StopRequest | None]) -> None:
        self._request: StopRequest | None = None
        self._sources = sources

    def set(self, request: StopRequest) -> None:
        """Ask the run to end."""
        self._request = request

    @property
    def reason(self) -> StopRequest | None:
        """The request to end, or None if the run should continue."""
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
        """Return a token for which SIGTERM is a request to stop for good, as under W&B's agent."""

        def ask() -> StopRequest | None:
            request = self.reason
            is_final = request is not None and request.signum == signal.SIGTERM
            return StopRequest(signal.SIGTERM, is_final=True) if is_final else request

        return StopToken(ask)


class Signals(StopToken):
    """A context in which SIGINT, SIGTERM, SIGHUP and SIGUSR1 only set the token.

    A second SIGINT raises KeyboardInterrupt.
    """

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._request is not None and self._request.signum == signal.SIGINT == number:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            write_at_once("saving and ending ...; Ctrl-C again ends at once")
        self.set(StopRequest(number))

    def __enter__(self) -> "Signals":
        self._before = set_handlers(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # The run is over, so a late request to end must not turn it into a failure.
            late = handler in (signal.SIG_DFL, exit_at_once) and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if late else handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C also raise KeyboardInterrupt in this context, in which nothing is to be saved."""
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(getattr(handler, "__self__", None), Signals):
        yield  # Somebody else decides, in a worker or a notebook.
        return
    assert callable(handler)

    def handle(number: int, frame: FrameType | None) -> None:
        handler(number, frame)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)

"""Show progress: a bar on a terminal, or occasional plain lines otherwise."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO, TypeAlias, TypeVar

from tqdm import tqdm

from deep_cnn.text import LogFormatter

_LOGGER = logging.getLogger("deep_cnn")
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_UPDATES = 0.5
_PLAIN = {"unit": "batch", "ncols": 100, "ascii": True}
_T = TypeVar("_T")
ProgressBar: TypeAlias = "tqdm[Any]"


def progress_bar(title: str, total: int | None, unit: str, **details: Any) -> ProgressBar:
    """Return a bar on stderr, which shows nothing if stderr is not a terminal."""
    plain = not sys.stderr.isatty()
    if not plain and 0 in os.get_terminal_size(sys.stderr.fileno()):
        details |= {"ncols": _PLAIN["ncols"], "nrows": 24}  # A terminal that knows no size.
    return tqdm(total=total, desc=title, unit=unit, file=sys.stderr, disable=plain, **details)


def track(items: Iterable[_T], title: str, total: int) -> Iterator[_T]:
    """Return the items, with a bar that appears after two seconds and is removed at the end."""
    return iter(progress_bar(title, total, "", iterable=items, delay=2, leave=False))


def track_reading(stream: Any, title: str, total: int | None) -> AbstractContextManager[Any]:
    """Return a stream that shows how many of `total` bytes were read."""
    plain = not sys.stderr.isatty()
    wrapped: AbstractContextManager[Any] = tqdm.wrapattr(
        stream, "read", total, desc=title, file=sys.stderr, disable=plain
    )
    return wrapped


def use_thread_lock() -> None:
    """Use a lock of this process only, because a killed worker would leak a shared semaphore."""
    tqdm.set_lock(threading.RLock())


class LogHandler(logging.StreamHandler[TextIO]):
    """Write log records to a stream, above a bar that is displayed there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the bar is removed before and drawn again afterwards."""
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


@contextmanager
def log_on(stream: TextIO) -> Iterator[None]:
    """Write the log to a stream in this context."""
    handler = LogHandler(stream)
    handler.setFormatter(LogFormatter())
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)


class Progress:
    """Show `Epoch 3/20:  17%|...| 255/1500 [00:19<15:28, 1.79batch/s, loss=3.06]` on stderr.

    Where stderr is not a terminal, a line is printed for each percent, but at most two a minute,
    and one at the end.

    Args:
        title: What is done.
        total: The number of batches.
        initial: The number of batches that were done before.
    """

    def __init__(self, title: str, total: int, initial: int = 0) -> None:
        self.title, self.total, self.initial, self.loss = title, total, initial, ""
        self.done = self.printed_done = initial
        self.started = self.printed = self.updated = time.monotonic()
        # Training and validation differ in speed: the time left is from the mean of all batches.
        self.bar = progress_bar(title, total, "batch", initial=initial, smoothing=0)

    def is_due(self) -> bool:
        """Return whether a new loss would be displayed; reading a loss from a GPU takes time."""
        return time.monotonic() - self.updated >= _SECONDS_BETWEEN_UPDATES

    def begin(self, title: str) -> None:
        """Begin another part of the same work: change the title, and forget the loss."""
        self.title, self.loss = title, ""
        self.bar.set_postfix_str("", refresh=False)
        self.bar.set_description(title, refresh=False)

    def step(self, loss: float | None = None) -> None:
        """Count one more batch; a new `loss` replaces the displayed one."""
        self.done += 1
        if loss is not None:
            self.loss, self.updated = f"loss={loss:.3g}", time.monotonic()
            self.bar.set_postfix_str(self.loss, refresh=False)
        self.bar.update()
        if (
            self.bar.disable
            and time.monotonic() - self.printed >= _SECONDS_BETWEEN_LINES
            and self.done - self.printed_done >= self.total / 100
        ):
            self._print()

    def _print(self) -> None:
        self.printed, self.printed_done = time.monotonic(), self.done
        texts = {"prefix": self.title, "postfix": self.loss, "initial": self.initial}
        seconds = self.printed - self.started
        line = tqdm.format_meter(self.done, self.total, seconds, **texts, **_PLAIN)
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        is_plain = self.bar.disable  # Closing it disables it.
        self.bar.close()
        if is_plain and error is None and self.title.startswith("Epoch"):
            self._print()

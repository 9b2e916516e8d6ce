"""Show progress: a bar on a terminal, or occasional plain lines otherwise."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_UPDATES = 0.5
_PLAIN = {"unit": "batch", "ncols": 100, "ascii": True}
_T = TypeVar("_T")
ProgressBar: TypeAlias = "tqdm[Any]"


def progress_bar(title: str, total: int | None, unit: str, **details: Any) -> ProgressBar:
    """Return a bar on stderr, which shows nothing if stderr is not a terminal."""
    plain = not sys.stderr.isatty()
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


class Progress:
    """Show `Epoch 0:  2%|…| 35/1697 [00:19<15:28, 1.79batch/s, loss=3.06]` on stderr."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done, self.loss = title, total, 0, ""
        self.started = time.monotonic()
        self.printed = self.updated = self.started
        self.bar = progress_bar(title, total, "batch")

    def is_due(self) -> bool:
        """Return whether a new loss would be displayed; reading a loss from a GPU takes time."""
        return time.monotonic() - self.updated >= _SECONDS_BETWEEN_UPDATES

    def step(self, loss: float | None = None) -> None:
        """Count one more batch; a new `loss` replaces the displayed one."""
        self.done += 1
        if loss is not None:
            self.loss, self.updated = f"loss={loss:.3g}", time.monotonic()
            self.bar.set_postfix_str(self.loss, refresh=False)
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.printed >= _SECONDS_BETWEEN_LINES:
            self._print()

    def _print(self) -> None:
        self.printed = time.monotonic()
        count, texts = (self.done, self.total), {"prefix": self.title, "postfix": self.loss}
        line = tqdm.format_meter(*count, self.printed - self.started, **texts, **_PLAIN)
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.bar.close()
        if self.bar.disable and error is None and self.title.startswith("Epoch"):
            self._print()

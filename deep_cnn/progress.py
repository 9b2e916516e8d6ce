"""Show how far a pass is: a bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_UPDATES = 0.5


class Progress:
    """`Epoch 0:  2%|…| 35/1697 [00:19<15:28, 1.79batch/s, loss=3.06]` on stderr."""

    def __init__(self, title: str, total: int) -> None:
        self.plain = not sys.stderr.isatty()
        self.title, self.total, self.done, self.loss = title, total, 0, ""
        self.started = time.monotonic()
        self.printed = self.updated = self.started
        self.bar = tqdm(total=total, desc=title, unit="batch", disable=self.plain, file=sys.stderr)

    def due(self) -> bool:
        """Whether a new loss would be shown; reading one from a GPU costs a wait."""
        return time.monotonic() - self.updated >= _SECONDS_BETWEEN_UPDATES

    def step(self, loss: float | None = None) -> None:
        """One more batch is done; `loss` is shown from now on."""
        self.done += 1
        if loss is not None:
            self.loss, self.updated = f"loss={loss:.3g}", time.monotonic()
            self.bar.set_postfix_str(self.loss, refresh=False)
        self.bar.update()
        if self.plain and time.monotonic() - self.printed >= _SECONDS_BETWEEN_LINES:
            self._print()

    def _print(self) -> None:
        self.printed = time.monotonic()
        line = tqdm.format_meter(
            self.done,
            self.total,
            self.printed - self.started,
            prefix=self.title,
            unit="batch",
            postfix=self.loss,
            ncols=100,
            ascii=True,
        )
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()
        if self.plain and error is None and self.title.startswith("Epoch"):
            self._print()

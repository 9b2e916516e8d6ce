"""Log a run to W&B with W&B's client, without ever stopping the run."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from logging.handlers import MemoryHandler
from signal import Signals
from typing import Any

from deep_cnn.errors import OutputError
from deep_cnn.results import EpochRecord, LookAtTest, RunResult, SweepTrial
from deep_cnn.text import LogFormatter
from deep_cnn.tracking import Histogram, RemoteRun, Start, Tracker, TrackingState, Validation
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.base import FOR_USER, WandbRun
from deep_cnn.tracking.journal import Journal, digest_of, summary_of
from deep_cnn.tracking.wandb_client import (
    WandbClient,
    add_checkpoint,
    define_metrics,
    finish,
    upload_command,
)
from deep_cnn.tracking.wandb_media import histogram, pictures_of, tables_of

_LOGGER = logging.getLogger("deep_cnn")


class WandbTracker(Tracker):
    """A tracker that logs config, metrics, pictures, the best checkpoint and the end to W&B.

    If the server cannot be reached, the run is recorded offline. `artifacts` is best or none.
    """

    journal: Journal
    unsynced: tuple[str, ...] = ()
    asked_to_stop = False

    def __init__(
        self,
        access: Access,
        artifacts: str = "none",
        sweep: SweepTrial | None = None,
        remote: RemoteRun | None = None,
        title: str | None = None,
        *,
        media: bool = False,
    ) -> None:
        self.access, self.artifacts, self.media = access, artifacts, media

        def on_stop() -> None:  # A function, because the client copies what a method belongs to.
            self.asked_to_stop = True

        self.client = WandbClient(access, sweep, remote, on_stop, title)
        self.run: Any = None
        self.rows = 0
        # What the next row of the history will contain beside its numbers.
        self.pending: dict[str, Any] = {}
        self.console = _Console()

    @property
    def state(self) -> TrackingState:
        """The id of the run, so that a resumed run is the same run."""
        if self.run is None:
            return TrackingState()
        return TrackingState(WandbRun(self.run.id, self.access.project))

    def start(self, start: Start) -> None:
        """Begin the run, or continue it; raise ConfigError if W&B refuses with --wandb=True."""
        if not self._open(start):
            return
        define_metrics(self.run)
        self.run.summary["state"] = "running"
        if start.parameters is not None:
            self.run.summary["parameters"] = start.parameters
        # What the server has not seen: all of a new run, or what an outage kept from it.
        seen = self.run.starting_step if self.run.resumed else 0
        for record in start.history:
            if record.epoch >= seen:
                self.log(record)
        self.rows = len(start.history)

    def _open(self, start: Start, *, is_test: bool = False) -> bool:
        """Open the run with its journal and its log; return whether there is one."""
        self.files = start.files
        opened = None
        try:
            opened = self.client.open_run(start, is_test=is_test)
        finally:
            self.console.write_to(opened[0] if opened else None)
        if opened is not None:
            self.run, self.journal = opened
        return opened is not None

    def log(self, record: EpochRecord) -> None:
        """Log every column of results/<run>.csv as a row of the history, and send it.

        The step is the epoch, so an epoch that a killed run has logged is not logged twice.
        """
        if self.run is not None:
            self.run.log({**self.pending, **record.row()}, step=record.epoch, commit=True)
            self.pending = {}
            self.rows += 1

    def histograms(self, epoch: int, histograms: Callable[[], Mapping[str, Histogram]]) -> None:
        """Log a histogram of each weight and gradient, as part of the next row."""
        if self.run is not None:
            self.pending |= {name: histogram(one) for name, one in histograms().items()}

    def validated(self, validation: Validation) -> None:
        """Log pictures with truth and prediction, and plots, as part of the next row."""
        if self.run is not None:
            self.pending |= pictures_of(validation)
            if self.media:
                self.pending |= tables_of(validation, self.files.steps("train"))

    def tested(self, start: Start, look: LookAtTest) -> None:
        """Log the test metrics in the summary of the trained run."""
        before = Journal.read(start.files)
        if self._open(start, is_test=True):
            self.run.summary.update(look.values)
            # What training has sent is no more acknowledged than before.
            self._finish(0, {"is_open": before is not None and before.is_open})

    def close(self, result: RunResult) -> None:
        """Log how the run ended, and its best checkpoint."""
        if self.run is None:
            return
        values = summary_of(result)
        acknowledged: dict[str, Any] = {"rows": self.rows, "summary": digest_of(values)}
        # An earlier end may have left a reason or an error.
        summary = {k: v for k, v in values.items() if v is not None or self.run.resumed}
        # If the run ended early, its rows are sent already.
        summary |= {k: v for k, v in self.pending.items() if k in ("examples", "predictions")}
        if self.media and result.environment:
            summary["packages"] = dict(result.environment["packages"])
        self.run.summary.update(summary)
        is_uploaded: Callable[[], bool] | None = None
        if result.signal is not None:
            if result.signal == getattr(Signals, "SIGUSR1", None):
                self.run.mark_preempting()
        elif self.artifacts == "best" and result.best and self.files.best.exists():
            is_uploaded = add_checkpoint(self.run, self.files.best, result)
            acknowledged["artifact"] = digest_of(self.files.best)
        self._finish(result.exit_status, acknowledged, is_uploaded)

    def abandon(self) -> None:
        """Mark a started run as failed."""
        if self.run is not None:
            self._finish(1, {})
        self.console.write_to(None)

    def _finish(
        self,
        status: int,
        acknowledged: Mapping[str, Any],
        is_uploaded: Callable[[], bool] | None = None,
    ) -> None:
        """End the run, and record the fields of the journal that W&B has acknowledged."""
        run, self.run = self.run, None
        self.console.write_to(None)
        upload = upload_command(self.files.out)
        folder = os.path.relpath(run.settings.sync_dir)
        problem = finish(run, status, is_uploaded)
        if run.settings.mode == "offline":
            _LOGGER.info("W&B: kept offline; upload it with: %s", upload, extra=FOR_USER)
        elif problem is None:
            with suppress(OutputError):  # Later, the server says what it has.
                self.journal.closed(**acknowledged).write(self.files)
            return
        else:
            with suppress(OutputError):
                self.journal.opened().write(self.files)
            text = "W&B did not take everything (%s), the files have it; upload the rest with: %s"
            reason = redacted(problem, self.access)
            _LOGGER.warning(text, reason, upload, extra=FOR_USER)
        self.unsynced = (folder,)


class _Console(MemoryHandler):
    """A log handler that writes our records to the log of a run on W&B, with their levels.

    Records that are logged before the run is open wait for it.
    """

    def __init__(self) -> None:
        super().__init__(10_000, flushLevel=logging.CRITICAL + 1)
        self.run: Any = None
        self.setFormatter(LogFormatter("%(levelname)s %(message)s"))
        _LOGGER.addHandler(self)

    def write_to(self, run: Any) -> None:
        """Write what waits, and what follows, to a run; None: end."""
        self.run = run
        waiting, self.buffer = self.buffer, []
        for record in waiting if run else ():
            self.emit(record)
        if run is None:
            _LOGGER.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; a client that fails is ignored, because the log file has the record."""
        if self.run is None:
            super().emit(record)
            return
        with suppress(Exception):
            self.run.write_logs(self.format(record))

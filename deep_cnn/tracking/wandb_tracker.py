"""Log a run to W&B with W&B's client, without ever stopping the run."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from signal import Signals
from typing import Any

from deep_cnn.results import EpochRecord, LookAtTest, RunResult, SweepTrial
from deep_cnn.tracking import (
    Histogram,
    RemoteRun,
    Start,
    Tracker,
    TrackingState,
    Validation,
    is_agents_stop,
)
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.base import FOR_USER, WandbRun
from deep_cnn.tracking.wandb_client import WandbClient, upload_broke_off, upload_checkpoint
from deep_cnn.tracking.wandb_media import (
    example,
    histogram,
    prediction_plot,
    prediction_table,
    step_plot,
)

_LOGGER = logging.getLogger("deep_cnn")
_EXAMPLES = 8


class WandbTracker(Tracker):
    """A tracker that logs config, metrics, pictures, the best checkpoint and the end to W&B.

    If the server cannot be reached, the run is recorded offline. `artifacts` is best or none.
    """

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
        self.client = WandbClient(access, sweep, remote, self._ask_to_stop, title)
        self.run: Any = None
        self.is_complete = True
        # What the next row of the history will contain beside its numbers.
        self.pending: dict[str, Any] = {}

    @property
    def state(self) -> TrackingState:
        """The id of the run, so that a resumed run is the same run."""
        if self.run is None:
            return TrackingState()
        return TrackingState(WandbRun(self.run.id, self.access.project))

    def start(self, start: Start) -> None:
        """Begin the run, or continue it; raise ConfigError if W&B refuses with --wandb=True."""
        self.files = start.files
        self.run = self.client.open_run(start, "train")
        if self.run is None:
            return
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        if start.parameters is not None:
            self.run.summary["parameters"] = start.parameters
        # What the server has not seen: all of a new run, or what an outage kept from it.
        seen = self.run.starting_step if self.run.resumed else 0
        for record in start.history:
            if record.epoch >= seen:
                self.log(record)

    def log(self, record: EpochRecord) -> None:
        """Log every column of results/<run>.csv as a row of the history, and send it.

        The step is the epoch, so an epoch that a killed run has logged is not logged twice.
        """
        if self.run is not None:
            self.run.log({**self.pending, **record.row()}, step=record.epoch, commit=True)
            self.pending = {}

    def histograms(self, epoch: int, histograms: Callable[[], Mapping[str, Histogram]]) -> None:
        """Log a histogram of each weight and gradient, as part of the next row."""
        if self.run is not None:
            self.pending |= {name: histogram(one) for name, one in histograms().items()}

    def validated(self, validation: Validation) -> None:
        """Log pictures with truth and prediction, and plots, as part of the next row."""
        if self.run is None:
            return
        if pictures := [example(one) for one in validation.examples(_EXAMPLES)]:
            self.pending |= {"examples": pictures}
        if self.media:
            self.pending |= {"predictions": prediction_table(validation)}
            self.pending |= prediction_plot(validation)
            with suppress(OSError, ValueError):  # The table of a full disk.
                self.pending |= step_plot(self.files.steps("train"))

    def tested(self, start: Start, look: LookAtTest) -> None:
        """Log the test metrics in the summary of the trained run."""
        self.files = start.files
        self.run = self.client.open_run(start, "test")
        if self.run is not None:
            self.run.summary.update(look.values)
            self._finish(0)

    def close(self, result: RunResult) -> None:
        """Log how the run ended, and its best checkpoint."""
        if self.run is None:
            return
        reason, resumed = result.stop_reason, self.run.resumed
        summary: dict[str, Any] = {"state": str(result.state)}
        if result.best:
            summary |= {f"best_{result.best.metric}": result.best.value}
            summary |= {"best_epoch": result.best.epoch}
        if reason or resumed:  # It may have been stopped before it went on.
            summary["stop_reason"] = asdict(reason) if reason else None
        if result.error or resumed:
            summary["error"] = result.error
        # If the run ended early, its rows are sent already.
        summary |= {k: v for k, v in self.pending.items() if k in ("examples", "predictions")}
        if self.media and result.environment:
            summary["packages"] = dict(result.environment["packages"])
        self.run.summary.update(summary)
        if result.signal is not None:
            if result.signal == getattr(Signals, "SIGUSR1", None):
                self.run.mark_preempting()
        elif self.artifacts == "best" and result.best and self.files.best.exists():
            try:
                self.is_complete &= upload_checkpoint(self.run, self.files.best, result)
            except Exception as error:  # The client's are many kinds; the run must be finished.
                if is_agents_stop(error):
                    raise
                text = redacted(str(error) or type(error).__name__, self.access)
                message = "W&B did not take the checkpoint %s (%s)"
                _LOGGER.warning(message, self.files.best, text, extra=FOR_USER)
                self.is_complete = False
        self._finish(result.exit_status)

    def abandon(self) -> None:
        """Mark a started run as failed."""
        if self.run is not None:
            self._finish(1)

    def _ask_to_stop(self) -> None:
        self.asked_to_stop = True

    def _finish(self, status: int) -> None:
        run, self.run = self.run, None
        folder = Path(run.settings.sync_dir)
        offline = run.settings.mode == "offline"
        try:
            run.finish(exit_code=status)
        except TimeoutError:
            self.is_complete = False
        relative = os.path.relpath(folder)
        if offline:
            text = "W&B: kept offline; upload it with: wandb sync %s"
            _LOGGER.info(text, quote(relative), extra=FOR_USER)
        elif not self.is_complete or upload_broke_off(folder):
            text = (
                "W&B did not take everything, the files have it; upload the rest with:"
                " wandb sync --include-online %s"
            )
            _LOGGER.warning(text, quote(relative), extra=FOR_USER)
        else:
            return
        self.unsynced = (relative,)

"""Pass the numbers of a run to its trackers, one per destination."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

from deep_cnn.config import TrainConfig
from deep_cnn.errors import DeepCnnError
from deep_cnn.results import EpochRecord, LookAtTest, RunResult, SweepTrial, assigned_trial
from deep_cnn.tracking.access import access_of
from deep_cnn.tracking.base import (
    Example,
    Histogram,
    Inputs,
    RemoteRun,
    Start,
    Tracker,
    TrackingState,
    Validation,
    is_agents_stop,
)
from deep_cnn.tracking.files import FileTracker, log_to

__all__ = [
    "Example", "Fanout", "FileTracker", "Histogram", "Inputs", "RemoteRun", "Start", "Tracker",
    "TrackingState", "Validation", "is_agents_stop", "open_tracker",
]  # fmt: skip
_LOGGER = logging.getLogger("deep_cnn")


def open_tracker(
    config: TrainConfig,
    sweep: SweepTrial | None = None,
    remote: RemoteRun | None = None,
    title: str | None = None,
) -> "Fanout":
    """Return the trackers for `config` and the environment; the file logger is always included.

    Args:
        config: The configuration of the run.
        sweep: The sweep that the run belongs to.
        remote: The run on W&B's server, if the server created it and our own agent received it.
        title: What W&B displays instead of the run's name.

    Raises:
        ConfigError: --wandb=True was set and W&B cannot be used.
    """
    files = FileTracker()  # First: it keeps what is logged from here on.
    others: list[Tracker] = []
    is_single = sweep is None and remote is None and assigned_trial() is None
    access = access_of(config.wandb, os.environ)
    if access is not None:
        from deep_cnn.tracking.wandb_tracker import WandbTracker  # Its client is slow to import.

        artifacts = config.wandb_artifacts or ("none" if sweep else "best")
        media = is_single if config.wandb_media is None else config.wandb_media
        others.append(WandbTracker(access, artifacts, sweep, remote, title, media=media))
    if is_single if config.tensorboard is None else config.tensorboard:
        from deep_cnn.tracking.tensorboard_tracker import TensorBoardTracker

        others.append(TensorBoardTracker(full=bool(config.tensorboard)))
    return Fanout(files, *others)


class Fanout(Tracker):
    """A group of trackers; if one other than `files` raises, it is dropped with a warning."""

    def __init__(self, files: FileTracker, *others: Tracker) -> None:
        self.files, self.others = files, list(others)

    def start(self, start: Start) -> None:
        """Begin a run; files come last, so that no file is left if another tracker refuses."""
        self._for_each(lambda tracker: tracker.start(start))
        self.files.start(start)

    def log(self, record: EpochRecord) -> None:
        """Log an epoch that is over."""
        self.files.log(record)
        self._for_each(lambda tracker: tracker.log(record))

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """Log the loss of each step."""
        self.files.log_steps(split, epoch, losses)
        self._for_each(lambda tracker: tracker.log_steps(split, epoch, losses))

    def inputs(self, inputs: Inputs) -> None:
        """Log the network and the first pictures."""
        self._for_each(lambda tracker: tracker.inputs(inputs))

    def histograms(self, epoch: int, histograms: Callable[[], Mapping[str, Histogram]]) -> None:
        """Log weights and gradients, which are counted once for all trackers."""
        once = cache(histograms)
        self._for_each(lambda tracker: tracker.histograms(epoch, once))

    def validated(self, validation: Validation) -> None:
        """Log predictions."""
        self._for_each(lambda tracker: tracker.validated(validation))

    def tested(self, start: Start, look: LookAtTest) -> None:
        """Log the metrics of the test split."""
        with log_to(start.files.log):
            self._for_each(lambda tracker: tracker.tested(start, look))

    def close(self, result: RunResult) -> None:
        """End the run; files come first, because a slow upload may be killed."""
        unsynced = self.unsynced
        self.files.close(replace(result, unsynced=unsynced))
        with log_to(self.files.files.log):
            self._for_each(lambda tracker: tracker.close(result))
        if self.unsynced != unsynced:
            self.files.close(replace(result, unsynced=self.unsynced))

    def abandon(self) -> None:
        """End a run that failed without a result."""
        self._for_each(lambda tracker: tracker.abandon())
        self.files.abandon()

    @property
    def state(self) -> TrackingState:
        """The state of the trackers for a checkpoint."""
        states = (tracker.state for tracker in self.others)
        return next((state for state in states if state.wandb), TrackingState())

    @property
    def unsynced(self) -> tuple[str, ...]:
        """The folders that the trackers have not uploaded."""
        folders = [folder for tracker in (self.files, *self.others) for folder in tracker.unsynced]
        return tuple(dict.fromkeys(folders))

    @property
    def asked_to_stop(self) -> bool:
        """Whether any of the trackers was asked to stop the run."""
        return any(tracker.asked_to_stop for tracker in self.others)

    def _for_each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.others):
            try:
                call(tracker)
            except DeepCnnError:
                raise
            except Exception as error:
                if is_agents_stop(error):
                    raise
                name = type(tracker).__name__
                text = " ".join(f"{type(error).__name__}: {error}".split())
                _LOGGER.warning("%s failed, the files have everything (%s)", name, text)
                self.others.remove(tracker)
                with suppress(Exception):  # Or the next run of this process would find it open.
                    tracker.abandon()

"""Pass a run on to several trackers; those beside the file logger may fail without harm."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from deep_cnn.errors import DeepCnnError
from deep_cnn.results import EpochRecord, RunResult
from deep_cnn.tracking.base import Example, Start, Tracker, TrackingState, is_agents_stop
from deep_cnn.tracking.files import FileTracker, log_to

_LOGGER = logging.getLogger("deep_cnn")


class Fanout(Tracker):
    """`files` must work; another tracker that raises is named in a warning and dropped."""

    def __init__(self, files: FileTracker, *others: Tracker) -> None:
        self.files, self.others = files, list(others)

    def start(self, start: Start) -> None:
        """Begin a run; the others first, so that what they refuse leaves no file behind."""
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

    def images(self, epoch: int, examples: Callable[[], Sequence[Example]]) -> None:
        """Log some pictures."""
        self._for_each(lambda tracker: tracker.images(epoch, examples))

    def tested(self, start: Start, metrics: Mapping[str, float]) -> None:
        """Log the metrics of the test split."""
        with log_to(start.files.log):
            self._for_each(lambda tracker: tracker.tested(start, metrics))

    def close(self, result: RunResult) -> None:
        """End the run; the files first, because a slow upload may be killed."""
        unsynced = self.unsynced
        self.files.close(replace(result, unsynced=unsynced))
        with log_to(self.files.files.log):
            self._for_each(lambda tracker: tracker.close(result))
        if self.unsynced != unsynced:
            self.files.close(replace(result, unsynced=self.unsynced))

    def abandon(self) -> None:
        """End a run that broke off."""
        self._for_each(lambda tracker: tracker.abandon())
        self.files.abandon()

    @property
    def state(self) -> TrackingState:
        """What all of them need in a checkpoint."""
        states = [tracker.state for tracker in self.others]
        return TrackingState(next((state.wandb for state in states if state.wandb), None))

    @property
    def unsynced(self) -> tuple[str, ...]:
        """The folders that any of them has not uploaded."""
        folders = [folder for tracker in (self.files, *self.others) for folder in tracker.unsynced]
        return tuple(dict.fromkeys(folders))

    @property
    def asked_to_stop(self) -> bool:
        """Whether any of them was asked."""
        return any(tracker.asked_to_stop for tracker in self.others)

    def _for_each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self.others):
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

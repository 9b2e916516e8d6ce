"""Tell several trackers; those beside the first may fail without the run noticing."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from deep_cnn.errors import DeepCnnError
from deep_cnn.runs import EpochRecord, RunResult
from deep_cnn.signals import is_agents_stop
from deep_cnn.tracking.base import Shown, Start, Tracker
from deep_cnn.tracking.files import FileTracker, log_to

_LOGGER = logging.getLogger("deep_cnn")


class Fanout(Tracker):
    """`files` must work; of the others one that raises is named in a warning and told no more."""

    def __init__(self, files: FileTracker, *others: Tracker) -> None:
        self.files, self.others = files, list(others)

    def start(self, start: Start) -> None:
        """The others first: what they refuse is said before a file is there."""
        self._tell(lambda tracker: tracker.start(start))
        self.files.start(start)

    def log(self, record: EpochRecord) -> None:
        """An epoch is over."""
        self.files.log(record)
        self._tell(lambda tracker: tracker.log(record))

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """The loss of each step."""
        self.files.log_steps(split, epoch, losses)
        self._tell(lambda tracker: tracker.log_steps(split, epoch, losses))

    def images(self, epoch: int, show: Callable[[], Sequence[Shown]]) -> None:
        """Some pictures can be had."""
        self._tell(lambda tracker: tracker.images(epoch, show))

    def tested(self, start: Start, metrics: Mapping[str, float]) -> None:
        """The run was evaluated on its test split."""
        with log_to(start.files.log):
            self._tell(lambda tracker: tracker.tested(start, metrics))

    def close(self, result: RunResult) -> None:
        """The files first: a slow upload that is killed must not cost the result."""
        self.files.close(result)
        with log_to(self.files.files.log):
            self._tell(lambda tracker: tracker.close(result))

    def abandon(self) -> None:
        """The run breaks off."""
        self._tell(lambda tracker: tracker.abandon())
        self.files.abandon()

    @property
    def kept(self) -> Mapping[str, Any]:
        """What all of them want kept."""
        return {name: value for tracker in self.others for name, value in tracker.kept.items()}

    @property
    def asked_to_stop(self) -> bool:
        """Whether any of them was asked."""
        return any(tracker.asked_to_stop for tracker in self.others)

    def _tell(self, call: Callable[[Tracker], None]) -> None:
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

"""What every tracker can be told; the base class does nothing with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from deep_cnn.runs import EpochRecord, RunFiles, RunResult


class Tracker:
    """Told of a run as it goes: start, then log and log_steps an epoch, then close or abandon.

    Keeps nothing; the others override what they keep.
    """

    def start(
        self, files: RunFiles, flags: Mapping[str, Any], history: Sequence[EpochRecord]
    ) -> None:
        """The run begins, or goes on after `history`; `flags` are all its arguments."""

    def log(self, record: EpochRecord) -> None:
        """An epoch is over."""

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """The loss of each step of an epoch over `split`, in order."""

    def close(self, result: RunResult) -> None:
        """The run is over."""

    def abandon(self) -> None:
        """The run breaks off with an error that the user can mend, and has no result."""

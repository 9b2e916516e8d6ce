"""What every tracker can be told; the base class does nothing with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deep_cnn.runs import EpochRecord, RunFiles, RunResult

if TYPE_CHECKING:  # Who only asks whether W&B is used need not wait for it.
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Start:
    """A run as it begins, or goes on after `history`.

    `flags` are all its arguments, `kept` what `Tracker.kept` said when the checkpoint was written
    that it goes on from, `parameters` the numbers that the network has.
    """

    files: RunFiles
    flags: Mapping[str, Any]
    history: Sequence[EpochRecord] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture with what is true of it and what was predicted."""

    image: "Image.Image"
    truth: Any
    prediction: Any


class Tracker:
    """Told of a run as it goes: start, then log and log_steps an epoch, then close or abandon.

    Keeps nothing; the others override what they keep.
    """

    def start(self, start: Start) -> None:
        """The run begins, or goes on."""

    def log(self, record: EpochRecord) -> None:
        """An epoch is over."""

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """The loss of each step of an epoch over `split`, in order."""

    def images(self, epoch: int, show: Callable[[], Sequence[Shown]]) -> None:
        """Some pictures can be had from `show`, as the network saw them in `epoch`."""

    def tested(self, start: Start, metrics: Mapping[str, float]) -> None:
        """The run that `start` describes was evaluated on its test split."""

    def close(self, result: RunResult) -> None:
        """The run is over."""

    def abandon(self) -> None:
        """The run breaks off with an error that the user can mend, and has no result."""

    @property
    def kept(self) -> Mapping[str, Any]:
        """What a checkpoint must keep for this tracker to go on with the same run; plain values."""
        return {}

    @property
    def asked_to_stop(self) -> bool:
        """Whether whoever follows the run from afar has asked it to end."""
        return False

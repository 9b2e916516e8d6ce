"""Define what trackers receive from a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deep_cnn.files import RunFiles
from deep_cnn.results import EpochRecord, RunResult

if TYPE_CHECKING:  # Whoever only asks whether W&B is used need not wait for it.
    from PIL import Image

# Marks log records that the user of an agent must see, who does not see the logs of its workers.
FOR_USER = {"for_user": True}


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """A run that W&B's server has made, for a process that it did not start.

    Attributes:
        sweep_id: The sweep that assigned the run.
        run_id: The run.
        entity: The user or team that owns the sweep.
        project: The project of the sweep.
        arguments: The parameters as the server chose them.
    """

    sweep_id: str
    run_id: str
    entity: str | None
    project: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WandbRun:
    """A run of W&B, by its id."""

    id: str
    project: str


@dataclass(frozen=True, slots=True)
class TrackingState:
    """What trackers need to continue the same run; it is part of a checkpoint."""

    wandb: WandbRun | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without what is None."""
        return {"wandb": asdict(self.wandb)} if self.wandb else {}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "TrackingState":
        """Return the state that `to_dict` wrote."""
        return cls(WandbRun(**content["wandb"]) if content.get("wandb") else None)


@dataclass(frozen=True, slots=True)
class Start:
    """A run as it begins or continues.

    Attributes:
        files: Its files.
        options: Every option with its value.
        history: The epochs before.
        state: The state of trackers in the checkpoint that the run continues from.
        parameters: How many parameters the network has, or None.
    """

    files: RunFiles
    options: Mapping[str, Any]
    history: Sequence[EpochRecord] = ()
    state: TrackingState = TrackingState()
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A picture with its target and what was predicted."""

    image: "Image.Image"
    truth: Any
    prediction: Any


class Tracker:
    """Receives a run: start, then log and log_steps in each epoch, then close or abandon.

    This base class ignores everything; subclasses override what they need.
    """

    def start(self, start: Start) -> None:
        """Begin a run, or continue it."""

    def log(self, record: EpochRecord) -> None:
        """Log an epoch that is over."""

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """Log the loss of each step of an epoch over `split`, in order."""

    def images(self, epoch: int, examples: Callable[[], Sequence[Example]]) -> None:
        """Log some pictures; `examples` returns them, as the network saw them in `epoch`."""

    def tested(self, start: Start, metrics: Mapping[str, float]) -> None:
        """Log the metrics of the test split of the run that `start` describes."""

    def close(self, result: RunResult) -> None:
        """Log how the run ended."""

    def abandon(self) -> None:
        """End a run that broke off with an error of its user, and has no result."""

    @property
    def state(self) -> TrackingState:
        """What a checkpoint must contain so that this tracker can continue the same run."""
        return TrackingState()

    @property
    def unsynced(self) -> tuple[str, ...]:
        """The folders of W&B that were not uploaded, once the run is closed."""
        return ()

    @property
    def asked_to_stop(self) -> bool:
        """Whether the run was asked to stop from elsewhere, such as on its page."""
        return False


def is_agents_stop(error: BaseException) -> bool:
    """Return whether W&B's agent asks to stop: in-process, it raises a bare Exception."""
    return type(error) is Exception and not error.args

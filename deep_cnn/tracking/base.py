"""Define the base class of trackers, and what they receive from a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deep_cnn.files import RunFiles
from deep_cnn.results import EpochRecord, LookAtTest, RunResult

if TYPE_CHECKING:  # Whoever only asks whether W&B is used need not wait for it.
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# Marks log records that the user of an agent must see, who does not see the logs of its workers.
FOR_USER = {"for_user": True}


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """A run that W&B's server has created, for a process that it has not started.

    Attributes:
        sweep_id: The id of the sweep.
        run_id: The id of the run.
        entity: The user or team that owns the sweep.
        project: The project of the sweep.
        arguments: The parameters that the server chose.
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
    """The state with which trackers continue the same run; part of a checkpoint."""

    wandb: WandbRun | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without those that are None."""
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
        history: The earlier epochs.
        state: The trackers' state in the checkpoint from which the run continues.
        is_continued: Whether it goes on in the files of an earlier run of the same name.
        parameters: How many parameters the network has, or None.
    """

    files: RunFiles
    options: Mapping[str, Any]
    history: Sequence[EpochRecord] = ()
    state: TrackingState = TrackingState()
    is_continued: bool = False
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A picture with its target and its prediction; `index` is its number in the split."""

    image: "Image.Image"
    truth: Any
    prediction: Any
    index: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """What the network of an epoch predicts for the N validation pictures.

    Attributes:
        epoch: The epoch.
        truths, predictions: Scores or names of classes, (N,).
        classes: The names of all classes, or None for scores.
        examples: Returns at most this many of the pictures, spread over the targets.
        features: Returns the features of the pictures with these indices, (n, F) float32.
    """

    epoch: int
    truths: Sequence[Any]
    predictions: Sequence[Any]
    classes: Sequence[str] | None
    examples: Callable[[int], Sequence[Example]]
    features: "Callable[[Sequence[int]], NDArray[np.float32]]"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The network of a run and the pictures that it sees first.

    Attributes:
        network: The network, a torch.nn.Module.
        shape: The shape of a picture, (C, H, W); its values are uint8.
        first_batch: Returns pictures of the first batch, augmented and before normalisation,
            at most `count`: (B, C, H, W) uint8.
    """

    network: Any
    shape: tuple[int, int, int]
    first_batch: "Callable[[int], NDArray[np.uint8]]"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the finite numbers of an array are distributed over bins of equal width.

    Attributes:
        counts: The number of values in each of B bins.
        edges: The B + 1 limits of the bins.
        total, squares: The sum of the values, and of their squares.
    """

    counts: Sequence[int]
    edges: Sequence[float]
    total: float
    squares: float


class Tracker:
    """A tracker of a run: start, then log and log_steps in each epoch, then close or abandon.

    This base class ignores everything. Subclasses override the methods that they need.
    """

    def start(self, start: Start) -> None:
        """Begin a run, or continue it."""

    def log(self, record: EpochRecord) -> None:
        """Log an epoch that is over."""

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """Log the loss of each step of an epoch over `split`, in order."""

    def inputs(self, inputs: Inputs) -> None:
        """Log the network and the first pictures, before the first epoch."""

    def histograms(self, epoch: int, histograms: Callable[[], Mapping[str, Histogram]]) -> None:
        """Log the weights and gradients at the end of `epoch`, as --histograms asks for."""

    def validated(self, validation: Validation) -> None:
        """Log predictions, before `log` of the last epoch, or once the run has ended early."""

    def tested(self, start: Start, look: LookAtTest) -> None:
        """Log the first look at the test split of the run that `start` describes."""

    def close(self, result: RunResult) -> None:
        """Log how the run ended."""

    def abandon(self) -> None:
        """End a run that failed with a user error and has no result."""

    @property
    def state(self) -> TrackingState:
        """The state that a checkpoint must contain so that this tracker can continue the run."""
        return TrackingState()

    @property
    def unsynced(self) -> tuple[str, ...]:
        """The folders of W&B that are not uploaded completely; set once the run is closed."""
        return ()

    @property
    def asked_to_stop(self) -> bool:
        """Whether the tracker was asked to stop the run, for instance on its web page."""
        return False


def is_agents_stop(error: BaseException) -> bool:
    """Return whether W&B's agent asks to stop; in-process, it raises a bare Exception."""
    return type(error) is Exception and not error.args

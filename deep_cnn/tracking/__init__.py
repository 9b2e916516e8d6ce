"""Where the numbers of a run go: one protocol, one file for each place."""

from deep_cnn.config import TrainConfig
from deep_cnn.results import SweepTrial
from deep_cnn.tracking.access import find_access
from deep_cnn.tracking.base import (
    FOR_USER,
    Example,
    RemoteRun,
    Start,
    Tracker,
    TrackingState,
    is_agents_stop,
)
from deep_cnn.tracking.fanout import Fanout
from deep_cnn.tracking.files import FileTracker

__all__ = [
    "FOR_USER",
    "Example",
    "FileTracker",
    "RemoteRun",
    "Start",
    "Tracker",
    "TrackingState",
    "is_agents_stop",
    "open_tracker",
]


def open_tracker(
    config: TrainConfig, sweep: SweepTrial | None = None, remote: RemoteRun | None = None
) -> Tracker:
    """Return the trackers that `config` and the environment ask for, always with the file logger.

    Args:
        config: The configuration of the run.
        sweep: The sweep that the run belongs to.
        remote: The run on W&B's server, if the server made it and our own agent received it.

    Raises:
        ConfigError: --wandb=True was set and W&B cannot be used.
    """
    files = FileTracker()
    access = find_access(config)
    if access is None:
        return Fanout(files)
    from deep_cnn.tracking.wandb_tracker import WandbTracker  # Its client takes a while to import.

    artifacts = config.wandb_artifacts or ("none" if sweep else "best")
    return Fanout(files, WandbTracker(access, artifacts, sweep, remote))

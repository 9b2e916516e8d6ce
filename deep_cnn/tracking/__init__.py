"""Where the numbers of a run go: one protocol, one file for each place."""

from collections.abc import Mapping
from typing import Any

from deep_cnn.config import TrainConfig
from deep_cnn.tracking.access import find_access
from deep_cnn.tracking.base import Shown, Start, Tracker
from deep_cnn.tracking.fanout import Fanout
from deep_cnn.tracking.files import FileTracker

__all__ = ["FileTracker", "Shown", "Start", "Tracker", "open_tracker"]


def open_tracker(
    config: TrainConfig,
    sweep: Mapping[str, Any] | None = None,
    remote: Mapping[str, Any] | None = None,
) -> Tracker:
    """The trackers that `config` and the environment ask for; the file logger is always there.

    `sweep` is `{name, trial}`; `remote` the settings of a run that W&B's server made, where its
    agent runs in this process. ConfigError where --wandb=True was said and W&B cannot be used.
    """
    files = FileTracker()
    access = find_access(config)
    if access is None:
        return Fanout(files)
    from deep_cnn.tracking.wandb_tracker import WandbTracker  # Its client takes a while to import.

    artifacts = config.wandb_artifacts or ("none" if sweep else "best")
    return Fanout(files, WandbTracker(access, artifacts, sweep, remote))

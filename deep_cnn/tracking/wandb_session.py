"""Note and end the runs of W&B that a function of the user opens in this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import wandb

_LOGGER = logging.getLogger("deep_cnn")


@contextmanager
def noted_folders() -> Iterator[None]:
    """Log the folder of each run that is opened with `wandb.init`, as the client prints it."""
    init = wandb.init

    @wraps(init)
    def noting(*args: Any, **settings: Any) -> Any:
        run = init(*args, **settings)
        _LOGGER.info("Run data is saved locally in %s", run.settings.sync_dir)
        return run

    wandb.init = noting
    try:
        yield
    finally:
        wandb.init = init


def end_session(status: int = 0) -> None:
    """End the run that a function has left open, and forget the client's settings, if any."""
    if wandb.run is not None:
        wandb.finish(exit_code=status)
    wandb.teardown(exit_code=status)

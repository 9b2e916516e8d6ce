"""Fine-tune pretrained networks for perception scores, and search their hyperparameters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deep_cnn.config import TrainConfig
    from deep_cnn.errors import DeepCnnError
    from deep_cnn.inference.predict import load
    from deep_cnn.sweep.functions import agent
    from deep_cnn.tracking import FileTracker
    from deep_cnn.training.checkpoint import resumed_config
    from deep_cnn.training.evaluate import test
    from deep_cnn.training.fit import fit

__version__ = "0.2.0"
__all__ = [
    "DeepCnnError",
    "FileTracker",
    "TrainConfig",
    "agent",
    "fit",
    "load",
    "resumed_config",
    "test",
]


_HOMES = {
    "DeepCnnError": "deep_cnn.errors",
    "FileTracker": "deep_cnn.tracking",
    "TrainConfig": "deep_cnn.config",
    "agent": "deep_cnn.sweep.functions",
    "fit": "deep_cnn.training.fit",
    "load": "deep_cnn.inference.predict",
    "resumed_config": "deep_cnn.training.checkpoint",
    "test": "deep_cnn.training.evaluate",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `python -m deep_cnn` can handle no signal before this file
    # is imported.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'deep_cnn' has no attribute {name!r}")

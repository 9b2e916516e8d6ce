"""Open the trained network in a checkpoint, without its data."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.config import TrainConfig
from deep_cnn.errors import CheckpointError, ConfigError
from deep_cnn.files import RunFiles, safe_name
from deep_cnn.models import Network
from deep_cnn.names import TASKS, ClassificationOptions
from deep_cnn.options import is_code
from deep_cnn.source import read_source, require_named, require_same
from deep_cnn.training.checkpoint import Checkpoint, load_checkpoint
from deep_cnn.training.session import Session, open_session
from deep_cnn.training.stop import StopToken

_PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network: its checkpoint, without tensors, and a session without data.

    Attributes:
        digest: The SHA-256 of the file of the checkpoint.
        network: The network with the weights for evaluation, in evaluation mode.
    """

    path: Path
    digest: str
    checkpoint: Checkpoint
    session: Session
    network: Network

    @property
    def score(self) -> str:
        """The name of the score, or "" for classes."""
        is_score = "classes" not in self.session.labels
        return str(self.session.config.options.get("study", "score")) if is_score else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, none for a score."""
        return tuple(self.session.labels.get("classes", ()))

    @property
    def splits(self) -> Path | None:
        """The file with the pictures of each split of its run, which need not exist."""
        name = self.checkpoint.run_name
        if safe_name(name) != name:
            return None
        return RunFiles(self.path.resolve().parent.parent, name).splits

    def values(self, outputs: Tensor) -> NDArray[np.float64]:
        """Return scores, (N, 1), or probabilities of the classes, (N, C), for outputs, (N, C)."""
        if self.classes:
            probabilities: NDArray[np.float64] = outputs.double().softmax(1).cpu().numpy()
            return probabilities
        return self.session.task.predictions(outputs, self.session.labels)[:, None]


def open_trained(
    path: Path, device: str = "auto", amp: str | None = None, model: str | None = None
) -> Trained:
    """Return the network in a checkpoint; raise CheckpointError if it is not usable.

    `amp` overrides the precision with which it was trained. `model` names the classes of the user,
    separated by commas, one of which must be that of the checkpoint, if it has one. The data are
    not needed.
    """
    checkpoint = load_checkpoint(path)
    options = {**checkpoint.config, "device": device, "test_net": str(path), "resume": None}
    if not all(isinstance(value, _PLAIN) for value in options.values()):
        raise CheckpointError(f"{path} has options that are no plain values; take another one")
    if options.get("task") not in TASKS:
        raise CheckpointError(f"{path} is of no task of deep_cnn; take another checkpoint")
    if model and is_code(options.get("model")):
        options["model"] = _choose_code(path, checkpoint, model)
    try:
        config = TrainConfig.parse({**options, "amp": amp or options.get("amp")})
    except ConfigError as error:
        raise CheckpointError(f"{path} has an option that is not legal: {error}") from None
    require_named(path, config, ["model"] if model else [])
    _check_labels(path, checkpoint)
    # What only training needs would take three times the memory.
    checkpoint = replace(checkpoint, optimizer=None, learning=None, scaler=None)
    session = open_session(config, (), StopToken(), checkpoint)
    session.restore(checkpoint, path)
    network = session.stepper.ema_model.eval()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise CheckpointError(f"{path} has a nan or an infinity in its weights; take another one")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Trained(path, digest, replace(checkpoint, state_dict={}), session, network)


def _choose_code(path: Path, checkpoint: Checkpoint, named: str) -> str:
    """Return the one of the classes `named` that a checkpoint was trained with."""
    for text in named.split(",")[:-1]:
        if read_source("model", text).digest == (checkpoint.code or {}).get("model"):
            return text
    text = named.rpartition(",")[2]
    require_same(path, "model", text, checkpoint.code)
    return text


def _check_labels(path: Path, checkpoint: Checkpoint) -> None:
    labels, classes = checkpoint.labels, checkpoint.labels.get("classes")
    if issubclass(TASKS[checkpoint.config["task"]], ClassificationOptions):
        valid = isinstance(classes, list | tuple) and set(map(type, classes)) == {str}
    else:
        scale = [labels.get("mean"), labels.get("std")]
        valid = all(isinstance(each, int | float) and math.isfinite(each) for each in scale)
        valid = valid and labels["std"] > 0 and classes is None
    if not valid:
        raise CheckpointError(
            f"{path} has no scale of scores and no class names that are usable; it is damaged or"
            " was changed, take another checkpoint"
        )

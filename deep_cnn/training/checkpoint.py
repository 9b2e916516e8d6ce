"""Save and load all that resumes a run; files are always complete, and hold only data."""

import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import CheckpointError
from deep_cnn.files import RunFiles, write_whole
from deep_cnn.models.lenet import is_lenet_v1
from deep_cnn.names import EARLIER_MODELS
from deep_cnn.options import is_code
from deep_cnn.resolve import resolve
from deep_cnn.results import Best, EpochRecord
from deep_cnn.source import require_named, require_same
from deep_cnn.tasks import Labels
from deep_cnn.tracking import TrackingState

VERSION = 1
# A checkpoint takes about 30 ms, so several very short epochs share one.
_SECONDS_BETWEEN = 1.0
# Options that may differ between a checkpoint and the run that resumes it.
_FREE_ON_RESUME = ("epochs", "patience", "data_dir", "scores", "keep", "strict_data")
Weights = dict[str, Tensor]
# The state of an optimizer or a random generator: only the library that made it reads it.
StateDict = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of a run after `epoch` epochs, as stored in models/<run>.pt.

    Attributes:
        run_name: The name of the run that wrote it.
        config: Every option with its value; folders are absolute.
        epoch: The number of the next epoch.
        state_dict: The weights for evaluation.
        learning: The weights from which training continues, if they differ (--ema).
        dataset: A digest of all pictures and targets, whatever their split.
        code: Digests of the sources of the user's network and schedule, by option.
        schedule: The state of the user's schedule, if it has one.
        optimizer, scaler: States of the optimizer and of the gradient scaler.
        random: States of every global random generator.
        threads: The number of threads of torch; another number may change the last digits.
        labels: A scale, or the class names.
        input: The preprocessing, and the pictures that the network expects.
        data: A digest of the pictures and their targets.
        history: The epochs so far.
        best: The best of them.
        seconds: How long the run has taken.
        tracking: The state with which trackers continue the same run.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    run_name: str
    config: dict[str, Any]
    epoch: int
    state_dict: Weights
    optimizer: StateDict | None
    random: StateDict
    threads: int
    labels: Labels
    input: dict[str, Any]
    data: str
    history: tuple[EpochRecord, ...]
    best: Best | None
    seconds: float
    tracking: TrackingState
    scaler: StateDict | None = None
    learning: Weights | None = None
    dataset: str | None = None
    code: dict[str, str] | None = None
    schedule: StateDict | None = None


# Only for checks: what torch has saved is used as it is.
_TYPES = TypeAdapter(Checkpoint)
_FIELDS = [field.name for field in fields(Checkpoint)]
_REQUIRED = {"version", *_FIELDS} - {"scaler", "learning", "dataset", "code", "schedule"}
_DAMAGED = (
    "is damaged or no checkpoint at all; take the .best.pt or .pt beside it, or start the run again"
)
_UNREADABLE: Mapping[type[Exception], str] = {
    FileNotFoundError: "does not exist; checkpoints are in <out_dir>/models",
    IsADirectoryError: "is a folder; name a .pt file in it",
    PermissionError: "cannot be read; ask for permission",
}


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, make_folder: bool = True) -> None:
    """Write a checkpoint as a whole file; raise OutputError if that fails."""
    content = {name: getattr(checkpoint, name) for name in _FIELDS}
    content["history"] = [asdict(record) for record in checkpoint.history]
    content["best"] = asdict(checkpoint.best) if checkpoint.best else None
    content["tracking"] = checkpoint.tracking.to_dict()
    content = {k: v for k, v in content.items() if v is not None or k in _REQUIRED}

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save({**content, "version": VERSION}, file)
            file.flush()
            os.fsync(file.fileno())  # A rename may outlive the bytes when the power fails.

    write_whole(path, save, make_folder=make_folder)


def load_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint of deep_cnn; raise CheckpointError for anything else."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # A pipe would block.
            raise BadZipFile
        with ZipFile(path) as file:  # torch does not compare the checksums.
            # torch compresses nothing, and what is compressed may be larger than the memory.
            is_packed = any(entry.compress_type for entry in file.infolist())
            if is_packed or file.testzip() is not None:
                raise BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged bytes make the reader raise many kinds of errors.
        raise CheckpointError(f"{path} {_UNREADABLE.get(type(error), _DAMAGED)}") from error
    content = content if isinstance(content, dict) else {}
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer deep_cnn (format {version}, this one reads {VERSION});"
            " update deep_cnn"
        )
    missing = sorted(_REQUIRED - content.keys())
    if missing:
        raise CheckpointError(
            f"{path} is no checkpoint of deep_cnn (it has no {missing[0]});"
            " for weights alone use --weights=FILE"
        )
    try:
        _TYPES.validate_python(content)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"][:3]))
        raise CheckpointError(f"{path} ({field} has a wrong value) {_DAMAGED}") from None
    config = content["config"]
    if config.get("model") == "lenet" and is_lenet_v1(content["state_dict"]):
        content["config"] = {**config, "model": "lenet_v1"}
    try:
        content["history"] = tuple(EpochRecord(**row) for row in content["history"])
        content["best"] = Best(**content["best"]) if content["best"] else None
        content["tracking"] = TrackingState.from_dict(content["tracking"])
    except TypeError as error:
        raise CheckpointError(f"{path} ({error}) {_DAMAGED}") from None
    return Checkpoint(**{name: content[name] for name in _FIELDS if name in content})


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint can be read."""
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


def drop_optimizer(path: Path) -> None:
    """Rewrite a checkpoint without what only resuming needs, if it exists; raise OutputError."""
    if path.exists():
        checkpoint = replace(load_checkpoint(path), optimizer=None, learning=None, schedule=None)
        save_checkpoint(path, checkpoint, make_folder=False)


def resumed_config(path: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration in the checkpoint `path`, with these options changed.

    Results go to the folder of the checkpoint, unless --out_dir is among `changes`. Raises
    CheckpointError if the file is not a checkpoint, or only it names code of the user, ConfigError
    if an option is not legal.
    """
    folder = path.resolve().parent
    out = {"out_dir": str(folder.parent)} if folder.name == "models" else {}
    before = load_checkpoint(path).config
    if changes.get("model") == EARLIER_MODELS.get(str(before.get("model")), ""):
        changes = {**changes, "model": before["model"]}
    if before.get("task") == "folders":  # Earlier versions had val/ as the test split at all times.
        before = {"test_folder": all_options("folders")["test_folder"].default, **before}
    config = TrainConfig.parse({**before, **out, **changes})
    require_named(path, config, changes.keys())
    return resolve(config)


def load_resumable(path: Path, config: TrainConfig) -> Checkpoint:
    """Return the checkpoint `path`; its options must equal `config`, unless they may change.

    Raises CheckpointError.
    """
    checkpoint, options = load_checkpoint(path), all_options(config.task)
    if config.resume and not config.test_net and checkpoint.optimizer is None:
        raise CheckpointError(
            f"{path} is of a trial that is over, and has no optimizer state; begin a new run with"
            f" --weights={path}"
        )
    if config.resume and config.epochs < checkpoint.epoch:
        raise CheckpointError(
            f"--epochs={config.epochs}: {checkpoint.epoch} epochs are done already; give more"
        )
    for name, value in config.to_dict().items():
        is_free = name in _FREE_ON_RESUME or not options[name].affects_result
        before = checkpoint.config.get(name, options[name].default)
        is_earlier = name == "model" and EARLIER_MODELS.get(str(before)) == value
        if is_code(value) and is_code(before):
            if name == "model" or not config.test_net:
                require_same(path, name, str(value), checkpoint.code)
                checkpoint.config[name] = value  # Whoever uses it must get what the command names.
        elif not is_free and not is_earlier and value != before:
            raise CheckpointError(
                f"--{name}={value} does not fit the checkpoint, which has {before}; drop --{name},"
                " or begin a new run with --weights=CHECKPOINT"
            )
    return checkpoint


def copy_checkpoint(source: Path, target: Path, *, make_folder: bool = True) -> None:
    """Copy `source` to `target`; later saves to `source` do not change `target`."""

    def duplicate(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)  # Free, because a save replaces the file, never its bytes.
        except OSError:
            shutil.copyfile(source, temporary)

    write_whole(target, duplicate, make_folder=make_folder)


class CheckpointWriter:
    """The writer of the last and the best checkpoint; `is_due` limits writes to one per second."""

    def __init__(self, files: RunFiles) -> None:
        self.last, self.best, self.make_folder = files.last, files.best, files.may_make_folders
        self._last: Checkpoint | None = None
        self._best: Checkpoint | None = None
        self._written = -math.inf

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last `write`."""
        return time.monotonic() - self._written >= _SECONDS_BETWEEN

    def keep(self, checkpoint: Checkpoint, *, best: bool) -> None:
        """Set the last checkpoint, which must not change before `write`."""
        self._last = checkpoint
        if best:
            self._best = checkpoint

    def write(self) -> None:
        """Write the checkpoints that are not yet on disk; raise OutputError."""
        if self._last is None:
            return
        if self._best is not None and self._best is not self._last:
            # First: a kill in between only repeats epochs.
            save_checkpoint(self.best, self._best, make_folder=self.make_folder)
        save_checkpoint(self.last, self._last, make_folder=self.make_folder)
        if self._best is self._last:
            copy_checkpoint(self.last, self.best, make_folder=self.make_folder)
        self._last = self._best = None
        self._written = time.monotonic()

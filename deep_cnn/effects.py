"""Find options that were set and change nothing, because of the values of other options."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from deep_cnn.config import TrainConfig
from deep_cnn.names import TASKS, stages_of
from deep_cnn.options import is_code


def _reads_folder(config: TrainConfig) -> bool:
    return config.task == "auto" or TASKS[config.task].reads_folder


def _has_frozen_trunk(config: TrainConfig) -> bool:
    return config.freeze in ("trunk", stages_of(config.model))


# When each option has no effect, and why. An option may appear more than once.
_RULES: tuple[tuple[str, Callable[[TrainConfig], bool], str], ...] = (
    ("momentum", lambda c: c.optimizer != "sgd", "only --optimizer=sgd has one"),
    (
        "decay",
        lambda c: c.schedule not in ("hyperbolic", "step", "plateau"),
        "only --schedule=hyperbolic, step or plateau has one",
    ),
    ("warmup", lambda c: is_code(c.schedule), "a --schedule of your own sets the rates"),
    ("dropout", lambda c: is_code(c.model), "a --model of your own has its own"),
    ("lr_trunk", _has_frozen_trunk, "the trunk is frozen"),
    ("patience", lambda c: c.train_on == "train+val", "there are no validation pictures"),
    (
        "patience",
        lambda c: c.patience is not None and c.patience >= c.epochs - c.initial_epoch,
        "the run has no more epochs",
    ),
    ("amp", lambda c: c.device == "mps", "--device=mps computes in float32"),
    ("hidden", lambda c: not c.model.startswith("lenet"), "only --model=lenet has a hidden layer"),
    ("data_dir", lambda c: not _reads_folder(c), "the task reads no folder"),
    ("strict_data", lambda c: not _reads_folder(c), "the task reads no files"),
    (
        "pre",
        lambda c: c.pre == "resnet" and c.model.startswith("lenet"),
        "--model=lenet keeps its own size and scale, as with --pre=default",
    ),
    (
        "pre",
        lambda c: c.pre == "resnet" and c.model == "mnistnet",
        "--model=mnistnet keeps its own size and scale, as with --pre=default",
    ),
    (
        "pre",
        lambda c: c.pre == "squash" and c.task == "digits",
        "the pictures are square, as with --pre=default",
    ),
    ("cache_dir", lambda c: c.cache == "off", "--cache=off"),
    ("wandb_artifacts", lambda c: c.wandb is False, "--wandb=False"),
    ("wandb_media", lambda c: c.wandb is False, "--wandb=False"),
    (
        "histograms",
        lambda c: c.wandb is False and c.tensorboard is False,
        "--wandb=False and --tensorboard=False",
    ),
    (
        "root_dir",
        lambda c: all(Path(path).is_absolute() for path in (c.data_dir, c.out_dir)),
        "--data_dir and --out_dir are absolute",
    ),
)
# The options that the marks of pictures in the data replace, by the marked split.
_REPLACED_BY_MARKS = {"val_split": "val", "test_split": "test"}


def without_effect(config: TrainConfig, marked: Collection[str] = ()) -> Mapping[str, str]:
    """Return the options that were set and change nothing, each with the reason.

    `marked` are the splits that the data mark. Defaults are not reported.
    """
    set_rules = (rule for rule in _RULES if rule[0] in config.chosen)
    unused = {name: reason for name, applies, reason in set_rules if applies(config)}
    for name, split in _REPLACED_BY_MARKS.items():
        if name in config.chosen and split in marked:
            unused[name] = f"the data mark the {split} pictures"
    return unused


def format_unused(unused: Mapping[str, str]) -> str:
    """Return options with their reasons, as `--momentum (only --optimizer=sgd has one)`."""
    return ", ".join(f"--{name} ({reason})" for name, reason in unused.items())

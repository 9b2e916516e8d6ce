"""Declare the options of a run as the fields of TrainConfig, which holds their values."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel

from deep_cnn import names
from deep_cnn.errors import ConfigError
from deep_cnn.home import expand_user
from deep_cnn.options import Option, OptionModel, option

SAMPLE_DATA = "tests/places_test_input"
# Declares an option that cannot change a number that a run logs.
_no_effect = partial(option, affects_result=False)


class DataOptions(OptionModel):
    """Options that say what is learned, and from which pictures."""

    heading = "data"

    task: str = option(
        "auto", "task; auto: detect it from the files in data_dir", choices=("auto", *names.TASKS)
    )
    data_dir: str = option(SAMPLE_DATA, "folder with the pictures")
    train_samples: int | None = option(None, "use only this many training pictures", low=2)
    val_split: float = option(
        0.2,
        "fraction of the non-test pictures for validation",
        low=0,
        high=1,
        open_low=True,
        open_high=True,
    )
    test_split: float = option(
        0.15, "fraction of pictures for the test, if none is marked", low=0, high=1, open_high=True
    )
    crop_bottom: int = option(
        0, "pixel rows to remove from the bottom; 25 removes Google's logo in Place Pulse", low=0
    )
    strict_data: bool = option(False, "stop at the first picture that cannot be decoded")
    num_workers: int | Literal["auto"] = _no_effect("auto", "processes that decode pictures", low=0)
    cache: str = _no_effect(
        "auto", "keep decoded pictures and features on disk", choices=("auto", "off")
    )
    cache_dir: str | None = _no_effect(None, "folder of the cache; None: OUT_DIR/cache")
    pre: str = option("default", "preprocessing of pictures", choices=names.PREPROCESSING)


class ModelOptions(OptionModel):
    """Options of the network."""

    heading = "model"

    model: str = option("efficientnet_lite0", "network", choices=tuple(names.MODELS))
    weights: str = option("imagenet", "weights: imagenet, none, a name of torchvision, or a file")
    freeze: int | Literal["none", "trunk"] = option(
        "none", "layers to freeze: none, trunk (all but the last), or the first N stages", low=0
    )
    dropout: float = option(0.2, "dropout before the last layer", low=0, high=1, open_high=True)


class TrainingOptions(OptionModel):
    """Options of training."""

    heading = "training"

    epochs: int = option(20, "number of epochs", low=1)
    initial_epoch: int = option(0, "number of the first epoch", low=0)
    batch_size: int = option(32, "pictures per step", low=1)
    lr: float = option(1e-3, "learning rate", low=0, high=1e30, open_low=True)
    optimizer: str = option("adam", "optimizer", choices=names.OPTIMIZERS)
    momentum: float = option(0.9, "momentum of sgd", low=0, high=1, open_high=True)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: str = option(
        "constant", "how the learning rate changes over the epochs", choices=names.SCHEDULES
    )
    decay: float = option(
        0.1,
        "hyperbolic: the rate is lr/(1+decay*epoch); step: multiply the rate by decay after each"
        " third of the epochs; plateau: multiply it by decay when loss_val stops improving",
        low=0,
        high=1e3,
    )
    warmup: int = option(0, "initial epochs in which the rate rises to lr", low=0)
    lr_trunk: float = option(
        1.0, "multiply lr by this for all layers except the last", low=0, high=1e3, open_low=True
    )
    clip: float = option(0.0, "scale down gradients with a larger norm; 0: never", low=0)
    ema: float = option(
        0.0, "decay of a moving average of the weights; 0: none", low=0, high=1, open_high=True
    )
    patience: int | None = option(
        None, "stop after this many epochs without a lower loss_val; None: never", low=1
    )
    train_on: str = option("train", "splits to train on", choices=("train", "train+val"))
    seed: int = option(0, "random seed", low=0, high=2**32 - 1)
    amp: str = option(
        "auto", "precision; auto: bfloat16 if it is faster", choices=("auto", "bf16", "fp16", "off")
    )
    threads: int | None = _no_effect(
        None, "threads; None: OMP_NUM_THREADS, or 1 for small networks, or all", low=1, high=1024
    )
    device: str = _no_effect("auto", "device to use", choices=("auto", "cpu", "cuda", "mps"))


class RunOptions(OptionModel):
    """Options that say where things go, and what is done."""

    heading = "run"

    root_dir: str = _no_effect(".", "folder that --data_dir and --out_dir are relative to")
    out_dir: str = _no_effect("outputs", "folder for results")
    run_name: str | None = _no_effect(None, "name of the run; None: model, date and time")
    resume: str | None = _no_effect(None, "checkpoint of the run to resume")
    test_net: str | None = _no_effect(None, "checkpoint to evaluate once on the test split")
    dry_run: bool = _no_effect(False, "describe the data without training")
    wandb: bool | None = _no_effect(
        None, "log to Weights & Biases; None: if WB_KEY, WB_PROJECT and WB_USER are set"
    )
    wandb_artifacts: str | None = _no_effect(
        None, "checkpoint for W&B; None: none in a sweep, else best", choices=("none", "best")
    )


class TrainConfig(RunOptions, TrainingOptions, ModelOptions, DataOptions):
    """The configuration of one run; every field is the option of the same name.

    A configuration does not depend on files. An option that is not set takes the task's default
    or else the general default. With `task="auto"` neither the defaults of the task are known
    nor whether its options fit together; `deep_cnn.resolve.resolve` finds the task from the data
    folder. A task's own options are set like all others, or as the mapping `options`. Raises
    ConfigError for a value that is not legal.
    """

    options: Mapping[str, Any] = {}

    # The options that were set; the defaults of all options; the data folder, once it is resolved.
    _chosen: dict[str, Any]
    _defaults: dict[str, Any]
    _folder: Path | None = None

    if not TYPE_CHECKING:  # As in OptionModel.

        def __init__(self, **values: Any) -> None:
            chosen = self.convert({**values.pop("options", {}), **values})
            task, general = chosen.get("task", "auto"), self.table()
            options = all_options(task)
            for name in chosen:
                if name not in options:
                    owners = [k for k, v in names.TASKS.items() if name in v.table()]
                    text = f"belongs to --task={' or '.join(owners)}; this run's task is {task}"
                    raise ConfigError(f"--{name} {text}", option=name)
            defaults = {name: about.default for name, about in options.items()}
            if task != "auto":
                defaults |= names.TASKS[task].defaults
            # Without a task, the options of the task are not known.
            every = chosen if task == "auto" else {**defaults, **chosen}
            own = {name: value for name, value in every.items() if name not in general}
            fields = {name: value for name, value in every.items() if name in general}
            BaseModel.__init__(self, options=own, **fields)
            self._chosen, self._defaults = chosen, defaults
            for name, text in self._problems() if task != "auto" else ():
                raise ConfigError(f"--{name}={getattr(self, name)} {text}", option=name)

    def _problems(self) -> Iterator[tuple[str, str]]:
        """Yield each option that does not fit the others, and the reason."""
        stages, size = names.MODELS[self.model], names.fixed_size(self.model, self.weights)
        if problem := names.weights_problem(self.model, self.weights):
            yield problem
        if self.model == "lenet" and self.batch_size == 1:
            yield "batch_size", "is too small for the batch norm of lenet; use 2 or more"
        if isinstance(self.freeze, int) and self.freeze > stages:
            text = f"{self.model} has {stages} stages; give 0 to {stages}, none or trunk"
            yield "freeze", f"is too many: {text}"
        if size and self.pre == "resnet":
            text = f"but {self.model} takes {size} x {size}; use another --pre"
            yield "pre", f"makes 224 x 224 pixels, {text}"
        if self.initial_epoch >= self.epochs:
            text = f"leaves nothing to train; it must be below --epochs={self.epochs}"
            yield "initial_epoch", text

    @classmethod
    def known_options(cls) -> Mapping[str, Option]:
        """Return the options of a run, those of every task included."""
        return all_options()

    # Set values and defaults are treated alike here, unlike in pydantic's own method.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainConfig) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().items()))

    def replace(self, **values: Any) -> Self:
        """Return a copy with these fields changed, without validating the values."""
        changed = self.model_copy(update=values)
        changed._chosen = {**self._chosen, **values}
        return changed

    def updated(self, values: Mapping[str, object]) -> "TrainConfig":
        """Return a configuration with these options changed; unset options keep their defaults.

        Values may be what a command line or a sweep file holds: "1e-3", 7.0 for a whole number.
        Defaults follow a new task. Raises ConfigError, which lists the names for an unknown one.
        """
        return TrainConfig.parse({**self._chosen, **values})

    def resolved(self, task: str, folder: Path, defaults: Mapping[str, str]) -> "TrainConfig":
        """Return this configuration for the data in `folder`.

        Args:
            task: The task of the folder, for `task="auto"`.
            folder: The folder with the pictures.
            defaults: Defaults for this folder that replace those of the task.
        """
        wanted = task if self.task == "auto" else self.task
        config = TrainConfig.parse({**defaults, **self._chosen, "task": wanted})
        config._chosen, config._folder = self._chosen, folder
        config._defaults |= {**defaults, "task": task}
        return config

    @property
    def is_resolved(self) -> bool:
        """Whether `resolved` has filled in the options that depend on the data folder."""
        return self._folder is not None

    @property
    def chosen(self) -> frozenset[str]:
        """The names of the options that were set."""
        return frozenset(self._chosen)

    @property
    def data_path(self) -> Path:
        """The folder with the pictures."""
        return self._folder or expand_user(self.root_dir) / expand_user(self.data_dir)

    @property
    def out_path(self) -> Path:
        """The folder for results."""
        return expand_user(self.root_dir) / expand_user(self.out_dir)

    @property
    def cache_path(self) -> Path | None:
        """The folder for decoded pictures and features; None with --cache=off."""
        if self.cache == "off":
            return None
        return expand_user(self.cache_dir) if self.cache_dir else self.out_path / "cache"

    def to_dict(self) -> dict[str, Any]:
        """Return `{option: value}` with plain values for JSON, including the task's own options."""
        return {**{name: getattr(self, name) for name in self.table()}, **self.options}

    def delta(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {k: v for k, v in self.to_dict().items() if v != self._defaults[k]}

    def short_name(self) -> str:
        """Return the options that differ, as `lr=0.00102,pre=squash`, or the model if none does."""
        options = all_options(self.task)
        changed = {k: v for k, v in sorted(self.delta().items()) if options[k].affects_result}
        return format_options(changed) or self.model

    def fingerprint(self) -> str:
        """Return a hash of every option that can change a number; equal runs have equal hashes.

        Options of the task that are None are left out, so that new ones do not change old hashes.
        Raises ConfigError if the configuration is not resolved.
        """
        if self.task == "auto":
            raise ConfigError("--task=auto has no fingerprint; resolve(config) finds the task")
        options = all_options(self.task)
        content = {k: v for k, v in self.to_dict().items() if options[k].affects_result}
        content = {k: v for k, v in content.items() if v is not None or k not in self.options}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def format_options(options: Mapping[str, Any]) -> str:
    """Return options as the name of a run, as `lr=0.00102,pre=squash`."""
    parts = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())
    # A name of a file must not have a plus sign.
    return ",".join(parts).replace("e+", "e")


@cache
def all_options(task: str = "auto") -> Mapping[str, Option]:
    """Return the options of a run by name, with those of `task`, or of all tasks for "auto"."""
    options = dict(TrainConfig.table())
    for name in names.TASKS if task == "auto" else [task]:
        options |= names.TASKS[name].table()
    return options

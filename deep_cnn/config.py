"""Hold the configuration of a run: one field = one option = one name that a sweep may set."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from deep_cnn import names
from deep_cnn.errors import ConfigError
from deep_cnn.options import Number, Option, OptionModel, Switch, Text, WholeNumber, option

SAMPLE_DATA = "tests/places_test_input"


class TrainConfig(OptionModel):
    """The configuration of one run; every field is the option of the same name.

    A pure value: it never looks at the disk. An option that is not given takes the task's own
    default, else the general one. With `task="auto"` the task is unknown, and neither its defaults
    nor what its options have to do with each other is; `deep_cnn.resolve.resolve` finds the task
    from what lies in the data folder. A task's own options are given like all others, or as the
    mapping `options`. Raises ConfigError for a value that is not legal.
    """

    task: Text = option("auto", "what is learned", group="data", choices=("auto", *names.TASKS))
    data_dir: Text = option(SAMPLE_DATA, "folder with the pictures", group="data")
    train_samples: WholeNumber | None = option(
        None, "train on this many pictures only", group="data", low=2
    )
    val_split: Number = option(
        0.2, "part of train for validation", group="data", low=0, high=1, open_low=True,
        open_high=True,
    )  # fmt: skip
    test_split: Number = option(
        0.15, "part set aside as test where nothing marks one", group="data", low=0, high=1,
        open_high=True,
    )  # fmt: skip
    crop_bottom: WholeNumber = option(
        0, "rows of pixels to cut off below, 25 for Google's logo in Place Pulse", group="data",
        low=0,
    )  # fmt: skip
    strict_data: Switch = option(False, "stop at the first bad picture", group="data")
    num_workers: WholeNumber | Literal["auto"] = option(
        "auto", "processes that decode pictures", group="data", low=0, affects_result=False
    )
    cache: Text = option(
        "auto", "keep decoded pictures and features", group="data", choices=names.CACHE,
        affects_result=False,
    )  # fmt: skip
    cache_dir: Text | None = option(
        None, "folder to keep them in, else OUT_DIR/cache", group="data", affects_result=False
    )
    pre: Text = option("default", "preprocessing", group="data", choices=names.PREPROCESSING)
    model: Text = option(
        "efficientnet_lite0", "network", group="model", choices=tuple(names.MODELS)
    )
    weights: Text = option("imagenet", "imagenet, none, or a file of weights", group="model")
    freeze: WholeNumber | Literal["none", "trunk"] = option(
        "none", "what does not train: none, trunk, or this many stages from the input",
        group="model", low=0,
    )  # fmt: skip
    dropout: Number = option(
        0.2, "dropout before the last layer", group="model", low=0, high=1, open_high=True
    )
    epochs: WholeNumber = option(20, "number of epochs", group="training", low=1)
    initial_epoch: WholeNumber = option(0, "number of the first epoch", group="training", low=0)
    batch_size: WholeNumber = option(32, "pictures in a step", group="training", low=1)
    lr: Number = option(1e-3, "learning rate", group="training", low=0, high=1e30, open_low=True)
    optimizer: Text = option("adam", "optimizer", group="training", choices=names.OPTIMIZERS)
    momentum: Number = option(
        0.9, "momentum, for sgd", group="training", low=0, high=1, open_high=True
    )
    weight_decay: Number = option(0.0, "weight decay", group="training", low=0)
    schedule: Text = option(
        "constant", "learning rate over the epochs", group="training", choices=names.SCHEDULES
    )
    decay: Number = option(
        0.1, "hyperbolic: lr/(1+decay*epoch); step: factor a third; plateau: factor",
        group="training", low=0, high=1e3,
    )  # fmt: skip
    warmup: WholeNumber = option(
        0, "epochs in which the rate rises linearly to lr", group="training", low=0
    )
    lr_trunk: Number = option(
        1.0, "factor of lr for all but the last layer", group="training", low=0, high=1e3,
        open_low=True,
    )  # fmt: skip
    clip: Number = option(0.0, "largest norm of the gradient; 0: any", group="training", low=0)
    ema: Number = option(
        0.0, "decay of averaged weights; 0: none", group="training", low=0, high=1, open_high=True
    )
    patience: WholeNumber | None = option(
        None, "stop after this many epochs without a better one", group="training", low=1
    )
    train_on: Text = option(
        "train", "train+val leaves nothing to validate on", group="training",
        choices=names.TRAIN_ON,
    )  # fmt: skip
    seed: WholeNumber = option(
        0, "seed of everything random", group="training", low=0, high=2**32 - 1
    )
    amp: Text = option(
        "auto", "auto: bfloat16 where the processor gains", group="training", choices=names.AMP
    )
    device: Text = option(
        "auto", "where to compute", group="training", choices=names.DEVICES, affects_result=False
    )
    root_dir: Text = option(
        ".", "folder that --data_dir and --out_dir start from", group="run", affects_result=False
    )
    out_dir: Text = option("outputs", "folder for results", group="run", affects_result=False)
    run_name: Text | None = option(None, "name of the run", group="run", affects_result=False)
    resume: Text | None = option(
        None, "checkpoint to go on from", group="run", affects_result=False
    )
    test_net: Text | None = option(
        None, "checkpoint to evaluate once on the test split", group="run", affects_result=False
    )
    dry_run: Switch = option(False, "describe the data and stop", group="run", affects_result=False)
    wandb: Switch | None = option(
        None, "log to Weights & Biases; None: where WB_KEY, WB_PROJECT and WB_USER are set",
        group="run", affects_result=False,
    )  # fmt: skip
    wandb_artifacts: Text | None = option(
        None, "checkpoint that W&B keeps; None: best, and none in a sweep", group="run",
        choices=("none", "best"), affects_result=False,
    )  # fmt: skip
    options: Mapping[str, Any] = Field(default_factory=dict)

    # What was given; the defaults of all else; and where the data lie, once that is known.
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)
    _defaults: dict[str, Any] = PrivateAttr(default_factory=dict)
    _folder: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _gather_task_options(cls, values: dict[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in values.items() if name in _TASK_OPTIONS}
        rest = {name: value for name, value in values.items() if name not in own}
        own = {**rest.pop("options", {}), **own}
        return {**rest, "options": own} if own else rest

    @model_validator(mode="after")
    def _apply_task(self) -> Self:
        own = {name: _checked(name, value) for name, value in self.options.items()}
        set_here = self.model_fields_set - {"options"}
        self._given = {**{name: getattr(self, name) for name in set_here}, **own}
        self._defaults = {name: known.default for name, known in all_options(self.task).items()}
        if self.task == "auto":
            self.__dict__["options"] = own
            return self
        task = names.TASKS[self.task]
        for name in own:
            if name not in task.options.model_fields:
                raise ConfigError(f"--{name} {_not_of_task(name, self.task)}")
        self._defaults |= task.defaults
        known = task.options.model_fields
        self.__dict__.update({k: v for k, v in task.defaults.items() if k not in set_here})
        self.__dict__["options"] = {k: own.get(k, self._defaults[k]) for k in known}
        self._check_combinations()
        return self

    def _check_combinations(self) -> None:
        if self.weights == "imagenet" and self.model in names.NOT_PRETRAINED:
            raise ConfigError(f"--model={self.model} has no ImageNet weights; add --weights=none")
        if self.model == "lenet" and self.batch_size == 1:
            raise ConfigError(
                "--batch_size=1 is too small for the batch norm of lenet; use 2 or more"
            )
        stages, size = names.MODELS[self.model], names.FIXED_SIZE.get(self.model)
        if isinstance(self.freeze, int) and self.freeze > stages:
            raise ConfigError(
                f"--freeze={self.freeze} is too many: {self.model} has {stages} stages; give 0 to"
                f" {stages}, none or trunk"
            )
        if size and self.pre == "resnet":
            raise ConfigError(
                f"--pre=resnet makes 224 x 224 pixels, but {self.model} takes {size} x {size};"
                " use another --pre"
            )
        if self.initial_epoch >= self.epochs:
            raise ConfigError(
                f"--initial_epoch={self.initial_epoch} leaves nothing to train;"
                f" it must be below --epochs={self.epochs}"
            )

    @classmethod
    def known_options(cls) -> Mapping[str, Option]:
        """Return the options of a run, those of every task included."""
        return all_options()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainConfig) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().items()))

    def replace(self, **values: Any) -> Self:
        """Return a copy with these fields changed to values that are known to be legal."""
        changed = super().replace(**values)
        changed._given = {**self._given, **values}
        return changed

    def updated(self, values: Mapping[str, Any]) -> "TrainConfig":
        """Return a configuration with these options changed; what was not given stays at default.

        Values may be what a command line or a sweep file holds: "1e-3", 7.0 for a whole number.
        Defaults follow a new task. Raises ConfigError, which lists the names for an unknown one.
        """
        return TrainConfig.parse({**self._given, **values})

    def resolved(self, task: str, folder: Path, defaults: Mapping[str, Any]) -> "TrainConfig":
        """Return this configuration for the data in `folder`.

        Args:
            task: The task of the folder, for `task="auto"`.
            folder: Where the pictures lie.
            defaults: What this folder has instead of the task's own defaults.
        """
        wanted = task if self.task == "auto" else self.task
        config = TrainConfig.parse({**self._given, "task": wanted})
        config._given, config._folder = self._given, folder
        config._defaults |= {**defaults, "task": task}
        given = {name: value for name, value in self._given.items() if name in defaults}
        config.__dict__["options"] = {**config.options, **defaults, **given}
        return config

    @property
    def is_resolved(self) -> bool:
        """Whether what the data folder decides is known."""
        return self._folder is not None

    @property
    def data_path(self) -> Path:
        """Where the pictures lie."""
        return self._folder or _expanded(self.root_dir) / _expanded(self.data_dir)

    @property
    def out_path(self) -> Path:
        """Where results go."""
        return _expanded(self.root_dir) / _expanded(self.out_dir)

    @property
    def cache_path(self) -> Path | None:
        """Where decoded pictures and features are kept."""
        if self.cache == "off":
            return None
        return _expanded(self.cache_dir) if self.cache_dir else self.out_path / "cache"

    def to_dict(self) -> dict[str, Any]:
        """Return `{option: value}`, the task's own options included: plain values, for JSON."""
        return {**{name: getattr(self, name) for name in self.table()}, **self.options}

    def delta(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {k: v for k, v in self.to_dict().items() if v != self._defaults[k]}

    def short_name(self) -> str:
        """Return what differs from the defaults, as `lr=0.00102,pre=squash`; else the model."""
        known = all_options(self.task)
        changed = {k: v for k, v in sorted(self.delta().items()) if known[k].affects_result}
        parts = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items())
        return ",".join(parts).replace("e+", "e") or self.model

    def fingerprint(self) -> str:
        """Return what makes two runs the same run: a hash of every option that affects a number.

        Raises ConfigError while the task is not known.
        """
        if self.task == "auto":
            raise ConfigError("--task=auto has no fingerprint; resolve(config) finds the task")
        known = all_options(self.task)
        kept = {k: v for k, v in self.to_dict().items() if known[k].affects_result}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _task_options() -> dict[str, type[OptionModel]]:
    """Return, for each option of a task, the model of the first task that has it."""
    owners: dict[str, type[OptionModel]] = {}
    for task in names.TASKS.values():
        for name in task.options.model_fields:
            owners.setdefault(name, task.options)
    return owners


_TASK_OPTIONS = _task_options()


def _checked(name: str, value: Any) -> Any:
    """Return the value of a task's own option; raise ConfigError if it is not legal."""
    if name not in _TASK_OPTIONS:
        raise ConfigError(f"--{name} {_not_of_task(name, 'auto')}")
    return getattr(_TASK_OPTIONS[name].parse({name: value}), name)


def _not_of_task(name: str, task: str) -> str:
    owners = [owner for owner, known in names.TASKS.items() if name in known.options.model_fields]
    return (
        f"belongs to --task={' or '.join(owners)}; this run's task is {task}"
        if owners
        else f"is no option of the task {task}"
    )


def all_options(task: str = "auto") -> dict[str, Option]:
    """Return the options of a run by name, with those of `task`; of every task for "auto"."""
    found = dict(TrainConfig.table())
    for name in names.TASKS if task == "auto" else (task,):
        found |= names.TASKS[name].options.table()
    return found


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own fails for an unknown user.

"""Hold the configuration of a run as a value that never looks at the disk."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, model_validator

from deep_cnn import names
from deep_cnn.errors import ConfigError
from deep_cnn.options import Option, OptionModel
from deep_cnn.run_options import SAMPLE_DATA, DataOptions, ModelOptions, RunOptions, TrainingOptions

__all__ = ["SAMPLE_DATA", "TrainConfig", "all_options"]


class TrainConfig(RunOptions, TrainingOptions, ModelOptions, DataOptions):
    """The configuration of one run; every field is the option of the same name.

    A pure value: it never looks at the disk. An option that is not given takes the task's own
    default, else the general one. With `task="auto"` the task is unknown, and neither its defaults
    nor what its options have to do with each other is; `deep_cnn.resolve.resolve` finds the task
    from what lies in the data folder. A task's own options are given like all others, or as the
    mapping `options`. Raises ConfigError for a value that is not legal.
    """

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
                raise ConfigError(f"--{name} {_not_of_task(name, self.task)}", option=name)
        self._defaults |= task.defaults
        known = task.options.model_fields
        self.__dict__.update({k: v for k, v in task.defaults.items() if k not in set_here})
        self.__dict__["options"] = {k: own.get(k, self._defaults[k]) for k in known}
        self._check_combinations()
        return self

    def _check_combinations(self) -> None:
        if self.weights == "imagenet" and self.model in names.NOT_PRETRAINED:
            raise _error("model", self.model, "has no ImageNet weights; add --weights=none")
        if self.model == "lenet" and self.batch_size == 1:
            text = "is too small for the batch norm of lenet; use 2 or more"
            raise _error("batch_size", self.batch_size, text)
        stages, size = names.MODELS[self.model], names.FIXED_SIZE.get(self.model)
        if isinstance(self.freeze, int) and self.freeze > stages:
            text = f"is too many: {self.model} has {stages} stages; give 0 to {stages}, none or"
            raise _error("freeze", self.freeze, f"{text} trunk")
        if size and self.pre == "resnet":
            text = f"makes 224 x 224 pixels, but {self.model} takes {size} x {size}; use another"
            raise _error("pre", self.pre, f"{text} --pre")
        if self.initial_epoch >= self.epochs:
            text = f"leaves nothing to train; it must be below --epochs={self.epochs}"
            raise _error("initial_epoch", self.initial_epoch, text)

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


def _error(option: str, value: object, text: str) -> ConfigError:
    return ConfigError(f"--{option}={value} {text}", option=option)


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
        raise ConfigError(f"--{name} {_not_of_task(name, 'auto')}", option=name)
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

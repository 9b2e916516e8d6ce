"""Hold the configuration of a run as a value that never looks at the disk."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from deep_cnn import names
from deep_cnn.errors import ConfigError
from deep_cnn.options import Option
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

    options: Mapping[str, Any] = {}

    # What was given; the defaults of all options; and the data folder, once it is resolved.
    _given: dict[str, Any]
    _defaults: dict[str, Any]
    _folder: Path | None = None

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            given = self.convert({**values.pop("options", {}), **values})
            task, general = given.get("task", "auto"), self.table()
            known = all_options(task)
            for name in given:
                if name not in known:
                    owners = [k for k, v in names.TASKS.items() if name in v.options.table()]
                    text = f"belongs to --task={' or '.join(owners)}; this run's task is {task}"
                    raise ConfigError(f"--{name} {text}", option=name)
            defaults = {name: option.default for name, option in known.items()}
            if task != "auto":
                defaults |= names.TASKS[task].defaults
            # Without a task it is not known which of the tasks' own options the run has.
            every = given if task == "auto" else {**defaults, **given}
            own = {name: value for name, value in every.items() if name not in general}
            fields = {name: value for name, value in every.items() if name in general}
            BaseModel.__init__(self, options=own, **fields)
            self._given, self._defaults = given, defaults
            if task != "auto":
                self._check_combinations()

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
        changed = self.model_copy(update=values)
        changed._given = {**self._given, **values}
        return changed

    def updated(self, values: Mapping[str, object]) -> "TrainConfig":
        """Return a configuration with these options changed; what was not given stays at default.

        Values may be what a command line or a sweep file holds: "1e-3", 7.0 for a whole number.
        Defaults follow a new task. Raises ConfigError, which lists the names for an unknown one.
        """
        return TrainConfig.parse({**self._given, **values})

    def resolved(self, task: str, folder: Path, defaults: Mapping[str, str]) -> "TrainConfig":
        """Return this configuration for the data in `folder`.

        Args:
            task: The task of the folder, for `task="auto"`.
            folder: The folder with the pictures.
            defaults: What this folder has instead of the task's own defaults.
        """
        wanted = task if self.task == "auto" else self.task
        config = TrainConfig.parse({**defaults, **self._given, "task": wanted})
        config._given, config._folder = self._given, folder
        config._defaults |= {**defaults, "task": task}
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


@cache
def all_options(task: str = "auto") -> Mapping[str, Option]:
    """Return the options of a run by name, with those of `task`; of every task for "auto"."""
    options = dict(TrainConfig.table())
    for name in names.TASKS if task == "auto" else (task,):
        options |= names.TASKS[name].options.table()
    return options


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own fails for an unknown user.

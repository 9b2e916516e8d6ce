"""Define TrainConfig, which holds the values of the options of a run."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from deep_cnn import names
from deep_cnn.errors import ConfigError
from deep_cnn.home import expand_user
from deep_cnn.options import Option, is_code
from deep_cnn.run_options import DataOptions, ModelOptions, RunOptions, TrainingOptions


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
            chosen = _converted({**values.pop("options", {}), **values})
            task, general = chosen.get("task", "auto"), self.table()
            options = all_options(task)
            for name in chosen:
                if name not in options:
                    owners = [k for k, v in names.TASKS.items() if name in v.table()]
                    text = f"belongs to --task={' or '.join(owners)}; this run's task is {task}"
                    raise ConfigError(f"--{name} {text}", option=name)
            defaults = _defaults(task, chosen.get("model"))
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
        stages, size = names.stages_of(self.model), names.fixed_size(self.model, self.weights)
        if problem := names.weights_problem(self.model, self.weights):
            yield problem
        if self.model.startswith("lenet") and self.batch_size == 1:
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


def _converted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration as their types; raise ConfigError.

    Only with a checkpoint, the network may be one of an earlier version.
    """
    model = str(values.get("model"))
    has_checkpoint = values.get("resume") or values.get("test_net")
    if model not in names.EARLIER_MODELS or not has_checkpoint:
        return TrainConfig.convert(values)
    return {**TrainConfig.convert({**values, "model": None}), "model": model}


def format_options(options: Mapping[str, Any]) -> str:
    """Return options as the name of a run, as `lr=0.00102,pre=squash`."""
    parts = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())
    # A name of a file must not have a plus sign.
    return ",".join(parts).replace("e+", "e")


def _defaults(task: str, model: object) -> dict[str, Any]:
    """Return the defaults of all options for a task, and for a network of the user."""
    defaults = {name: about.default for name, about in all_options(task).items()}
    defaults |= {} if task == "auto" else names.TASKS[task].defaults
    return {**defaults, "weights": "none"} if is_code(model) else defaults


@cache
def all_options(task: str = "auto") -> Mapping[str, Option]:
    """Return the options of a run by name, with those of `task`, or of all tasks for "auto"."""
    options = dict(TrainConfig.table())
    for name in names.TASKS if task == "auto" else [task]:
        options |= names.TASKS[name].table()
    return options

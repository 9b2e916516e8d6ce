"""Hold the configuration of a run: one field = one flag = one name that a sweep may set."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from deep_cnn import names
from deep_cnn.detect import detect_task, detected, is_place_pulse, study_id
from deep_cnn.errors import ConfigError, choose_from
from deep_cnn.flag import Flag
from deep_cnn.words import flag_name, split_argv

SAMPLE_DATA = "tests/places_test_input"

# Stands for "the task's own default, else the general one", until __post_init__ puts that in.
_UNSET: Any = None


def _flag(default: Any, group: str, text: str, kind: type | None = None, **known: Any) -> Any:
    details = {"group": group, "help": text, "kind": kind or type(default), "default": default}
    return field(default=_UNSET, metadata={**details, **known})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The configuration of one run; every field is the flag of the same name.

    A field that is not given takes the task's own default, else the general one; a task that is
    not given is found from what lies in `data_dir`. ConfigError for a value that is not legal,
    DataError where the task cannot be told from the folder.
    """

    task: str = _flag("auto", "data", "what is learned", choices=("auto", *names.TASKS))
    data_dir: str = _flag(SAMPLE_DATA, "data", "folder with the pictures")
    train_samples: int | None = _flag(None, "data", "train on this many pictures only", int, low=2)
    val_split: float = _flag(
        0.2, "data", "part of train for validation", low=0, high=1, open_low=True, open_high=True
    )
    test_split: float = _flag(
        0.15,
        "data",
        "part set aside as test where nothing marks one",
        low=0,
        high=1,
        open_high=True,
    )
    crop_bottom: int = _flag(
        0, "data", "rows of pixels to cut off below, 25 for Google's logo in Place Pulse", low=0
    )
    strict_data: bool = _flag(False, "data", "stop at the first bad picture")
    num_workers: int | str = _flag(
        "auto",
        "data",
        "processes that decode pictures",
        int,
        low=0,
        also=("auto",),
        bookkeeping=True,
    )
    cache: str = _flag(
        "auto", "data", "keep decoded pictures and features", choices=names.CACHE, bookkeeping=True
    )
    cache_dir: str | None = _flag(
        None, "data", "folder to keep them in, else OUT_DIR/cache", str, bookkeeping=True
    )
    pre: str = _flag("default", "data", "preprocessing", choices=names.PREPROCESSING)
    model: str = _flag("efficientnet_lite0", "model", "network", choices=tuple(names.MODELS))
    weights: str = _flag("imagenet", "model", "imagenet, none, or a file of weights")
    freeze: int | str = _flag(
        "none",
        "model",
        "what does not train: none, trunk, or this many stages from the input",
        int,
        low=0,
        also=names.FREEZE,
    )
    dropout: float = _flag(
        0.2, "model", "dropout before the last layer", low=0, high=1, open_high=True
    )
    epochs: int = _flag(20, "training", "number of epochs", low=1)
    initial_epoch: int = _flag(0, "training", "number of the first epoch", low=0)
    batch_size: int = _flag(32, "training", "pictures in a step", low=1)
    lr: float = _flag(1e-3, "training", "learning rate", low=0, high=1e30, open_low=True)
    optimizer: str = _flag("adam", "training", "optimizer", choices=names.OPTIMIZERS)
    momentum: float = _flag(0.9, "training", "momentum, for sgd", low=0, high=1, open_high=True)
    weight_decay: float = _flag(0.0, "training", "weight decay", low=0)
    schedule: str = _flag(
        "constant", "training", "learning rate over the epochs", choices=names.SCHEDULES
    )
    decay: float = _flag(
        0.1,
        "training",
        "hyperbolic: lr/(1+decay*epoch); step: factor a third; plateau: factor",
        low=0,
        high=1e3,
    )
    warmup: int = _flag(0, "training", "epochs in which the rate rises linearly to lr", low=0)
    lr_trunk: float = _flag(
        1.0, "training", "factor of lr for all but the last layer", low=0, high=1e3, open_low=True
    )
    clip: float = _flag(0.0, "training", "largest norm of the gradient; 0: any", low=0)
    ema: float = _flag(
        0.0, "training", "decay of averaged weights; 0: none", low=0, high=1, open_high=True
    )
    patience: int | None = _flag(
        None, "training", "stop after this many epochs without a better one", int, low=1
    )
    train_on: str = _flag(
        "train", "training", "train+val leaves nothing to validate on", choices=names.TRAIN_ON
    )
    seed: int = _flag(0, "training", "seed of everything random", low=0, high=2**32 - 1)
    amp: str = _flag(
        "auto", "training", "auto: bfloat16 where the processor gains", choices=names.AMP
    )
    device: str = _flag(
        "auto", "training", "where to compute", choices=names.DEVICES, bookkeeping=True
    )
    root_dir: str = _flag(
        ".", "run", "folder that --data_dir and --out_dir start from", bookkeeping=True
    )
    out_dir: str = _flag("outputs", "run", "folder for results", bookkeeping=True)
    run_name: str | None = _flag(None, "run", "name of the run", str, bookkeeping=True)
    resume: str | None = _flag(None, "run", "checkpoint to go on from", str, bookkeeping=True)
    test_net: str | None = _flag(
        None, "run", "checkpoint to evaluate once on the test split", str, bookkeeping=True
    )
    dry_run: bool = _flag(False, "run", "describe the data and stop", bookkeeping=True)
    wandb: bool | None = _flag(
        None,
        "run",
        "log to Weights & Biases; None: where WB_KEY, WB_PROJECT and WB_USER are set",
        bool,
        bookkeeping=True,
    )
    wandb_artifacts: str | None = _flag(
        None,
        "run",
        "checkpoint that W&B keeps; None: best, and none in a sweep",
        str,
        choices=("none", "best"),
        bookkeeping=True,
    )
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.data_dir is None:
            self._set("data_dir", SAMPLE_DATA)
        if self.root_dir is None:
            self._set("root_dir", ".")
        for name in ("data_dir", "root_dir"):
            _FLAGS[name].check(getattr(self, name))
        if self.task is None or self.task == "auto":
            self._set("task", detect_task(self.data_path))
        _FLAGS["task"].check(self.task)
        task = names.TASKS[self.task]
        for flag in _FLAGS.values():
            if getattr(self, flag.name) is None:
                self._set(flag.name, task.defaults.get(flag.name, flag.default))
            flag.check(getattr(self, flag.name))
        known = flags(self.task)
        for name, value in self.options.items():
            if name not in task.options:
                raise ConfigError(f"--{name} {_stranger(name, self.task)}")
            known[name].check(value)
        defaults = _defaults(self.task, self.data_path)
        self._set("options", {k: self.options.get(k, defaults[k]) for k in task.options})
        if self.task == "perception" and is_place_pulse(self.data_path):
            study_id(self.options["study"])
        if self.weights == "imagenet" and self.model in names.NOT_PRETRAINED:
            raise ConfigError(f"--model={self.model} has no ImageNet weights; add --weights=none")
        if self.model == "lenet" and self.batch_size == 1:
            raise ConfigError(
                "--batch_size=1 is too small for the batch norm of lenet; use 2 or more"
            )
        self._check_network()
        if self.initial_epoch >= self.epochs:
            raise ConfigError(
                f"--initial_epoch={self.initial_epoch} leaves nothing to train;"
                f" it must be below --epochs={self.epochs}"
            )

    def _check_network(self) -> None:
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

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def data_path(self) -> Path:
        """Where the pictures lie; the bundled sample is found from anywhere."""
        path = _expanded(self.root_dir) / _expanded(self.data_dir)
        bundled = Path(__file__).parent.parent / SAMPLE_DATA
        return bundled if self.data_dir == SAMPLE_DATA and not path.exists() else path

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

    def flags(self) -> dict[str, Any]:
        """Every flag with its value, the task's own included: `{flag: value}`, fit for JSON."""
        core = {name: getattr(self, name) for name in _FLAGS}
        return {**core, **self.options}

    def updated(self, values: Mapping[str, Any]) -> "TrainConfig":
        """A configuration with these flags changed; ConfigError lists the names for unknown ones.

        Values may be what a command line or a sweep file holds: "1e-3", 7.0 for a whole number.
        What was left at its default follows a new task's defaults.
        """
        return config_from({**self.delta(), **values})

    def delta(self) -> dict[str, Any]:
        """The flags that differ from the defaults of this task."""
        defaults = _defaults(self.task, self.data_path)
        changed = {k: v for k, v in self.flags().items() if k != "task" and v != defaults[k]}
        if detected(self.data_path) != self.task:
            changed["task"] = self.task
        return changed

    def short_name(self) -> str:
        """The flags that differ from their defaults, as `lr=0.00102,pre=squash`; else the model."""
        known = flags(self.task)
        changed = {k: v for k, v in sorted(self.delta().items()) if not known[k].bookkeeping}
        shown = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in changed.items())
        return ",".join(shown).replace("e+", "e") or self.model

    def fingerprint(self) -> str:
        """What makes two runs the same run: a hash of every flag that can change a number."""
        kept = {k: v for k, v in self.flags().items() if not flags(self.task)[k].bookkeeping}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _core_flags() -> dict[str, Flag]:
    return {f.name: Flag(f.name, **f.metadata) for f in fields(TrainConfig) if f.metadata}


_FLAGS = _core_flags()


def flags(task: str | None = None) -> dict[str, Flag]:
    """All flags by name, with the options of `task`, or of every task where none is named."""
    found = dict(_FLAGS)
    for name in names.TASKS if task is None else (task,):
        for key, own in names.TASKS[name].options.items():
            kind = type(own.default)
            found[key] = Flag(
                key,
                kind,
                own.default,
                group=name,
                help=own.help,
                choices=own.choices,
                low=own.low,
                high=own.below,
                open_high=True,
            )
    return found


def parse_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give every value its flag's type; ConfigError for an unknown flag or a value it refuses."""
    known = flags()
    parsed = {}
    for given, value in values.items():
        name = flag_name(given)
        if name not in known:
            raise ConfigError(f"--{given} is no flag; {choose_from(name, known)}")
        parsed[name] = known[name].parse(str(value))
        known[name].check(parsed[name])
    return parsed


def config_from(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that these flags describe; everything else is at its default."""
    parsed = parse_flags(values)
    core = {name: value for name, value in parsed.items() if name in _FLAGS}
    return TrainConfig(**core, options={k: v for k, v in parsed.items() if k not in _FLAGS})


def parse_config(argv: Sequence[str]) -> TrainConfig:
    """The configuration that a command line describes, e.g. `["--lr=1e-3", "--wandb", "False"]`."""
    return config_from(split_argv(argv, flags()))


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own fails for an unknown user.


def _defaults(task: str, folder: Path) -> dict[str, Any]:
    general = {name: flag.default for name, flag in flags(task).items()}
    if task == "perception" and is_place_pulse(folder):
        general["study"] = "safer"
    return {**general, **names.TASKS[task].defaults}


def _stranger(name: str, task: str) -> str:
    owners = [owner for owner, known in names.TASKS.items() if name in known.options]
    return (
        f"belongs to --task={' or '.join(owners)}; this run's task is {task}"
        if owners
        else f"is no option of the task {task}"
    )

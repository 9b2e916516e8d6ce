"""Own every file name of a run, and what its result looks like on disk."""

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from deep_cnn.config import TrainConfig
from deep_cnn.names import MORE_IS_BETTER
from deep_cnn.writing import unwritable

RESULT_VERSION = 1
_LONGEST_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,-]")
# Runs of these names would own files of other runs: first.best.pt is the best of `first`.
_OTHERS_FILES = re.compile(r"\.(best|test|confusion|args|steps_train|steps_val)$", re.IGNORECASE)


class Metric(BaseModel):
    """A number that runs log, and the direction in which it gets better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"

    @classmethod
    def named(cls, name: str) -> "Metric":
        """Return the metric of a column such as `loss_val` or `pearson_test`."""
        more = name.rpartition("_")[0].removeprefix("best_") in MORE_IS_BETTER
        return cls(name=name, goal="maximize" if more else "minimize")

    @property
    def sign(self) -> float:
        """The factor that turns values of this metric into costs: less is better."""
        return -1.0 if self.goal == "maximize" else 1.0

    def is_better(self, value: float, than: float) -> bool:
        """Return whether `value` is strictly better than another one."""
        return self.sign * value < self.sign * than

    def best(self, values: Iterable[float]) -> float | None:
        """Return the best of the finite `values`, or None if there is none."""
        finite = (value for value in values if math.isfinite(value))
        return min(finite, key=lambda value: self.sign * value, default=None)


# What a sweep whose file has no `metric`, and a task without one of its own, compare runs by.
DEFAULT_METRIC = Metric(name="loss_val")


class State(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run was stopped early: the rule, and where it applies the band, value, threshold."""

    rule: str
    band: int | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The numbers of one epoch; how long it took does not count when two are compared."""

    epoch: int
    lr: float
    metrics: Mapping[str, float]
    seconds: float = field(default=0.0, compare=False)
    images_per_second: float = field(default=0.0, compare=False)

    def row(self) -> dict[str, float]:
        """The columns of results/<run>.csv."""
        timing = {"seconds": self.seconds, "images_per_second": self.images_per_second}
        return {"epoch": self.epoch, "lr": self.lr, **timing, **self.metrics}


@dataclass(frozen=True, slots=True)
class Best:
    """The best epoch so far by the metric that the task watches."""

    epoch: int
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: what results/<run>.json holds, and the history beside it."""

    run_name: str
    state: State
    config: Mapping[str, Any]
    stop_reason: StopReason | None = None
    sweep: Mapping[str, Any] | None = None
    best: Best | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] | None = None
    seconds: float = 0.0
    error: str | None = None
    history: tuple[EpochRecord, ...] = ()
    signal: int | None = None

    def to_json(self) -> str:
        """The text of results/<run>.json; numbers that are not finite become null."""
        content = asdict(replace(self, config=dict(self.config), history=()))
        del content["history"], content["signal"]
        return json.dumps(_plain({"version": RESULT_VERSION, **content}), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunResult":
        """The result that `to_json` wrote, without its history; ValueError for other text."""
        content = json.loads(text)
        if not isinstance(content, dict) or not {"config", "state", "run_name"} <= set(content):
            raise ValueError("not the result of a run")
        version = content.pop("version", RESULT_VERSION)
        if not isinstance(version, int) or version > RESULT_VERSION:
            raise ValueError(f"written by a newer version ({version})")
        content["state"] = State(content["state"])
        content["best"] = Best(**content["best"]) if content.get("best") else None
        reason = content.get("stop_reason")
        content["stop_reason"] = StopReason(**reason) if reason else None
        return cls(**content)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Every file of the run `name` under the folder `out`."""

    out: Path
    name: str

    @property
    def log(self) -> Path:
        """The log; it begins with every argument."""
        return self.out / "logger" / f"{self.name}.log"

    @property
    def table(self) -> Path:
        """One row an epoch."""
        return self.out / "results" / f"{self.name}.csv"

    @property
    def arguments(self) -> Path:
        """The arguments as JSON."""
        return self.out / "results" / f"{self.name}.args.json"

    @property
    def result(self) -> Path:
        """The result; its presence means that the run is over."""
        return self.out / "results" / f"{self.name}.json"

    @property
    def predictions(self) -> Path:
        """Truth and prediction for each picture of the test split."""
        return self.out / "results" / f"{self.name}.test.csv"

    @property
    def confusion(self) -> Path:
        """How many test pictures of each class were taken for which."""
        return self.out / "results" / f"{self.name}.confusion.csv"

    @property
    def last(self) -> Path:
        """The last checkpoint."""
        return self.out / "models" / f"{self.name}.pt"

    @property
    def best(self) -> Path:
        """The best checkpoint."""
        return self.out / "models" / f"{self.name}.best.pt"

    def steps(self, split: str) -> Path:
        """The loss of each step of `split` (train or val)."""
        return self.out / "results" / f"{self.name}.steps_{split}.csv"

    def exist(self) -> bool:
        """Whether any file of a run of this name is there."""
        files = (self.log, self.table, self.arguments, self.result, self.last, self.best)
        return any(file.exists() for file in files)


def served_sweep(environ: Mapping[str, str] = os.environ) -> Mapping[str, str] | None:
    """The sweep and the run that W&B's agent started this process for: `{name, trial}`."""
    sweep, run = environ.get("WANDB_SWEEP_ID"), environ.get("WANDB_RUN_ID")
    return {"name": sweep, "trial": run} if sweep and run else None


def safe_name(name: str) -> str:
    """`name` as the stem of a file: 100 bytes of letters, digits and ._=,- at most.

    Where something has to be changed a short hash of the original is appended, so that two
    names never become one.
    """
    safe = _OTHERS_FILES.sub(r"_\1", _UNSAFE.sub("_", name))
    safe = re.sub(r"^\.", "_", safe) or "run"
    if safe == name and len(safe) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe[: _LONGEST_NAME - 9]}-{digest}"


def claim_run(config: TrainConfig) -> RunFiles:
    """Take a name that no run under `config.out_path` has, by creating its log.

    The name is config.run_name or `<model>-<YYYYmmdd-HHMMSS>`, made safe; `-2`, `-3` and so on are
    appended where it is taken. OutputError where the folder cannot be written.
    """
    wanted = config.run_name or f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}"
    safe = safe_name(wanted)
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        files = RunFiles(config.out_path, safe[: _LONGEST_NAME - len(suffix)] + suffix)
        if not files.exist() and _create(files.log):
            return files
        number += 1


def _create(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError as error:
        if not path.exists():  # A file stands where a folder is wanted.
            raise unwritable(path, error) from error
        return False
    except OSError as error:
        raise unwritable(path, error) from error
    return True


def opened_tests(out: Path) -> list[tuple[str, set[str], str | None]]:
    """The runs under `out` that looked at test pictures: name, pictures, --data_dir if known."""
    found = []
    for path in sorted((out / "results").glob("*.test.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                pictures = {row["image"] for row in csv.DictReader(file)}
        except (OSError, ValueError, KeyError, csv.Error):
            continue
        name = path.name.removesuffix(".test.csv")
        try:
            arguments = json.loads(RunFiles(out, name).arguments.read_text(encoding="utf-8"))
            place = str(Path(arguments["root_dir"]) / arguments["data_dir"])
        except (OSError, ValueError, KeyError, TypeError):
            place = None
        found.append((name, pictures, place))
    return found

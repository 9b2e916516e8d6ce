"""Define the result of a run on disk: its epochs, how it ended, and its JSON form."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from deep_cnn.names import MORE_IS_BETTER
from deep_cnn.processes import EXIT_STATUS

RESULT_VERSION = 1


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


# The metric by which runs are compared if the sweep file or the task names none.
DEFAULT_METRIC = Metric(name="loss_val")


class State(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run was stopped early: the rule, and its band, value and threshold if it has them."""

    rule: str
    band: int | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The numbers of one epoch; comparisons ignore how long it took."""

    epoch: int
    lr: float
    metrics: Mapping[str, float]
    seconds: float = field(default=0.0, compare=False)
    images_per_second: float = field(default=0.0, compare=False)

    def row(self) -> dict[str, float]:
        """Return the columns of results/<run>.csv: the metrics come last."""
        numbers = asdict(self)
        metrics = numbers.pop("metrics")
        return {**numbers, **metrics}


@dataclass(frozen=True, slots=True)
class Best:
    """The best epoch so far, by the metric `watch` of the task."""

    epoch: int
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class SweepTrial:
    """The sweep that a run belongs to, and its trial: a number, or W&B's id."""

    name: str
    trial: int | str


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the content of results/<run>.json, and the history.

    `unsynced` lists the folders of W&B whose upload is not complete.
    """

    run_name: str
    state: State
    config: Mapping[str, Any]
    stop_reason: StopReason | None = None
    sweep: SweepTrial | None = None
    environment: Mapping[str, Any] | None = None
    best: Best | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] | None = None
    seconds: float = 0.0
    error: str | None = None
    unsynced: tuple[str, ...] = ()
    history: tuple[EpochRecord, ...] = ()
    signal: int | None = None

    @property
    def exit_status(self) -> int:
        """The exit status of the process of this run."""
        if self.signal is not None:
            return exit_status(self.signal)
        return 1 if self.state is State.FAILED else 0

    def to_json(self) -> str:
        """Return the text of results/<run>.json; numbers that are not finite become null."""
        content = asdict(replace(self, config=dict(self.config), history=()))
        del content["history"], content["signal"]
        plain = replace_nonfinite({"version": RESULT_VERSION, **content})
        return json.dumps(plain, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunResult":
        """Return the result that `to_json` wrote, without history; raise ValueError otherwise."""
        content = json.loads(text)
        if not isinstance(content, dict) or not {"config", "state", "run_name"} <= set(content):
            raise ValueError("not the result of a run")
        version = content.pop("version", RESULT_VERSION)
        if not isinstance(version, int) or version > RESULT_VERSION:
            raise ValueError(f"written by a newer version ({version})")
        content["state"] = State(content["state"])
        for name, kind in (("best", Best), ("stop_reason", StopReason), ("sweep", SweepTrial)):
            content[name] = kind(**content[name]) if content.get(name) else None
        content["unsynced"] = tuple(content.get("unsynced") or ())
        return cls(**content)

    @classmethod
    def read(cls, path: Path) -> "RunResult | None":
        """Return the result in a file, or None if the file is missing or damaged."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return None


def replace_nonfinite(value: Any) -> Any:
    """Return `value` for JSON: nan and infinities become None."""
    # Python writes nan as the word NaN, which is not JSON.
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def exit_status(signum: int) -> int:
    """Return the exit status after a signal: 130, 143, or 75 for "preempted"."""
    return EXIT_STATUS.get(signum, 128 + signum)


def assigned_trial(environ: Mapping[str, str] = os.environ) -> SweepTrial | None:
    """Return the sweep and the run for which W&B's own agent started this process."""
    sweep, run = environ.get("WANDB_SWEEP_ID"), environ.get("WANDB_RUN_ID")
    return SweepTrial(sweep, run) if sweep and run else None

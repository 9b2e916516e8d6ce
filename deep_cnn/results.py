"""Define the result of a run on disk: its epochs, how it ended, and its JSON form."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from deep_cnn.names import MORE_IS_BETTER
from deep_cnn.processes import EXIT_STATUS

RESULT_VERSION = 1
_DEEPEST = 20


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
class LookAtTest:
    """One look at the test split.

    Attributes:
        checkpoint: The checkpoint that was evaluated.
        epoch: The last epoch that the checkpoint was trained for.
        time: The time in UTC, as `2026-01-31T12:00:00Z`.
        file: The name of the file with the predictions, beside the result.
        metrics: The value of each metric.
        intervals: The 95 % bootstrap interval of each metric, or None if there is none.
        pictures: The number of pictures.
    """

    checkpoint: str
    epoch: int
    time: str
    file: str
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    pictures: int = 0

    @property
    def values(self) -> dict[str, float]:
        """The metrics, with nan for null."""
        return {k: math.nan if value is None else value for k, value in self.metrics.items()}


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the content of results/<run>.json, and the history.

    Attributes:
        test: The metrics of the first look at the test split. It is None if the run has been
            resumed since then and has another best epoch.
        first_test: The first look, which no later one replaces.
        later_tests: The looks after the first.
        unsynced: The folders of W&B whose upload is not complete.
        program: The command line of a trial that runs another program than deep_cnn.
    """

    run_name: str
    state: State
    config: Mapping[str, Any]
    stop_reason: StopReason | None = None
    sweep: SweepTrial | None = None
    environment: Mapping[str, Any] | None = None
    best: Best | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    test: Mapping[str, float | None] | None = None
    seconds: float = 0.0
    error: str | None = None
    unsynced: tuple[str, ...] = ()
    first_test: LookAtTest | None = None
    later_tests: tuple[LookAtTest, ...] = ()
    history: tuple[EpochRecord, ...] = ()
    signal: int | None = None
    program: str | None = None

    @property
    def exit_status(self) -> int:
        """The exit status of the process of this run."""
        if self.signal is not None:
            return exit_status(self.signal)
        return 1 if self.state is State.FAILED else 0

    @property
    def looks(self) -> int:
        """The number of looks at the test split."""
        return int(bool(self.test or self.first_test)) + len(self.later_tests)

    @property
    def valid_test(self) -> LookAtTest | None:
        """The look to show beside the best epoch: the first, or else a later one at that epoch."""
        if self.test is not None:
            # Earlier versions recorded the metrics alone.
            return self.first_test or LookAtTest("", -1, "", "", self.test)
        epoch = self.best.epoch if self.best else None
        return next((look for look in self.later_tests if look.epoch == epoch), None)

    def with_tests_of(self, earlier: "RunResult", *, has_new_epochs: bool) -> "RunResult":
        """Return this result of a resumed run with the looks at the test split before."""
        first = earlier.first_test
        is_of_best = first is not None and self.best is not None and first.epoch == self.best.epoch
        test = earlier.test if is_of_best or not has_new_epochs else None
        return replace(self, test=test, first_test=first, later_tests=earlier.later_tests)

    def to_json(self) -> str:
        """Return the text of results/<run>.json; numbers that are not finite become null."""
        content = asdict(replace(self, config=dict(self.config), history=()))
        del content["history"], content["signal"]
        for name in ("first_test", "program"):  # They are there only where they mean something.
            if content[name] is None:
                del content[name]
        plain = replace_nonfinite({"version": RESULT_VERSION, **content})
        return json.dumps(plain, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunResult":
        """Return the result that `to_json` wrote, without history; raise ValueError otherwise."""
        try:
            content = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if _is_deep(content):
            raise ValueError("nested too deeply")
        if not isinstance(content, dict) or not {"config", "state", "run_name"} <= set(content):
            raise ValueError("not the result of a run")
        version = content.pop("version", RESULT_VERSION)
        if not isinstance(version, int) or version > RESULT_VERSION:
            raise ValueError(f"written by a newer version ({version})")
        optional = {name: content[name] for name in _MAY_BE_NULL if content.get(name) is not None}
        others = {name: value for name, value in content.items() if name not in _MAY_BE_NULL}
        try:
            return _result_type().validate_python({**others, **optional})
        except ValidationError as error:
            detail = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None

    @classmethod
    def read(cls, path: Path) -> "RunResult | None":
        """Return the result in a file, or None if the file is missing or damaged."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def _is_deep(value: Any) -> bool:
    """Return whether a value of JSON is nested deeper than any result; copies would fail."""
    level = [value]
    for _ in range(_DEEPEST):
        inside = [one.values() if isinstance(one, dict) else one for one in level]
        level = [inner for one in inside if isinstance(one, Iterable) for inner in one]
        level = [one for one in level if isinstance(one, dict | list)]
    return bool(level)


# Lists of the result that other versions may have written as null.
_MAY_BE_NULL = ("unsynced", "later_tests")


@cache
def _result_type() -> TypeAdapter[RunResult]:
    return TypeAdapter(RunResult)  # Built only when the first result is read.


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

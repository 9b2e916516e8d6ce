"""Define the records of a trial: how it stands, and how it ended."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, FiniteFloat, TypeAdapter

from deep_cnn.files import safe_name
from deep_cnn.results import StopReason
from deep_cnn.sweep.spec.values import Point

Record = TypeVar("Record")
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Draw:
    """A configuration as its file holds it, and the `u` that its values were drawn with."""

    point: dict[str, Any]
    u: dict[str, Fraction] | None = None


@dataclass(frozen=True, slots=True)
class RunName:
    """The run of a trial whose usual name was taken."""

    run_name: str


@dataclass(frozen=True, slots=True)
class ClaimEnd:
    """How a claim ended without a result; earlier versions wrote `reopened`, too."""

    state: Literal["failed", "interrupted", "reopened"]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """The result of a trial, as its `done` file holds it.

    Attributes:
        state: finished or stopped.
        value: The best value of the sweep's metric, or None if no epoch has a finite one.
        run_name: The run of the trial.
        values: The metric of each epoch.
        epochs: The number of epochs that were trained.
        stop_reason: Why the run was stopped early.
        seconds: The duration of the run.
        claim: The claim whose work folder has the files, or None if no folder ever had them.
        same_as: The earlier trial with an equal configuration whose result this is.
    """

    state: Literal["finished", "stopped"]
    value: FiniteFloat | None = None
    run_name: str | None = None
    values: tuple[float, ...] = ()
    epochs: int | None = None
    stop_reason: StopReason | None = None
    seconds: float | None = None
    claim: int | None = None
    same_as: int | None = None

    def to_json(self) -> str:
        """Return the text of a `done` file."""
        return json.dumps(asdict(self), sort_keys=True)


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    return TypeAdapter(kind)


def read_record(kind: type[Record], text: bytes | None) -> Record | None:
    """Return the record in the text of a state file, or None if it is missing or damaged."""
    if text is None:
        return None
    try:
        record: Record = _adapter(cast(Any, kind)).validate_python(json.loads(text))
    except (ValueError, RecursionError):
        return None
    if isinstance(record, TrialOutcome) and record.value is not None and not record.values:
        return None  # It has a best value of nothing.
    name = getattr(record, "run_name", None)
    # A name from a damaged file must not lead out of the folder for results.
    return None if name is not None and safe_name(name) != name else record


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as it stands in the store.

    Attributes:
        number: The number of the trial, counted from 0.
        point: The configuration, or None if its file is damaged.
        state: waiting, running, interrupted, failed, finished or stopped.
        claim: The number of the last claim, or -1 if there was none.
        failures: The failures since the trial was last reopened.
        tried: Whether the trial has ever failed.
        run_name: The run of the trial, if one has begun.
        outcome: The result, if the trial is over.
        error: The last error.
        u: What the values were drawn with, if they were drawn and the file says so.
    """

    number: int
    point: Point | None
    state: str = "waiting"
    claim: int = -1
    failures: int = 0
    tried: bool = False
    run_name: str | None = None
    outcome: TrialOutcome | None = None
    error: str | None = None
    u: Mapping[str, float] | None = None

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return self.outcome is not None

    @property
    def value(self) -> float | None:
        """The best value of the metric, or None if there is no result with one."""
        return self.outcome.value if self.outcome else None

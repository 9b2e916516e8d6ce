"""Define the records of a trial: how it stands, and how it ended."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deep_cnn.results import StopReason
from deep_cnn.sweep.spec.values import Point


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
    """

    state: str
    value: float | None = None
    run_name: str | None = None
    values: tuple[float, ...] = ()
    epochs: int | None = None
    stop_reason: StopReason | None = None
    seconds: float | None = None

    def to_json(self) -> str:
        """Return the text of a `done` file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_content(cls, content: Mapping[str, Any] | None) -> "TrialOutcome | None":
        """Return the outcome in the content of a `done` file, or None if it is none."""
        if content is None or not {"state", "value"} <= content.keys():
            return None
        known = {field.name for field in fields(cls)} & content.keys()
        reason = content.get("stop_reason")
        try:
            return cls(
                **{name: content[name] for name in known - {"values", "stop_reason"}},
                values=tuple(content.get("values") or ()),
                stop_reason=StopReason(**reason) if reason else None,
            )
        except TypeError:
            return None


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

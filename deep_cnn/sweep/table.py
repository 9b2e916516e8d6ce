"""The trials of a sweep as a table, and which of them are best."""

import json
from collections.abc import Sequence
from pathlib import Path

from deep_cnn.sweep.spec import SweepSpec
from deep_cnn.sweep.store import Trial
from deep_cnn.writing import write_csv


def write_table(path: Path, spec: SweepSpec, trials: Sequence[Trial]) -> None:
    """Write trials.csv: a row for each trial, a column for each parameter; OutputError."""
    points = [dict.fromkeys(spec.space), *(t.point for t in trials if t.point)]
    names = sorted({name for point in points for name in spec.leaves(point)})
    ends = ("value", "epochs", "stop_reason", "seconds")
    columns = ["trial", "state", "run_name", *names, *ends]
    rows = []
    for trial in trials:
        found = trial.outcome or {}
        point = spec.leaves(trial.point or {})
        reason = found.get("stop_reason")
        rows.append(
            [trial.number, trial.state, trial.run_name or ""]
            + [point.get(name, "") for name in names]
            + [_empty(found.get(key)) for key in ("value", "epochs")]
            + [json.dumps(reason) if reason else "", _empty(found.get("seconds"))]
        )
    write_csv(path, columns, rows)


def _empty(value: object) -> object:
    return "" if value is None else value


def best_trials(spec: SweepSpec, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have a value, best first."""
    goal = spec.metric.goal if spec.metric else "minimize"
    valued = [t for t in trials if t.outcome and t.outcome["value"] is not None]
    sign = -1 if goal == "maximize" else 1
    return sorted(valued, key=lambda t: sign * float((t.outcome or {})["value"]))

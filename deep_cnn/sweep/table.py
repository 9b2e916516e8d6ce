"""The trials of a sweep as a table, and which of them are best."""

import json
from collections.abc import Sequence
from pathlib import Path

from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.store import Trial
from deep_cnn.writing import to_csv, write_text


def write_table(path: Path, spec: SweepSpec, trials: Sequence[Trial]) -> None:
    """Write trials.csv: a row for each trial, a column for each parameter; OutputError."""
    import pandas as pd

    points = [spec.leaves(trial.point or {}) for trial in trials]
    names = sorted(
        {*spec.leaves(dict.fromkeys(spec.space)), *(n for point in points for n in point)}
    )
    ends = ("value", "epochs", "stop_reason", "seconds")
    rows = []
    for trial, point in zip(trials, points, strict=True):
        outcome = dict(trial.outcome or {})
        if outcome.get("stop_reason"):
            outcome["stop_reason"] = json.dumps(outcome["stop_reason"])
        parameters = [point.get(name) for name in names]
        rows.append(
            [trial.number, trial.state, trial.run_name, *parameters, *map(outcome.get, ends)]
        )
    # A parameter may have the name of a column, so that two have it.
    columns = ["trial", "state", "run_name", *names, *ends]
    write_text(path, to_csv(pd.DataFrame(rows, columns=columns, dtype=object)))


def best_trials(spec: SweepSpec, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that have a value, best first."""
    sign = spec.objective.sign
    valued = [t for t in trials if t.outcome and t.outcome["value"] is not None]
    return sorted(valued, key=lambda t: sign * float((t.outcome or {})["value"]))

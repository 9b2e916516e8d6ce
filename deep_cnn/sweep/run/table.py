"""Write the trials of a sweep as a table, and rank them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from deep_cnn.files import to_csv, write_text
from deep_cnn.sweep.run.records import Trial, TrialOutcome
from deep_cnn.sweep.spec.schema import SweepSpec

_FIRST = ("trial", "state", "run_name")
_LAST = ("value", "epochs_run", "stop_reason", "seconds")


def write_table(path: Path, spec: SweepSpec, trials: Sequence[Trial]) -> None:
    """Write trials.csv: a row for each trial, a column for each parameter."""
    import pandas as pd

    points = [spec.leaves(trial.point or {}) for trial in trials]
    names = sorted(
        {*spec.leaves(dict.fromkeys(spec.space)), *(n for point in points for n in point)}
    )
    rows = [
        [
            *(trial.number, trial.state, trial.run_name),
            *(point.get(name) for name in names),
            *_end_columns(trial.outcome),
        ]
        for trial, point in zip(trials, points, strict=True)
    ]
    taken = (*_FIRST, *_LAST)
    named = [f"config.{name}" if name in taken else name for name in names]
    columns = [*_FIRST, *named, *_LAST]
    write_text(path, to_csv(pd.DataFrame(rows, columns=columns, dtype=object)))


def _end_columns(outcome: TrialOutcome | None) -> tuple[object, ...]:
    if outcome is None:
        return (None,) * 4
    reason = outcome.stop_reason
    text = json.dumps(asdict(reason), sort_keys=True) if reason else None
    return outcome.value, outcome.epochs, text, outcome.seconds


def best_trials(spec: SweepSpec, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have a value of a run of their own, best first."""
    valued = [t for t in trials if t.outcome is not None and t.outcome.same_as is None]
    costs = [(spec.objective.sign * t.value, t) for t in valued if t.value is not None]
    return [trial for _, trial in sorted(costs, key=lambda pair: pair[0])]

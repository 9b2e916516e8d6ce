"""Run chosen configurations of a sweep again, as a sweep of their own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deep_cnn.sweep.run.engine import EngineOptions, LocalSweep, SweepSummary
from deep_cnn.sweep.spec.points import Proposal
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key, to_jsonable


def run_points(
    spec: SweepSpec, suffix: str, points: Sequence[Point], out: Path, options: EngineOptions
) -> SweepSummary:
    """Run these configurations of a sweep to their end, as trials of a sweep `<name><suffix>`."""
    # Nothing is proposed beyond a limit of 0.
    sweep = LocalSweep(_without_search(spec, suffix), out, options, limit=0)
    trials = sweep.store.trials()
    known, number = {key_of(trial.point) for trial in trials}, len(trials)
    for point in points:
        if key_of(point) not in known:
            known.add(key_of(point))
            sweep.store.propose(number, Proposal(point))
            number += 1
    summary = sweep.run(total=number)
    sweep.close(summary.trials, export=summary.signal is None)
    return summary


def key_of(point: Point | None) -> str:
    """Return what two configurations share if they are the same but for the name of the run."""
    return canonical_key({k: v for k, v in (point or {}).items() if k != "run_name"})


def _without_search(spec: SweepSpec, suffix: str) -> SweepSpec:
    """Return the sweep `<name><suffix>`, in which every trial runs to its end."""
    name = f"{spec.name}{suffix}"
    content = {k: v for k, v in spec.content.items() if k not in ("early_terminate", "run_cap")}
    content = {**to_jsonable(content), "name": name}
    return replace(spec, name=name, content=content, early_terminate=None, run_cap=None, earlier=())

"""What may be believed of a sweep's winner: repeats with other seeds, and a last fit."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_cnn.errors import SpecError
from deep_cnn.files import to_csv, write_text
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key

_LEVEL = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Repeated:
    """A configuration that was run again: `values` by seed, of the runs that gave one."""

    trial: Trial
    values: Mapping[int, float]
    best_epochs: Sequence[int]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def sd(self) -> float:
        """The standard deviation of a single run (n - 1 in the denominator); nan for one run."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether no difference at all lies outside of it."""
        return not self.low <= 0 <= self.high


def bootstrap(differences: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of paired differences, (N,), with its 95 % percentile bootstrap interval."""
    import numpy as np
    from scipy.stats import bootstrap as resample

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), -math.inf, math.inf)
    found = resample(
        (values,),
        np.mean,
        confidence_level=_LEVEL,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(values.mean()), float(found.low), float(found.high))


def changed(point: Point, **leaves: Any) -> Point:
    """Return the configuration with these options set, wherever they were in it."""
    kept = {k: v for k, v in point.items() if k.rpartition("/")[2] not in leaves}
    return {**kept, **leaves}


def distinct_but_for_seed(trials: Sequence[Trial]) -> list[Trial]:
    """Return the first trial of each configuration, whatever its seed."""
    found: dict[str, Trial] = {}
    for trial in trials:
        assert trial.point is not None
        found.setdefault(canonical_key(changed(trial.point, seed=0)), trial)
    return list(found.values())


def unused_seeds(spec: SweepSpec, trials: Sequence[Trial], count: int) -> list[int]:
    """`count` seeds above all that the sweep has used."""
    used = [spec.config(trial.point).seed for trial in trials if trial.point is not None]
    return list(range(max(used, default=0) + 1, max(used, default=0) + 1 + count))


def repeats_of(spec: SweepSpec, best: Sequence[Trial], seeds: Sequence[int]) -> list[Point]:
    """Return each of these trials with each of the seeds.

    The run that was chosen does not count: it was chosen because it came out well.
    """
    points = []
    for trial in best:
        assert trial.point is not None
        for seed in seeds:
            point = changed(trial.point, seed=seed)
            if spec.config(point).seed != seed:
                raise SpecError("the command of the sweep sets --seed itself; remove it there")
            points.append(point)
    return points


def collect(
    spec: SweepSpec, best: Sequence[Trial], repeats: Sequence[Trial], seeds: Sequence[int]
) -> list[Repeated]:
    """Return what the repeats of each trial gave, the best mean first."""
    by_point = {canonical_key(trial.point): trial for trial in repeats}
    found = []
    for trial in best:
        values, epochs = {}, []
        for seed, point in zip(seeds, repeats_of(spec, [trial], seeds), strict=True):
            run = by_point.get(canonical_key(point))
            if run is not None and run.value is not None:
                values[seed] = run.value
                epochs.append(best_epoch(spec, run))
        if values:
            found.append(Repeated(trial, values, epochs))
    return sorted(found, key=lambda repeated: spec.objective.sign * repeated.mean)


def check_possible(spec: SweepSpec, point: Point) -> None:
    """SpecError, before anything is trained, where the command forbids repeats and a refit."""
    trial = Trial(0, point, run_name="x")
    repeats_of(spec, [trial], [4_000_000_000])
    refit_of(spec, trial, spec.config(point).epochs)


def best_epoch(spec: SweepSpec, trial: Trial) -> int:
    """Return the epoch in which a trial was at its best, counted from 0."""
    assert trial.outcome is not None
    assert trial.point is not None
    values = list(trial.outcome.values)
    best = spec.objective.best(values)
    return spec.config(trial.point).initial_epoch + values.index(
        values[-1] if best is None else best
    )


def difference(first: Repeated, second: Repeated) -> Interval:
    """First minus second, paired by seed: the same seed has the same validation pictures."""
    seeds = sorted(first.values.keys() & second.values.keys())
    return bootstrap([first.values[seed] - second.values[seed] for seed in seeds])


def describe(spec: SweepSpec, found: Sequence[Repeated], count: int) -> list[str]:
    """Return the repeats as a table, and whether the first is distinguishable from the second."""
    name = spec.objective.name
    lines = [f"{len(found)} best configurations, {count} other seeds each, {name}:"]
    lines.append(f"{'trial':>6}  {'mean ± sd':<24}  {'runs':>4}  run")
    for one in found:
        text = f"{one.mean:.6g} ± {one.sd:.2g}"
        lines.append(
            f"{one.trial.number:>6}  {text:<24}  {len(one.values):>4}  {one.trial.run_name}"
        )
    if len(found) < 2:
        return lines
    first, second = found[:2]
    interval = difference(first, second)
    lines.append(
        f"trial {first.trial.number} minus trial {second.trial.number}: {interval.mean:.4g},"
        f" 95 % interval {interval.low:.4g} to {interval.high:.4g} (bootstrap over paired seeds)"
    )
    if not interval.distinguishable:
        lines.append("The first and the second are not distinguishable.")
    return lines


def keep(path: Path, found: Sequence[Repeated]) -> None:
    """Write what each repeat gave: repeats.csv, `trial,run_name,seed,value`."""
    import pandas as pd

    rows = [
        (one.trial.number, one.trial.run_name, seed, value)
        for one in found
        for seed, value in one.values.items()
    ]
    columns = ["trial", "run_name", "seed", "value"]
    write_text(path, to_csv(pd.DataFrame(rows, columns=columns, dtype=object)))


def refit_of(spec: SweepSpec, winner: Trial, epochs: int) -> Point:
    """Return the winner's configuration on train + validation, for as many epochs as were best."""
    assert winner.point is not None
    name = f"refit-{winner.run_name}"
    point = changed(winner.point, train_on="train+val", epochs=epochs, run_name=name, patience=None)
    config = spec.config(point)
    if (config.train_on, config.epochs) != ("train+val", epochs):
        raise SpecError("the command of the sweep sets --train_on or --epochs itself; remove it")
    return point

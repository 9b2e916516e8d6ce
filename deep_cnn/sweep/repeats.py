"""Test the best trials of a sweep with repeats under new seeds, and refit the winner."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_cnn.errors import SpecError
from deep_cnn.files import write_csv
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key

_RESAMPLES = 10_000
# A seed that no sweep file sets, to test whether its command accepts a seed.
_TRIED_SEED = 4_000_000_000


@dataclass(frozen=True, slots=True)
class Repeated:
    """A configuration that was run again, with `values` by seed for runs that have a value."""

    trial: Trial
    values: Mapping[int, float]
    best_epochs: Sequence[int]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values.values())

    def __str__(self) -> str:
        # A single run has no standard deviation (n - 1 in the denominator).
        sd = statistics.stdev(self.values.values()) if len(self.values) > 1 else math.nan
        text = f"{self.mean:.6g} ± {sd:.2g}"
        return f"{self.trial.number:>6}  {text:<24}  {len(self.values):>4}  {self.trial.run_name}"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes zero."""
        return not self.low <= 0 <= self.high


def bootstrap(differences: Sequence[float]) -> Interval:
    """Return the mean of paired differences, (N,), with its 95 % percentile bootstrap interval."""
    import numpy as np
    from scipy.stats import bootstrap as resample

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), -math.inf, math.inf)
    # Seeded, so that a report on the same runs is reproducible.
    rng = np.random.default_rng(0)
    interval = resample(
        (values,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=rng
    ).confidence_interval
    return Interval(float(values.mean()), float(interval.low), float(interval.high))


def changed(point: Point, **leaves: Any) -> Point:
    """Return the configuration with these options set, even inside nested values."""
    others = {k: v for k, v in point.items() if k.rpartition("/")[2] not in leaves}
    return {**others, **leaves}


def seed_name(spec: SweepSpec, wanted: str | None) -> str:
    """Return the name of the parameter in the space that is the seed of a program.

    Args:
        spec: The sweep.
        wanted: The name, with dots if it is nested; None means `seed`.

    Raises:
        SpecError: It is not known which parameter that is.
    """
    if spec.runs_deep_cnn:
        if wanted not in (None, "seed"):
            raise SpecError(f"the seed of deep_cnn is --seed; leave out --seed_parameter={wanted}")
        return "seed"
    if wanted is None and "seed" not in spec.space:
        raise SpecError(
            "--repeats needs the name of the program's seed: the file has no parameter seed; add"
            " --seed_parameter=NAME"
        )
    return (wanted or "seed").replace(".", "/")


def _with_seed(spec: SweepSpec, trial: Trial, name: str, seed: int) -> Point:
    point = _point(trial)
    return changed(point, seed=seed) if spec.runs_deep_cnn else {**point, name: seed}


def _point(trial: Trial) -> Point:
    assert trial.point is not None, "what was run has a configuration"
    return trial.point


def distinct_but_for_seed(spec: SweepSpec, trials: Sequence[Trial], name: str) -> list[Trial]:
    """Return the first trial of each configuration, ignoring the seed, which has this name."""
    by_key: dict[str, Trial] = {}
    for trial in trials:
        by_key.setdefault(canonical_key(_with_seed(spec, trial, name, 0)), trial)
    return list(by_key.values())


def unused_seeds(spec: SweepSpec, trials: Sequence[Trial], count: int, name: str) -> list[int]:
    """Return `count` seeds that are larger than all seeds of the sweep."""
    points = [trial.point for trial in trials if trial.point is not None]
    if spec.runs_deep_cnn:
        used = [spec.config(point).seed for point in points]
    else:
        used = [v for v in (point.get(name) for point in points) if type(v) is int]
    return [max(used, default=0) + i for i in range(1, count + 1)]


def repeats_of(
    spec: SweepSpec, best: Sequence[Trial], seeds: Sequence[int], name: str
) -> list[Point]:
    """Return the configuration of each trial with each seed.

    The chosen runs themselves do not count, because they were chosen for their results.
    """
    points = [_with_seed(spec, trial, name, seed) for trial in best for seed in seeds]
    for point in points if spec.runs_deep_cnn else ():
        if spec.config(point).seed != point["seed"]:
            raise SpecError("the command of the sweep sets --seed itself; remove it there")
    return points


def collect(
    spec: SweepSpec,
    best: Sequence[Trial],
    runs: Sequence[Trial],
    seeds: Sequence[int],
    name: str,
) -> list[Repeated]:
    """Return the results of the `runs` for each of the best trials, best mean first."""
    by_point = {canonical_key(run.point): run for run in runs if run.point is not None}
    repeated = []
    for trial in best:
        values, epochs = {}, []
        for seed, point in zip(seeds, repeats_of(spec, [trial], seeds, name), strict=True):
            run = by_point.get(canonical_key(point))
            if run is not None and run.value is not None:
                values[seed] = run.value
                epochs.append(best_epoch(spec, run))
        if values:
            repeated.append(Repeated(trial, values, epochs))
    return sorted(repeated, key=lambda one: spec.objective.sign * one.mean)


def check_possible(spec: SweepSpec, point: Point, seed_parameter: str | None) -> None:
    """Raise SpecError, before any training, if the command rules out repeats and a refit."""
    trial = Trial(0, point, run_name="x")
    repeats_of(spec, [trial], [_TRIED_SEED], seed_name(spec, seed_parameter))
    if spec.runs_deep_cnn:
        refit_of(spec, trial, spec.config(point).epochs)


def best_epoch(spec: SweepSpec, trial: Trial) -> int:
    """Return the epoch with the best value of a trial, starting from 0."""
    assert trial.outcome is not None
    values = trial.outcome.values
    best = spec.objective.best(values)
    index = values.index(values[-1] if best is None else best)
    return index + (spec.config(_point(trial)).initial_epoch if spec.runs_deep_cnn else 0)


def describe(spec: SweepSpec, repeated: Sequence[Repeated], count: int) -> list[str]:
    """Return lines with a table of the repeats, and whether the first two are distinguishable."""
    lines = [
        f"{len(repeated)} best configurations, {count} other seeds each, {spec.objective.name}:",
        f"{'trial':>6}  {'mean ± sd':<24}  {'runs':>4}  run",
        *map(str, repeated),
    ]
    if len(repeated) < 2:
        return lines
    first, second = repeated[:2]
    # Paired by seed: the same seed has the same validation pictures.
    seeds = sorted(first.values.keys() & second.values.keys())
    interval = bootstrap([first.values[seed] - second.values[seed] for seed in seeds])
    lines.append(
        f"trial {first.trial.number} minus trial {second.trial.number}: {interval.mean:.4g},"
        f" 95 % interval {interval.low:.4g} to {interval.high:.4g} (bootstrap over paired seeds)"
    )
    if not interval.distinguishable:
        lines.append("The first and the second are not distinguishable.")
    return lines


def write_repeats(path: Path, repeated: Sequence[Repeated]) -> None:
    """Write repeats.csv, `trial,run_name,seed,value`, with the value of each repeat."""
    rows = [
        (one.trial.number, one.trial.run_name, seed, value)
        for one in repeated
        for seed, value in one.values.items()
    ]
    write_csv(path, ("trial", "run_name", "seed", "value"), rows)


def refit_of(spec: SweepSpec, winner: Trial, epochs: int) -> Point:
    """Return the winner's configuration for training on train + validation for `epochs` epochs."""
    point = changed(_point(winner), train_on="train+val", epochs=epochs, patience=None)
    config = spec.config(point)
    if (config.train_on, config.epochs) != ("train+val", epochs):
        raise SpecError("the command of the sweep sets --train_on or --epochs itself; remove it")
    return point

"""Run a Bayesian search with Optuna's Gaussian process, rebuilt from all trials each time.

Optuna sees a number as u in [0, 1], the argument of its inverse CDF, so that the search respects
each distribution. Categories and booleans are unordered. Running trials count, so that workers
that ask at the same time do not get the same candidate.
"""

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from deep_cnn.results import Metric
from deep_cnn.sweep.search.propose import Observation
from deep_cnn.sweep.spec.distributions import Distribution
from deep_cnn.sweep.spec.numeric import Continuous, Gaussian, Numeric
from deep_cnn.sweep.spec.points import Proposal
from deep_cnn.sweep.spec.schema import SweepMetric, SweepSpec
from deep_cnn.sweep.spec.values import Point, value_key

# The number of configurations that are evaluated at once.
_CHUNK = 4096


def suggest(
    spec: SweepSpec, seed: int, earlier: Sequence[Observation], unused: Sequence[Point] | None
) -> Proposal:
    """Return the configuration with the largest expected improvement.

    It is one of `unused` if that is given. Otherwise it may repeat an earlier configuration.
    """
    searched = {name: one for name, one in spec.space.items() if one.size != 1}
    point = {name: one.ppf(0.5) for name, one in spec.space.items() if one.size == 1}
    if not searched:
        return Proposal(point)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    coordinates = _Coordinates(searched)
    sampler = _Sampler(seed + len(earlier), [coordinates.of(point) for point in unused or ()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=sampler, direction=spec.objective.goal)
        study.add_trials(_trials(coordinates, spec.objective, earlier))
        params = study.ask(coordinates.axes).params
    if unused is not None:
        return Proposal(unused[sampler.chosen])
    u = {}
    for name, one in searched.items():
        if isinstance(one, Numeric):
            u[name], point[name] = params[name], one.ppf(params[name])
        else:
            point[name] = one.values[params[name]]
    return Proposal(dict(sorted(point.items())), u)


class _Sampler(optuna.samplers.GPSampler):
    """Optuna's sampler, restricted to the `candidates` if there are any."""

    def __init__(self, seed: int, candidates: list[dict[str, float]]) -> None:
        super().__init__(seed=seed, n_startup_trials=1)
        self.candidates = candidates
        self.chosen = 0

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        """Return the normalized parameters, (d,), with the largest expected improvement."""
        if not self.candidates:
            return super()._optimize_acqf(acqf, best_params)
        table = acqf.search_space.get_normalized_params(self.candidates, self.candidates)
        parts = np.array_split(table, len(table) // _CHUNK + 1)
        gains = [acqf.eval_acqf_no_grad(part) for part in parts]
        self.chosen = int(np.concatenate(gains).argmax())
        return table[self.chosen]


class _Coordinates:
    """Configurations as Optuna's coordinates: u for a number, an index for a category."""

    def __init__(self, space: Mapping[str, Distribution]) -> None:
        self.space = space
        self.axes = {name: _axis(searched) for name, searched in space.items()}
        self._inverses = {name: _inverse(searched) for name, searched in space.items()}

    def of(self, point: Point, u: Mapping[str, float] | None = None) -> dict[str, float]:
        """Return the coordinates of a configuration, which was drawn with `u` unless it is None."""
        drawn = u or {}
        return {name: self._coordinate(name, point[name], drawn.get(name)) for name in self.space}

    def _coordinate(self, name: str, value: Any, u: float | None) -> float:
        searched = self.space[name]
        # Many u give the same multiple of q, so the one that was drawn says more. Elsewhere the
        # value itself determines u, whether or not the trial's file has it.
        if u is None or not (isinstance(searched, Continuous) and searched.step is not None):
            u = self._inverses[name](value)
        edge = _edge(searched)
        return min(max(u, edge), 1 - edge) if isinstance(searched, Numeric) else u


def _inverse(searched: Distribution) -> Callable[[Any], float]:
    """Return the function from a value to its coordinate."""
    if isinstance(searched, Numeric):
        # A finite space has many configurations, but few values of each parameter.
        return cache(searched.cdf)
    indices = {value_key(value): i for i, value in enumerate(searched.values)}
    return lambda value: indices[value_key(value)]


def _axis(searched: Distribution) -> BaseDistribution:
    if isinstance(searched, Numeric):
        return FloatDistribution(_edge(searched), 1 - _edge(searched))
    return CategoricalDistribution(list(range(searched.size)))


def _edge(searched: Distribution) -> float:
    # The tails are infinite, so a thousandth on either side is left to random search.
    return 1e-3 if isinstance(searched, Gaussian) else 0.0


def _trials(
    coordinates: _Coordinates, metric: SweepMetric, earlier: Sequence[Observation]
) -> list[FrozenTrial]:
    values = [
        _imputed(metric, one, earlier) if one.failed and one.value is None else one.value
        for one in earlier
    ]
    trials = []
    for one, value in zip(earlier, winsorize(values, metric), strict=True):
        # The file of a trial may be damaged; the search does without that trial.
        with suppress(LookupError, TypeError, ValueError):
            trials.append(
                create_trial(
                    state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
                    params=coordinates.of(one.point, one.u),
                    distributions=coordinates.axes,
                    value=value,
                )
            )
    return trials


def winsorize(values: Sequence[float | None], metric: Metric) -> list[float | None]:
    """Return `values`, limited so that none is farther from the median than the best.

    The size of an exploded loss would hide the differences between all other values. The worst
    of ten searches ended at 0.247 without this limit and at 0.165 with it (search.py).
    """
    costs = [metric.sign * value for value in values if value is not None]
    limit = 2 * statistics.median(costs) - min(costs) if costs else 0.0
    return [v if v is None else metric.sign * min(metric.sign * v, limit) for v in values]


def _imputed(metric: SweepMetric, failed: Observation, earlier: Sequence[Observation]) -> float:
    """Return the value that metric.impute assigns to a trial without a value."""
    if failed.own is not None:
        return failed.own
    values = [one.value for one in earlier if one.value is not None]
    return max(values, key=lambda value: metric.sign * value, default=0.0)

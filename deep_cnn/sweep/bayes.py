"""Bayesian search: Optuna's Gaussian process, rebuilt from what was tried at each ask.

A number moves as u in [0, 1] through its inverse CDF, so that the process sees every distribution
as it was meant; categories and booleans are unordered. Running trials count, so that workers that
ask at the same time are not sent to the same place.
"""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from deep_cnn.sweep.space import Domain, Point, Seen, identity
from deep_cnn.sweep.spec import Metric

_UNBOUNDED = ("normal", "log_normal", "q_normal", "q_log_normal")
_STEPS = 50
_PART = 4096


def suggest(
    space: Mapping[str, Domain],
    metric: Metric,
    seed: int,
    seen: Sequence[Seen],
    unused: Sequence[Point] | None = None,
) -> Point:
    """The configuration with the largest expected gain: of the `unused` ones where they are listed.

    Otherwise of all, and it may be one that was seen.
    """
    searched = {name: domain for name, domain in space.items() if not _fixed(domain)}
    fixed = {name: domain.at(0.5) for name, domain in space.items() if _fixed(domain)}
    if not searched:
        return fixed
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(domain) for name, domain in searched.items()}
    names: dict[str, StudyDirection] = {d.name.lower(): d for d in StudyDirection}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where = _Places(searched, distributions)
        places = [where.of(point) for point in unused or ()]
        sampler = _Sampler(seed + len(seen), distributions, places)
        study = optuna.create_study(sampler=sampler, direction=names[metric.goal])
        study.add_trials(_trials(where, metric, seen))
        params = study.ask(distributions).params
    if unused is not None:
        return unused[sampler.chosen]
    found = {name: _value(domain, params[name]) for name, domain in searched.items()}
    return dict(sorted({**fixed, **found}.items()))


class _Sampler(optuna.samplers.GPSampler):
    """Optuna's; where `places` are given it chooses among them, instead of in the whole cube."""

    def __init__(
        self,
        seed: int,
        distributions: Mapping[str, BaseDistribution],
        places: Sequence[Mapping[str, float]],
    ) -> None:
        super().__init__(seed=seed, n_startup_trials=1)
        self.distributions, self.places = distributions, places
        self.chosen = 0
        self.names: list[str] = []

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Remember the order of the parameters, which is that of the columns below."""
        self.names = list(search_space)
        return super().sample_relative(study, trial, search_space)

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        """Optuna leaves this to be overridden: the normalized parameters, (d,), of largest gain."""
        if not self.places:
            return super()._optimize_acqf(acqf, best_params)
        table = np.array([[self._normal(place, n) for n in self.names] for place in self.places])
        parts = np.array_split(table, len(table) // _PART + 1)
        gains = [acqf.eval_acqf_no_grad(part) for part in parts]
        self.chosen = int(np.concatenate(gains).argmax())
        return table[self.chosen]

    def _normal(self, place: Mapping[str, float], name: str) -> float:
        known = self.distributions[name]
        if isinstance(known, FloatDistribution):
            return (place[name] - known.low) / (known.high - known.low)
        return place[name]


def _fixed(domain: Domain) -> bool:
    return domain.size == 1


def _distribution(domain: Domain) -> BaseDistribution:
    if domain.distribution.startswith("categorical"):
        assert domain.values is not None
        return CategoricalDistribution(list(range(len(domain.values()))))
    # The tails have no end; a thousandth on either side is left to random search.
    edge = 1e-3 if domain.distribution in _UNBOUNDED else 0.0
    return FloatDistribution(edge, 1.0 - edge)


def _value(domain: Domain, place: float) -> object:
    if domain.distribution.startswith("categorical"):
        assert domain.values is not None
        return domain.values()[int(place)]
    return domain.at(place)


def _place(domain: Domain, value: object) -> float:
    """The inverse of `_value`: the number of a category, the middle of the u that give a value."""
    if domain.distribution.startswith(("categorical", "constant")):
        assert domain.values is not None
        return [identity(v) for v in domain.values()].index(identity(value))
    assert isinstance(value, int | float)
    edges = []
    for beyond in (False, True):
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            at = domain.at(middle)
            left = at > value or (at == value and not beyond)
            low, high = (low, middle) if left else (middle, high)
        edges.append(high)
    return sum(edges) / 2


class _Places:
    """Where configurations lie in the space that Optuna sees."""

    def __init__(
        self, space: Mapping[str, Domain], distributions: dict[str, BaseDistribution]
    ) -> None:
        self.space, self.distributions = space, distributions
        self.known: dict[tuple[str, str], float] = {}

    def of(self, point: Point) -> dict[str, float]:
        """The place of a configuration, by parameter."""
        return {name: self._of(name, point[name]) for name in self.space}

    def _of(self, name: str, value: object) -> float:
        key = (name, identity(value))
        if key not in self.known:
            place, known = _place(self.space[name], value), self.distributions[name]
            if isinstance(known, FloatDistribution):
                place = min(max(place, known.low), known.high)
            self.known[key] = place
        return self.known[key]


def _trials(where: _Places, metric: Metric, seen: Sequence[Seen]) -> list[FrozenTrial]:
    values = [
        _imputed(metric, one, seen) if one.failed and one.value is None else one.value
        for one in seen
    ]
    trials = []
    for one, value in zip(seen, _tamed(values, metric.goal), strict=True):
        trials.append(
            create_trial(
                state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
                params=where.of(one.point),
                distributions=where.distributions,
                value=value,
            )
        )
    return trials


def _tamed(values: Sequence[float | None], goal: str) -> list[float | None]:
    """`values` with the bad ones brought in: none is farther from the median than the best is.

    A loss that exploded says "not here", but its size would flatten all that is worth telling
    apart: with it the worst of ten searches ended at 0.247, without at 0.165 (search.py).
    """
    sign = -1.0 if goal == "maximize" else 1.0
    ended = [sign * value for value in values if value is not None]
    if not ended:
        return list(values)
    middle = statistics.median(ended)
    most = 2 * middle - min(ended)
    return [None if value is None else sign * min(sign * value, most) for value in values]


def _imputed(metric: Metric, failed: Seen, seen: Sequence[Seen]) -> float:
    """What a trial without a value counts as: metric.impute, over all that have ended."""
    if metric.impute == "latest" and failed.latest is not None:
        return failed.latest
    values = [one.value for one in seen if one.value is not None]
    lowest = (metric.impute == "best") == (metric.goal != "maximize")
    return (min if lowest else max)(values, default=0.0)

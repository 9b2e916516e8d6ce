"""Bayesian search: Optuna's Gaussian process, rebuilt from what was tried at each ask.

A number moves as u in [0, 1] through its inverse CDF, so that the process sees every distribution
as it was meant; categories and booleans are unordered. Running trials count, so that workers that
ask at the same time are not sent to the same place.
"""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from deep_cnn.sweep.space import Domain, Point, Seen, identity

_UNBOUNDED = ("normal", "log_normal", "q_normal", "q_log_normal")
_STEPS = 50


def suggest(space: Mapping[str, Domain], goal: str, seed: int, seen: Sequence[Seen]) -> Point:
    """The configuration with the largest expected gain; it may be one that was seen."""
    searched = {name: domain for name, domain in space.items() if not _fixed(domain)}
    fixed = {name: domain.at(0.5) for name, domain in space.items() if _fixed(domain)}
    if not searched:
        return fixed
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(domain) for name, domain in searched.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.GPSampler(seed=seed + len(seen), n_startup_trials=1)
        study = optuna.create_study(
            sampler=sampler, direction="maximize" if goal == "maximize" else "minimize"
        )
        study.add_trials(_trials(searched, distributions, goal, seen))
        params = study.ask(distributions).params
    found = {name: _value(domain, params[name]) for name, domain in searched.items()}
    return dict(sorted({**fixed, **found}.items()))


def nearest(space: Mapping[str, Domain], wanted: Point, unused: Sequence[Point]) -> Point:
    """The unused configuration that is most like the wanted one."""
    places = {name: _place(domain, wanted[name]) for name, domain in space.items()}

    def distance(point: Point) -> float:
        total = 0.0
        for name, domain in space.items():
            place = _place(domain, point[name])
            unordered = domain.distribution.startswith("categorical")
            total += float(place != places[name]) if unordered else (place - places[name]) ** 2
        return total

    return min(unused, key=distance)


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


def _trials(
    space: Mapping[str, Domain],
    distributions: dict[str, BaseDistribution],
    goal: str,
    seen: Sequence[Seen],
) -> list[FrozenTrial]:
    values = [s.value for s in seen if s.value is not None]
    worst = (min if goal == "maximize" else max)(values, default=0.0)
    trials = []
    for one in seen:
        params = {}
        for name, domain in space.items():
            place = _place(domain, one.point[name])
            known = distributions[name]
            if isinstance(known, FloatDistribution):
                place = min(max(place, known.low), known.high)
            params[name] = place
        value = worst if one.failed and one.value is None else one.value
        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        trials.append(
            create_trial(state=state, params=params, distributions=distributions, value=value)
        )
    return trials

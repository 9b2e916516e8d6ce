"""The domain of a parameter: its values by inverse CDF, as a grid, and how many there are.

The definitions are those of wandb/sweeps, `params.py` and `grid_search.py`; u is uniform in [0, 1].
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

# The value of each parameter, by its name; nested names are joined with slashes.
Point = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Domain:
    """The values of one parameter.

    `at(u)` is the inverse CDF. `grid` holds the values that a grid search goes through, or None
    where it cannot. `size` is how many distinct values `at` has, `values()` lists them; both are
    None where there are infinitely many.
    """

    distribution: str
    at: Callable[[float], Any]
    grid: Sequence[Any] | None
    size: int | None
    values: Callable[[], Sequence[Any]] | None
    shown: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A trial as the search sees it; `value` is None while it runs, or where it `failed`.

    `latest` is what a failed one logged last.
    """

    point: Point
    value: float | None = None
    failed: bool = False
    latest: float | None = None


def identity(value: Any) -> str:
    """What makes two values one: 3000000.0 is 3000000, nan is nan, but True is not 1."""
    return json.dumps(_comparable(value), sort_keys=True)


def _comparable(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return {"is": repr(value)}
    if isinstance(value, int):
        return hex(value)  # Of any size, where decimal digits are limited.
    if isinstance(value, float):
        return hex(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Mapping):
        return {"map": {str(k): _comparable(v) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        return {"list": [_comparable(v) for v in value]}
    return {"text": str(value)}


def distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """`values` without repetitions, in order."""
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(identity(value), value)
    return tuple(found.values())


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: keys as text, dates and the like as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def constant(value: Any) -> Domain:
    """One value."""
    return Domain("constant", lambda u: value, (value,), 1, lambda: (value,), repr(value))


def categorical(values: Sequence[Any], probabilities: Sequence[float] | None = None) -> Domain:
    """One of `values`, each as likely, or with these probabilities."""
    if probabilities is None:
        count = len(values)
        unique = distinct(values)
        return Domain(
            "categorical",
            lambda u: values[min(int(u * count), count - 1)],
            unique,
            len(unique),
            lambda: unique,
            f"one of {', '.join(map(repr, unique))}",
        )
    possible = [v for v, p in zip(values, probabilities, strict=True) if p > 0]

    def at(u: float) -> Any:
        total = 0.0
        for value, probability in zip(values, probabilities, strict=True):
            total += probability
            if u < total:
                return value
        return possible[-1]

    shown = ", ".join(f"{v!r} ({p:g})" for v, p in zip(values, probabilities, strict=True))
    unique = distinct(possible)
    return Domain(
        "categorical_w_probabilities", at, None, len(unique), lambda: unique, f"one of {shown}"
    )


def int_uniform(low: int, high: int) -> Domain:
    """A whole number from `low` to `high`, both included."""
    count = high - low + 1
    grid = range(low, high + 1) if count <= sys.maxsize else None
    return Domain(
        "int_uniform",
        lambda u: low + min(int(u * count), count - 1),
        grid,
        count,
        lambda: range(low, high + 1),
        f"a whole number from {low} to {high}",
    )


_LARGEST_GRID = 1_000_000
Quantile = Callable[[float], float]


def _uniform(low: float, high: float) -> Quantile:
    return lambda u: low + u * (high - low)


def _log_uniform(low: float, high: float) -> Quantile:
    return lambda u: math.exp(low + u * (high - low))


def _log_uniform_values(low: float, high: float) -> Quantile:
    inner = _log_uniform(math.log(low), math.log(high))
    return lambda u: min(max(inner(u), low), high)  # exp(log(x)) may miss x by a bit.


def _inv_log_uniform(low: float, high: float) -> Quantile:
    return lambda u: math.exp(-(low + (1 - u) * (high - low)))


def _inv_log_uniform_values(low: float, high: float) -> Quantile:
    inner = _inv_log_uniform(-math.log(high), -math.log(low))
    return lambda u: min(max(inner(u), low), high)


def _normal(mu: float, sigma: float) -> Quantile:
    # The ends of [0, 1] are infinitely far out; the nearest floats stand for them.
    return lambda u: mu + sigma * NormalDist().inv_cdf(min(max(u, 1e-300), 1 - 2**-53))


def _log_normal(mu: float, sigma: float) -> Quantile:
    inner = _normal(mu, sigma)
    return lambda u: math.exp(inner(u))


def _beta(a: float, b: float) -> Quantile:
    from scipy.special import betaincinv  # A tenth of a second, for this distribution alone.

    return lambda u: float(betaincinv(a, b, u))


# Each continuous distribution: its keys with their defaults (None: required), and its quantiles.
CONTINUOUS: Mapping[str, tuple[Mapping[str, float | None], Callable[[float, float], Quantile]]] = {
    "uniform": ({"min": None, "max": None}, _uniform),
    "log_uniform": ({"min": None, "max": None}, _log_uniform),
    "log_uniform_values": ({"min": None, "max": None}, _log_uniform_values),
    "inv_log_uniform": ({"min": None, "max": None}, _inv_log_uniform),
    "inv_log_uniform_values": ({"min": None, "max": None}, _inv_log_uniform_values),
    "normal": ({"mu": 0.0, "sigma": 1.0}, _normal),
    "log_normal": ({"mu": 0.0, "sigma": 1.0}, _log_normal),
    "beta": ({"a": 1.0, "b": 1.0}, _beta),
}
QUANTISED = (
    "q_uniform", "q_log_uniform", "q_log_uniform_values", "q_normal", "q_log_normal", "q_beta",
)  # fmt: skip
DISTRIBUTIONS = (
    "constant",
    "categorical",
    "categorical_w_probabilities",
    "int_uniform",
    *CONTINUOUS,
    *QUANTISED,
)


def continuous(distribution: str, numbers: Mapping[str, Any]) -> Domain:
    """A domain of CONTINUOUS or QUANTISED, from all of its keys.

    A quantised value is round(x / q) * q, half to even: whole only where `q` was written as a whole
    number. It may lie outside of [min, max].
    """
    base = distribution.removeprefix("q_")
    keys, make = CONTINUOUS[base]
    first, second = (numbers[key] for key in keys)
    quantile = make(first, second)
    described = ", ".join(f"{key}={numbers[key]:g}" for key in keys)
    if base == distribution:
        shown = f"{distribution}({described})"
        return Domain(distribution, lambda u: float(quantile(u)), None, None, None, shown)
    q = numbers["q"]

    def at(u: float) -> int | float:
        return multiple(round(quantile(u) / q))

    def multiple(k: int) -> int | float:
        return int(k * q) if isinstance(q, int) else float(k * q)

    size, values = None, None
    if base in ("uniform", "log_uniform", "log_uniform_values", "beta"):
        # Not the very ends: half a step outside of them has no probability.
        lowest, highest = round(quantile(1e-12) / q), round(quantile(1 - 1e-12) / q)
        size = highest - lowest + 1
        values = lambda: [multiple(k) for k in range(lowest, highest + 1)]  # noqa: E731
    grid = _steps(first, second, q) if distribution == "q_uniform" else None
    return Domain(distribution, at, grid, size, values, f"{distribution}({described}, q={q:g})")


def _steps(low: float, high: float, q: float) -> tuple[Any, ...] | None:
    """numpy.arange(low, high, q), as W&B's grid has it: `high` itself is left out."""
    count = max(math.ceil((high - low) / q), 0)
    return tuple(low + i * q for i in range(count)) if count <= _LARGEST_GRID else None

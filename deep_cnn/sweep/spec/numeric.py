"""Define the distributions of numbers: inverse CDF, CDF, grid, and how many values there are.

The definitions are those of wandb/sweeps, `params.py` and `grid_search.py`; u is uniform in [0, 1].
"""

import math
import sys
from collections.abc import Sequence
from functools import cached_property
from statistics import NormalDist
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, ValidationInfo, model_validator
from pydantic_core import PydanticKnownError

from deep_cnn.sweep.spec.base import Distribution, Number, check_number, invalid, is_whole

_LARGEST_GRID = 1_000_000
_BISECTIONS = 50
# Half a step outside of the bounds has no probability, so the very ends are no values.
_ENDS = (1e-12, 1 - 1e-12)


class Numeric(Distribution):
    """A distribution of numbers, whose inverse CDF rises."""

    def cdf(self, value: float) -> float:
        """Return the middle of the u that give `value`, by bisection."""
        edges = []
        for beyond in (False, True):
            low, high = 0.0, 1.0
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                there = self.ppf(middle)
                left = there > value or (there == value and not beyond)
                low, high = (low, middle) if left else (middle, high)
            edges.append(high)
        return sum(edges) / 2


class Bounded(Numeric):
    """A distribution between two bounds."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min >= self.max:
            raise invalid(f"min {self.min} is not below max {self.max}; widen them", "min")
        if self.distribution.endswith("log_uniform_values") and self.min <= 0:
            raise invalid(f"min {self.min} must be above 0 for {self.distribution}", "min")
        return self

    def _clamp(self, value: float) -> float:
        return min(max(value, self.min), self.max)  # exp(log(x)) may miss x by a bit.


class IntUniform(Bounded):
    """A whole number from `min` to `max`, both included, each as likely."""

    distribution: Literal["int_uniform"]

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if not (is_whole(self.min) and is_whole(self.max)):
            text = f"int_uniform needs whole numbers; write {self.min:g} as an integer"
            raise invalid(text, "min")
        return self

    def ppf(self, u: float) -> int:
        """Return the whole number at `u`."""
        return int(self.min) + min(int(u * self.size), self.size - 1)

    @property
    def grid(self) -> Sequence[int] | None:
        """Return all of them, or None where a range could not count so many."""
        return self.values() if self.size <= sys.maxsize else None

    @property
    def size(self) -> int:
        """Return how many there are."""
        return int(self.max) - int(self.min) + 1

    def values(self) -> Sequence[int]:
        """Return all of them."""
        return range(int(self.min), int(self.max) + 1)

    def describe(self) -> str:
        """Return the bounds."""
        return f"a whole number from {self.min} to {self.max}"


def _check_q(value: Any, info: ValidationInfo) -> Any:
    if not info.data.get("distribution", "").startswith("q_"):
        raise PydanticKnownError("extra_forbidden")
    if check_number(value, info) <= 0:
        raise invalid(f"q {value} must be above 0")
    return value


class Continuous(Numeric):
    """A distribution of floats or, as its namesake `q_...`, of multiples of `q`.

    Those are round(x / q) * q, half to even: whole numbers only where `q` was written as one. They
    may lie outside of [min, max].
    """

    q: Annotated[int | float | None, PlainValidator(_check_q)] = None

    @model_validator(mode="after")
    def _check_floats(self) -> Self:
        try:
            for u in (0.0, 0.5, 1.0):
                self.ppf(u)
            _ = self.grid
        except (OverflowError, ValueError):  # exp of too much; round(inf) and round(nan).
            raise invalid(f"{self.distribution} leads to numbers beyond floats") from None
        return self

    @property
    def step(self) -> int | float | None:
        """Return `q`, whose default is a float, or None where every float is a value."""
        if not self.distribution.startswith("q_"):
            return None
        return 1.0 if self.q is None else self.q

    def _quantile(self, u: float) -> float:
        """Return the inverse of the CDF at `u`, before it is rounded to `q`."""
        raise NotImplementedError

    def ppf(self, u: float) -> int | float:
        """Return the value at `u`."""
        if self.step is None:
            return float(self._quantile(u))
        return self._multiple(self._count(u))

    @property
    def size(self) -> int | None:
        """Return how many multiples there are; None where their number has no bounds."""
        if self.step is None:
            return None
        lowest, highest = map(self._count, _ENDS)
        return highest - lowest + 1

    def values(self) -> Sequence[int | float]:
        """Return every multiple that has a probability."""
        lowest, highest = map(self._count, _ENDS)
        return [self._multiple(k) for k in range(lowest, highest + 1)]

    def _count(self, u: float) -> int:
        return round(self._quantile(u) / (self.step or 1.0))

    def _multiple(self, k: int) -> int | float:
        step = self.step or 1.0
        return int(k * step) if isinstance(step, int) else float(k * step)

    def describe(self) -> str:
        """Return the distribution with its numbers."""
        numbers = {n: getattr(self, n) for n in type(self).model_fields if n != "distribution"}
        del numbers["q"]
        if self.step is not None:
            numbers["q"] = self.step
        parts = (f"{name}={value:g}" for name, value in numbers.items())
        return f"{self.distribution}({', '.join(parts)})"


class Uniform(Continuous, Bounded):
    """A number between `min` and `max`, each as likely."""

    distribution: Literal["uniform", "q_uniform"]

    def _quantile(self, u: float) -> float:
        return self.min + u * (self.max - self.min)

    @cached_property
    def grid(self) -> Sequence[int | float] | None:
        """Return numpy.arange(min, max, q), as W&B's grid has it: `max` itself is left out."""
        if self.step is None:
            return None
        count = max(math.ceil((self.max - self.min) / self.step), 0)
        if count > _LARGEST_GRID:
            return None
        return tuple(self.min + i * self.step for i in range(count))


class LogUniform(Continuous, Bounded):
    """e to the power of a number between `min` and `max`."""

    distribution: Literal["log_uniform", "q_log_uniform"]

    def _quantile(self, u: float) -> float:
        return math.exp(self.min + u * (self.max - self.min))


class LogUniformValues(Continuous, Bounded):
    """A number between `min` and `max` whose logarithm is uniform."""

    distribution: Literal["log_uniform_values", "q_log_uniform_values"]

    def _quantile(self, u: float) -> float:
        low, high = math.log(self.min), math.log(self.max)
        return self._clamp(math.exp(low + u * (high - low)))


class InvLogUniform(Continuous, Bounded):
    """e to the power of minus a number between `min` and `max`: 1/X is log-uniform."""

    distribution: Literal["inv_log_uniform"]

    def _quantile(self, u: float) -> float:
        return math.exp(-(self.min + (1 - u) * (self.max - self.min)))


class InvLogUniformValues(Continuous, Bounded):
    """A number between `min` and `max`; the logarithm of 1/X is uniform."""

    distribution: Literal["inv_log_uniform_values"]

    def _quantile(self, u: float) -> float:
        low, high = -math.log(self.max), -math.log(self.min)
        return self._clamp(math.exp(-(low + (1 - u) * (high - low))))


class _Gaussian(Continuous):
    mu: Number = 0.0
    sigma: Annotated[Number, Field(ge=0)] = 1.0

    @property
    def size(self) -> None:
        """Return None: even multiples of `q` have no bounds."""

    def _normal(self, u: float) -> float:
        # The ends of [0, 1] are infinitely far out; the nearest floats stand for them.
        return self.mu + self.sigma * NormalDist().inv_cdf(min(max(u, 1e-300), 1 - 2**-53))


class Normal(_Gaussian):
    """A normally distributed number."""

    distribution: Literal["normal", "q_normal"]

    def _quantile(self, u: float) -> float:
        return self._normal(u)


class LogNormal(_Gaussian):
    """e to the power of a normally distributed number."""

    distribution: Literal["log_normal", "q_log_normal"]

    def _quantile(self, u: float) -> float:
        return math.exp(self._normal(u))


class Beta(Continuous):
    """A number between 0 and 1."""

    distribution: Literal["beta", "q_beta"]
    a: Annotated[Number, Field(gt=0)] = 1.0
    b: Annotated[Number, Field(gt=0)] = 1.0

    def _quantile(self, u: float) -> float:
        from scipy.special import betaincinv  # Takes 0.1 s, for this distribution alone.

        return float(betaincinv(self.a, self.b, u))

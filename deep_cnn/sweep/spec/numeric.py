"""Define the distributions of numbers: inverse CDF, CDF, grid, and number of values.

The definitions are those of wandb/sweeps, `params.py` and `grid_search.py`; u is uniform in [0, 1].
"""

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import NormalDist
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, model_validator
from pydantic_core import PydanticKnownError

from deep_cnn.sweep.spec.values import Number, check_number, invalid, is_whole

_LARGEST_GRID = 1_000_000
# Bisection divides [0, 1] into this many parts, nearly as fine as the floats below 1.
_PARTS = 2**50
# A multiple half a step outside of the bounds has no probability, so it is not a value.
_ENDS = (1e-12, 1 - 1e-12)


class DistributionBase(BaseModel):
    """The base class of all distributions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distribution: str


class Numeric(DistributionBase):
    """A distribution of numbers, with an increasing inverse CDF."""

    def ppf(self, u: float) -> int | float:
        """Return the value at `u`: the inverse of the cumulative distribution function."""
        raise NotImplementedError

    def cdf(self, value: float) -> float:
        """Return the middle of the interval of u that gives `value`, by bisection."""
        edges = [
            bisect(range(_PARTS), value, 1, _PARTS, key=lambda k: self.ppf(k / _PARTS))
            for bisect in (bisect_left, bisect_right)
        ]
        return sum(edges) / (2 * _PARTS)


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
        if self.distribution == "int_uniform" and not (is_whole(self.min) and is_whole(self.max)):
            text = f"int_uniform needs whole numbers; write {self.min:g} as an integer"
            raise invalid(text, "min")
        return self


class IntUniform(Bounded):
    """A whole number from `min` to `max`, both included, with equal probabilities."""

    distribution: Literal["int_uniform"]

    def ppf(self, u: float) -> int:
        """Return the whole number at `u`."""
        return int(self.min) + min(int(u * self.size), self.size - 1)

    @property
    def grid(self) -> Sequence[int] | None:
        """All values, or None if there are too many for a range."""
        return self.values if self.size <= sys.maxsize else None

    @property
    def size(self) -> int:
        """The number of whole numbers."""
        return int(self.max) - int(self.min) + 1

    @property
    def values(self) -> Sequence[int]:
        """All values."""
        return range(int(self.min), int(self.max) + 1)

    def describe(self) -> str:
        """Return a description for people."""
        return f"a whole number from {self.min} to {self.max}"


def _check_q(value: Any, info: ValidationInfo) -> Any:
    if not info.data.get("distribution", "").startswith("q_"):
        raise PydanticKnownError("extra_forbidden")
    if check_number(value, info) <= 0:
        raise invalid(f"q {value} must be above 0")
    return value


class Continuous(Numeric):
    """A distribution of floats or, with the prefix `q_`, of multiples of `q`.

    A multiple is round(x / q) * q, half to even. It is a whole number only if `q` was written as
    one. It may lie outside of [min, max].
    """

    q: Annotated[int | float | None, PlainValidator(_check_q)] = None

    @model_validator(mode="after")
    def _check_floats(self) -> Self:
        try:
            _ = [self.ppf(u) for u in (0.0, 0.5, 1.0)], self.grid
        except (OverflowError, ValueError):  # exp of too much; round(inf) and round(nan).
            raise invalid(f"{self.distribution} leads to numbers beyond floats") from None
        return self

    @property
    def step(self) -> int | float | None:
        """The step `q`, whose default is a float, or None if every float is a value."""
        if not self.distribution.startswith("q_"):
            return None
        # W&B's default is a float: 7.0 and not 7.
        return 1.0 if self.q is None else self.q

    def _quantile(self, u: float) -> float:
        """Return the inverse of the CDF at `u`, before it is rounded to `q`."""
        raise NotImplementedError

    def ppf(self, u: float) -> int | float:
        """Return the value at `u`."""
        return float(self._quantile(u)) if self.step is None else self._multiple(self._count(u))

    @property
    def grid(self) -> Sequence[int | float] | None:
        """None, except for q_uniform."""
        return None

    @property
    def size(self) -> int | None:
        """The number of multiples, or None if there are no bounds."""
        return None if self.step is None else self._counts.stop - self._counts.start

    @property
    def values(self) -> Sequence[int | float]:
        """Every multiple that has a probability."""
        return [self._multiple(k) for k in self._counts]

    @property
    def _counts(self) -> range:
        lowest, highest = map(self._count, _ENDS)
        return range(lowest, highest + 1)

    def _count(self, u: float) -> int:
        return round(self._quantile(u) / (self.step or 1.0))

    def _multiple(self, k: int) -> int | float:
        step = self.step or 1.0
        return int(k * step) if isinstance(step, int) else float(k * step)

    def describe(self) -> str:
        """Return the name of the distribution with its parameters."""
        numbers = self.model_dump(exclude={"distribution", "q"})
        numbers |= {} if self.step is None else {"q": self.step}
        parts = (f"{name}={value:g}" for name, value in numbers.items())
        return f"{self.distribution}({', '.join(parts)})"


def _between(low: float, high: float, u: float) -> float:
    return low + u * (high - low)


_QUANTILES: Mapping[str, Callable[[float, float, float], float]] = {
    "uniform": _between,
    "log_uniform": lambda low, high, u: math.exp(_between(low, high, u)),
    "log_uniform_values": lambda low, high, u: math.exp(_between(math.log(low), math.log(high), u)),
    "inv_log_uniform": lambda low, high, u: math.exp(-_between(low, high, 1 - u)),
    "inv_log_uniform_values": lambda low, high, u: math.exp(
        -_between(-math.log(high), -math.log(low), 1 - u)
    ),
}


class Range(Continuous, Bounded):
    """A number between `min` and `max`, uniform or with a uniform logarithm.

    The bounds of `log_uniform` and `inv_log_uniform` are exponents of e. Those of `..._values`
    are the values themselves. For `inv_...`, the logarithm of 1/X is uniform.
    """

    distribution: Literal[
        "uniform", "log_uniform", "log_uniform_values", "inv_log_uniform", "inv_log_uniform_values",
        "q_uniform", "q_log_uniform", "q_log_uniform_values",
    ]  # fmt: skip

    @property
    def takes_exponents(self) -> bool:
        """Whether the bounds are exponents of e."""
        return self.distribution.endswith("log_uniform")

    def _quantile(self, u: float) -> float:
        kind = self.distribution.removeprefix("q_")
        value = _QUANTILES[kind](self.min, self.max, u)
        if kind.endswith("_values"):
            return min(max(value, self.min), self.max)  # exp(log(x)) may miss x by a bit.
        return value

    @cached_property
    def grid(self) -> Sequence[int | float] | None:
        """The values of numpy.arange(min, max, q), as in W&B's grid: without `max` itself."""
        if self.step is None or self.distribution != "q_uniform":
            return None
        count = math.ceil((self.max - self.min) / self.step)
        if count > _LARGEST_GRID:
            return None
        # numpy's values are floats as soon as one of the three is one, and its step is rounded.
        is_float = any(isinstance(each, float) for each in (self.min, self.max, self.step))
        first = float(self.min) if is_float else self.min
        step = (first + self.step) - first
        return tuple(first + i * step for i in range(count))


class Gaussian(Continuous):
    """A number with a normal or log-normal distribution."""

    distribution: Literal["normal", "q_normal", "log_normal", "q_log_normal"]
    mu: Number = 0.0
    sigma: Annotated[Number, Field(ge=0)] = 1.0

    @property
    def size(self) -> None:
        """None, because there are no bounds, even for multiples of `q`."""

    def _quantile(self, u: float) -> float:
        # The quantiles of 0 and 1 are infinite, so the nearest floats are used instead.
        inside = min(max(u, 1e-300), 1 - 2**-53)
        value = self.mu + self.sigma * NormalDist().inv_cdf(inside)
        return math.exp(value) if "log" in self.distribution else value


class Beta(Continuous):
    """A number between 0 and 1 with a beta distribution."""

    distribution: Literal["beta", "q_beta"]
    a: Annotated[Number, Field(gt=0)] = 1.0
    b: Annotated[Number, Field(gt=0)] = 1.0

    def _quantile(self, u: float) -> float:
        from scipy.special import betaincinv  # Takes 0.1 s, for this distribution alone.

        return float(betaincinv(self.a, self.b, u))

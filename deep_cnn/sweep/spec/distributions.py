"""List W&B's distributions by name, and define those over lists of values."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PlainValidator, model_validator

from deep_cnn.sweep.spec.numeric import Beta, DistributionBase, Gaussian, IntUniform, Range
from deep_cnn.sweep.spec.values import distinct, invalid, is_number, is_whole


class Listed(DistributionBase):
    """One of `choices`, with equal probabilities."""

    choices: tuple[Any, ...]

    def ppf(self, u: float) -> Any:
        """Return the value at `u`: the inverse of the cumulative distribution function."""
        return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]

    @property
    def grid(self) -> Sequence[Any] | None:
        """The values of a grid search, or None if it is not possible."""
        return self.values

    @property
    def size(self) -> int:
        """The number of distinct values."""
        return len(self.values)

    @cached_property
    def values(self) -> Sequence[Any]:
        """Every distinct value."""
        return distinct(self.choices)

    def describe(self) -> str:
        """Return a description for people."""
        return f"one of {', '.join(map(repr, self.values))}"


class Constant(Listed):
    """A constant value, which is not searched."""

    distribution: Literal["constant"]
    choices: Annotated[tuple[Any], PlainValidator(lambda value: (value,)), Field(alias="value")]

    def describe(self) -> str:
        """Return the repr of the value."""
        return repr(self.choices[0])


def _check_values(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise invalid("values is not a list with one value at least")
    return tuple(value)


Values = Annotated[tuple[Any, ...], PlainValidator(_check_values), Field(alias="values")]


class Categorical(Listed):
    """One of the `values` of the file."""

    distribution: Literal["categorical"]
    choices: Values


def _check_probabilities(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(is_number(p) and p >= 0 for p in value):
        raise invalid("probabilities is not a list of numbers, 0 or more each")
    return tuple(value)


class WeightedCategorical(Listed):
    """One of the `values` of the file, with the given probabilities."""

    distribution: Literal["categorical_w_probabilities"]
    choices: Values
    probabilities: Annotated[tuple[float, ...], PlainValidator(_check_probabilities)]

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        count, total = len(self.probabilities), sum(self.probabilities)
        if count != len(self.choices):
            text = f"{count} probabilities for {len(self.choices)} values"
            raise invalid(text, "probabilities")
        if not math.isclose(total, 1):
            raise invalid(f"probabilities sum to {total:g}; they must sum to 1", "probabilities")
        return self

    @property
    def _weighted(self) -> list[tuple[Any, float]]:
        return list(zip(self.choices, self.probabilities, strict=True))

    def ppf(self, u: float) -> Any:
        """Return the value whose part of the cumulative probabilities contains `u`."""
        totals = accumulate(self.probabilities)
        values = (v for v, total in zip(self.choices, totals, strict=True) if u < total)
        # The sum of all probabilities may be just below 1.
        return next(values, [value for value, p in self._weighted if p > 0][-1])

    @property
    def grid(self) -> None:
        """None, because a grid has no probabilities."""

    @cached_property
    def values(self) -> Sequence[Any]:
        """Every distinct value that has a probability."""
        return distinct([value for value, p in self._weighted if p > 0])

    def describe(self) -> str:
        """Return a description for people, with the probabilities."""
        return f"one of {', '.join(f'{value!r} ({p:g})' for value, p in self._weighted)}"


Distribution = Constant | Categorical | WeightedCategorical | IntUniform | Range | Gaussian | Beta
_MODELS: tuple[type[Distribution], ...] = get_args(Distribution)
# Each distribution by the name that a sweep file has for it.
DISTRIBUTIONS: Mapping[str, type[Distribution]] = {
    name: model
    for model in _MODELS
    for name in get_args(model.model_fields["distribution"].annotation)
}
# Keys that every parameter may have.
PARAMETER_KEYS = {"parameters"} | {
    field.alias or key for model in _MODELS for key, field in model.model_fields.items()
}


def infer_distribution(description: Mapping[Any, Any]) -> str | None:
    """Return the distribution that W&B infers for a parameter without `distribution`, or None."""
    if "values" in description:
        return "categorical_w_probabilities" if "probabilities" in description else "categorical"
    if "value" in description:
        return "constant"
    # W&B infers nothing from other keys, such as mu and sigma, nor from bounds with q.
    if description.keys() == {"min", "max"}:
        both_whole = is_whole(description["min"]) and is_whole(description["max"])
        return "int_uniform" if both_whole else "uniform"
    return None

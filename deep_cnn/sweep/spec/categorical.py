"""Define the distributions over values in a list, and constants."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from deep_cnn.sweep.spec.base import Distribution, invalid, is_number
from deep_cnn.sweep.spec.values import distinct


class _Listed(Distribution):
    def _possible(self) -> Sequence[Any]:
        """Return the values that have a probability, repetitions included."""
        raise NotImplementedError

    @cached_property
    def _distinct(self) -> tuple[Any, ...]:
        return distinct(self._possible())

    def ppf(self, u: float) -> Any:
        """Return one of the values, each as likely."""
        possible = self._possible()
        return possible[min(int(u * len(possible)), len(possible) - 1)]

    @property
    def grid(self) -> Sequence[Any] | None:
        """Return every distinct value."""
        return self._distinct

    @property
    def size(self) -> int:
        """Return how many distinct values there are."""
        return len(self._distinct)

    def values(self) -> Sequence[Any]:
        """Return every distinct value."""
        return self._distinct


class Constant(_Listed):
    """One value, which is not searched."""

    distribution: Literal["constant"]
    value: Any

    def _possible(self) -> Sequence[Any]:
        return (self.value,)

    def describe(self) -> str:
        """Return the value as Python writes it."""
        return repr(self.value)


def _check_values(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise invalid("values is not a list with one value at least")
    return tuple(value)


Values = Annotated[tuple[Any, ...], PlainValidator(_check_values), Field(alias="values")]


class Categorical(_Listed):
    """One of `choices`, the key `values` of the file."""

    distribution: Literal["categorical"]
    choices: Values

    def _possible(self) -> Sequence[Any]:
        return self.choices

    def describe(self) -> str:
        """Return the values in a row."""
        return f"one of {', '.join(map(repr, self._distinct))}"


def _check_probabilities(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(is_number(p) and p >= 0 for p in value):
        raise invalid("probabilities is not a list of numbers, 0 or more each")
    return tuple(value)


class WeightedCategorical(_Listed):
    """One of `choices`, with a probability each."""

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

    def ppf(self, u: float) -> Any:
        """Return the value whose part of the cumulated probabilities holds `u`."""
        total = 0.0
        for value, probability in zip(self.choices, self.probabilities, strict=True):
            total += probability
            if u < total:
                return value
        return self._possible()[-1]

    @property
    def grid(self) -> None:
        """Return None: a grid has no probabilities."""

    def _possible(self) -> Sequence[Any]:
        pairs = zip(self.choices, self.probabilities, strict=True)
        return [value for value, probability in pairs if probability > 0]

    def describe(self) -> str:
        """Return the values in a row, with their probabilities."""
        pairs = zip(self.choices, self.probabilities, strict=True)
        return f"one of {', '.join(f'{value!r} ({p:g})' for value, p in pairs)}"

"""Say what a distribution is, and check the numbers and texts that a sweep file gives."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from deep_cnn.sweep.spec.document import NUMBER_AS_TEXT

# Beyond it the width of a range is no float any more.
_LARGEST = 1e300


def is_number(value: Any) -> bool:
    """Return whether a YAML value is a finite number; True is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST


def is_whole(value: Any) -> bool:
    """Return whether a YAML value is a whole number; True is not."""
    return isinstance(value, int) and is_number(value)


def invalid(text: str, key: str = "") -> PydanticCustomError:
    """Return the error that a validator raises; `key` is where, if the validator sees several."""
    return PydanticCustomError("sweep", "{text}", {"text": text, "key": key})


def number_as_text(value: str) -> str:
    """Return what to say of a string such as 1e-5, which was meant as a number."""
    mantissa, _, exponent = value.lower().partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if exponent[0] in "+-" else "+"
    return f"{value} is a string to YAML, not a number; write {mantissa}e{sign}{exponent}"


def check_number(value: Any, info: ValidationInfo) -> Any:
    """Return a number as it was written; the error of a validator for anything else."""
    if is_number(value):
        return value
    if value is None:
        raise invalid(f"{info.field_name} is empty; give it a number")
    if isinstance(value, str) and NUMBER_AS_TEXT.match(value):
        raise invalid(f"{info.field_name} {number_as_text(value)}")
    raise invalid(f"{info.field_name} {value!r} is not a number")


# A finite number as it was written: with `q: 8` the values are ints, with `q: 8.0` floats.
Number = Annotated[int | float, PlainValidator(check_number)]


class Distribution(BaseModel):
    """The values of one parameter.

    `grid` holds the values that a grid search goes through, or None where it cannot. `size` is how
    many distinct values there are, or None for infinitely many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    distribution: str

    def ppf(self, u: float) -> Any:
        """Return the value at `u`: the inverse of the cumulative distribution function."""
        raise NotImplementedError

    @property
    def grid(self) -> Sequence[Any] | None:
        """Return what a grid search goes through, or None where it cannot."""
        return None

    @property
    def size(self) -> int | None:
        """Return how many distinct values there are, or None for infinitely many."""
        return None

    def values(self) -> Sequence[Any]:
        """Return every distinct value; only where `size` is not None."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return the values in words, for people."""
        raise NotImplementedError

"""Check, compare and write the values of parameters in a sweep file."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

# The value of each parameter by its name; nested names are joined with slashes.
Point = Mapping[str, Any]
# Beyond this limit, the width of a range is not a finite float.
_LARGEST = 1e300
# YAML 1.1 requires a dot in the mantissa and a sign in the exponent, and reads these as strings.
NUMBER_AS_TEXT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def is_number(value: Any) -> bool:
    """Return whether a YAML value is a finite number; True is not."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and abs(value) <= _LARGEST


def is_whole(value: Any) -> bool:
    """Return whether a YAML value is an integer; True is not, nor is 2.0."""
    return isinstance(value, int) and is_number(value)


def as_whole(value: Any) -> int | None:
    """Return the integer that a YAML value equals, as 2 for 2.0, or None."""
    return int(value) if is_number(value) and value == int(value) else None


def invalid(text: str, key: str = "") -> PydanticCustomError:
    """Return the error that a validator raises; `key` is the wrong key if there are several."""
    return PydanticCustomError("sweep", "{text}", {"text": text, "key": key})


def explain_text(value: str) -> str:
    """Return how to write a number such as 1e-5, which YAML reads as a string."""
    mantissa, _, exponent = value.lower().partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if exponent[0] in "+-" else "+"
    return f"{value} is a string to YAML, not a number; write {mantissa}e{sign}{exponent}"


def check_number(value: Any, info: ValidationInfo) -> Any:
    """Return a number unchanged; raise the error of a validator for anything else."""
    if is_number(value):
        return value
    if value is None:
        raise invalid(f"{info.field_name} is empty; give it a number")
    if isinstance(value, str) and NUMBER_AS_TEXT.match(value):
        raise invalid(f"{info.field_name} {explain_text(value)}")
    raise invalid(f"{info.field_name} {value!r} is not a number")


# A finite number as it was written: with `q: 8` the values are ints, with `q: 8.0` floats.
Number = Annotated[int | float, PlainValidator(check_number)]


def canonical_key(point: Point) -> str:
    """Return a text that is equal for two configurations if W&B treats them as the same one."""
    return json.dumps({"map": {str(k): _key(v) for k, v in point.items()}}, sort_keys=True)


def value_key(value: Any) -> str:
    """Return a text that is equal for two values if W&B treats them as the same value.

    3000000.0 equals 3000000 and nan equals nan, but True does not equal 1, and in lists and
    mappings 1.0 does not equal 1. A date equals its text, which is what a trial's file holds.
    """
    return json.dumps(_key(value), sort_keys=True)


def _key(value: Any) -> Any:
    is_whole_float = isinstance(value, float) and value.is_integer()
    return _comparable(int(value) if is_whole_float else value)


def _comparable(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return {"is": repr(value)}
    if isinstance(value, int):
        return hex(value)  # Of any size, where decimal digits are limited.
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {"map": {str(k): _comparable(v) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        return {"list": [_comparable(v) for v in value]}
    return {"text": str(value)}


def distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return `values` without repetitions, in order; of equal ones the last, as W&B does."""
    by_key: dict[tuple[str, bool], Any] = {}
    for value in values:
        # A date differs from its text.
        by_key[value_key(value), to_jsonable(value) == value] = value
    return tuple(by_key.values())


def to_jsonable(value: Any) -> Any:
    """Return `value` in a form that JSON can hold; keys, dates and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_jsonable(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)

"""Compare the values of parameters, and turn them into JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

# The value of each parameter by its name; nested names are joined with slashes.
Point = Mapping[str, Any]


def canonical_key(value: Any) -> str:
    """Return a text that two values share where W&B takes them for the same value.

    3000000.0 is 3000000 and nan is nan, but True is not 1.
    """
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
    """Return `values` without repetitions, in order."""
    by_key: dict[str, Any] = {}
    for value in values:
        by_key.setdefault(canonical_key(value), value)
    return tuple(by_key.values())


def to_jsonable(value: Any) -> Any:
    """Return `value` as JSON can hold it: keys, dates and the like become text."""
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_jsonable(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)

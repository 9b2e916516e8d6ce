"""Validate parts of a sweep file with pydantic, and say in our words what is wrong, and where."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deep_cnn.errors import nearest
from deep_cnn.sweep.spec.distributions import DISTRIBUTIONS
from deep_cnn.sweep.spec.document import Issue, YamlPath

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
_MISSING = {
    "method": "no method; choose from grid, random, bayes",
    "name": "metric has no name; name what is logged, as in loss_val",
}


def validate_section(
    model: type[Model], given: Mapping[Any, Any], path: YamlPath
) -> tuple[Model | None, list[Issue]]:
    """Return the section at `path` and an issue for each error in it.

    The section is what it would be without the keys that are wrong, so that one error does not hide
    others; where it needs them it is None.
    """
    legal, unknown = split_unknown(given, model.model_fields, path)
    section, issues = validate(model.model_validate, legal, path)
    return section, unknown + issues


def validate(
    parse: Callable[[Any], T], given: Mapping[str, Any], path: YamlPath, *, drop_wrong: bool = True
) -> tuple[T | None, list[Issue]]:
    """Return what pydantic's `parse` makes of the mapping at `path`, and an issue for each error.

    After an error it is tried again, without the keys that are wrong or, if not `drop_wrong`,
    without those that do not belong; None where that fails, too.
    """
    try:
        return parse(given), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    dropped = {
        _key(detail, given)
        for detail in errors
        if drop_wrong or detail["type"] == "extra_forbidden"
    }
    rest = {key: value for key, value in given.items() if key not in dropped}
    value = None
    if len(rest) < len(given):
        value, _ = validate(parse, rest, path, drop_wrong=drop_wrong)
    return value, [_issue(detail, given, path) for detail in errors]


def split_unknown(
    given: Mapping[Any, Any], legal: Iterable[str], path: YamlPath
) -> tuple[dict[str, Any], list[Issue]]:
    """Return the part of a mapping that has legal keys, and an issue for every other key."""
    names = set(legal)
    label = f"{_label(path)}: " if path else ""
    issues = [
        Issue((*path, str(key)), f"{label}unknown key {key!r}; {nearest(key, names)}")
        for key in given
        if key not in names
    ]
    return {key: value for key, value in given.items() if key in names}, issues


def _label(path: YamlPath) -> str:
    """Return how messages name the mapping at `path`: a section, or a parameter."""
    return "/".join(str(key) for key in path if key != "parameters")


def _key(detail: ErrorDetails, given: Mapping[Any, Any]) -> str | None:
    """Return the key that an error is about, or None where it is about all of a mapping."""
    last = detail["loc"][-1] if detail["loc"] else None
    if last in given:
        return str(last)
    return detail.get("ctx", {}).get("key") or None


def _issue(detail: ErrorDetails, given: Mapping[Any, Any], path: YamlPath) -> Issue:
    key, text = _key(detail, given), _text(detail, given)
    if detail["type"] == "union_tag_invalid":
        key = "distribution"
    own_words = not path or text.startswith(str(path[0]))
    where = path if key is None else (*path, key)
    return Issue(where, text if own_words else f"{_label(path)}: {text}")


def _text(detail: ErrorDetails, given: Mapping[Any, Any]) -> str:
    context, value = detail.get("ctx", {}), detail["input"]
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "sweep":
            return str(context["text"])
        case "missing":
            return _MISSING.get(name, f"{given.get('distribution')} needs {name}")
        case "string_too_short":
            return _MISSING[name]
        case "literal_error":
            legal = re.findall(r"'(\w+)'", context["expected"])
            return f"{name} {value!r} is unknown; {nearest(value, legal)}"
        case "union_tag_invalid":
            return f"unknown distribution; {nearest(given['distribution'], DISTRIBUTIONS)}"
        case "extra_forbidden":
            return f"{name} does not go with {given['distribution']}; remove it"
        case "greater_than":
            return f"{name} {value} must be above {context['gt']}"
        case "greater_than_equal":
            return f"{name} {value} must be {context['ge']} or more"
        case "bool_type":
            return f"{name} {value!r} is not true or false"
        case _:
            return detail["msg"]

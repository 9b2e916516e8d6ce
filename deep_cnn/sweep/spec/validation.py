"""Validate sections of a sweep file with pydantic, and turn its errors into clear messages."""

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
# The text of each type of pydantic's errors; that of any other is pydantic's own.
_TEXTS = {
    "sweep": "{text}",
    "missing": "{distribution} needs {name}",
    "extra_forbidden": "{name} does not go with {distribution}; remove it",
    "greater_than": "{name} {value} must be above {gt}",
    "greater_than_equal": "{name} {value} must be {ge} or more",
    "bool_type": "{name} {value!r} is not true or false",
}


def validate_section(
    model: type[Model], section: Mapping[Any, Any] | None, path: YamlPath, issues: list[Issue]
) -> Model | None:
    """Return the section at `path`, or None if it is missing; add its errors to `issues`.

    Wrong keys are left out of the section, so that one error does not hide others. If the section
    requires these keys, the result is None.
    """
    if section is None:
        return None
    issues += unknown_keys(section, model.model_fields, path)
    legal = {key: value for key, value in section.items() if key in model.model_fields}
    for key in [key for key, value in legal.items() if path and value is None]:
        text = f"{_label(path)}: {key} is empty; give it a value, or remove it"
        issues.append(Issue((*path, key), text))
        del legal[key]
    return validate(model.model_validate, legal, path, issues)


def validate(
    parse: Callable[[Any], T],
    section: Mapping[Any, Any],
    path: YamlPath,
    issues: list[Issue],
    *,
    drop_wrong: bool = True,
) -> T | None:
    """Return the result of pydantic's `parse` for the mapping at `path`; add errors to `issues`.

    After an error, it tries again without the wrong keys or, if not `drop_wrong`, without unknown
    keys. The result is None if that also fails.
    """
    try:
        return parse(section)
    except ValidationError as error:
        details = error.errors(include_url=False)
    rest = dict(section)
    for detail in details:
        key, text = _key(detail, section), _text(detail, section)
        if path and not text.startswith(str(path[0])):
            text = f"{_label(path)}: {text}"
        issues.append(Issue(path if key is None else (*path, key), text))
        if drop_wrong or detail["type"] == "extra_forbidden":
            rest.pop(key, None)
    if len(rest) == len(section):
        return None
    return validate(parse, rest, path, [], drop_wrong=drop_wrong)


def unknown_keys(section: Mapping[Any, Any], legal: Iterable[str], path: YamlPath) -> list[Issue]:
    """Return an issue for each key of a mapping that is not legal."""
    names = set(legal)
    label = f"{_label(path)}: " if path else ""
    return [
        Issue((*path, str(key)), f"{label}unknown key {key!r}; {nearest(key, names)}")
        for key in section
        if key not in names
    ]


def _label(path: YamlPath) -> str:
    """Return the name of the mapping at `path` in messages: a section or a parameter."""
    return "/".join(str(key) for key in path if key != "parameters")


def _key(detail: ErrorDetails, section: Mapping[Any, Any]) -> str | None:
    """Return the key that an error is about, or None if it is about the whole mapping."""
    last = detail["loc"][-1] if detail["loc"] else None
    if last in section:
        return str(last)
    if detail["type"] == "union_tag_invalid":
        return "distribution"
    return detail.get("ctx", {}).get("key") or None


def _text(detail: ErrorDetails, section: Mapping[Any, Any]) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind in ("missing", "string_too_short") and name in _MISSING:
        return _MISSING[name]
    if kind == "literal_error":
        legal = re.findall(r"'(\w+)'", context["expected"])
        return f"{name} {value!r} is unknown; {nearest(value, legal)}"
    if kind == "union_tag_invalid":
        return f"unknown distribution; {nearest(section['distribution'], DISTRIBUTIONS)}"
    fields = {"distribution": section.get("distribution"), "msg": detail["msg"], **context}
    return _TEXTS.get(kind, "{msg}").format_map({**fields, "name": name, "value": value})

"""Turn the section `parameters` of a sweep file into distributions."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from deep_cnn.sweep.spec.base import Distribution, number_as_text
from deep_cnn.sweep.spec.distributions import (
    PARAMETER_KEYS,
    AnyDistribution,
    infer_distribution,
)
from deep_cnn.sweep.spec.document import Document, Issue, YamlPath
from deep_cnn.sweep.spec.validation import split_unknown, validate

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(AnyDistribution)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The distribution of each parameter and its path in the file, by name, and what is wrong."""

    space: dict[str, Distribution] = field(default_factory=dict)
    paths: dict[str, YamlPath] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)


def read_parameters(document: Document, *, runs_deep_cnn: bool) -> Parameters:
    """Return all parameters, nested ones too; their names are joined with slashes.

    A string that was meant as a number is an error where the sweep `runs_deep_cnn`, else a note.
    """
    parameters = Parameters()
    given = document.content.get("parameters")
    if isinstance(given, dict) and given:
        for path, name, description in _leaves(given, ("parameters",), "", parameters.issues):
            distribution, issues = _read_distribution(description, path, name)
            parameters.issues.extend(issues)
            for place, text in _numbers_as_text(document, description, path, name):
                parameters.issues.append(Issue(place, text, is_error=runs_deep_cnn))
            if distribution:
                parameters.space[name], parameters.paths[name] = distribution, path
    elif given is not None or not isinstance(document.content.get("scheduler"), dict):
        text = "no parameters; say what is searched, one at least"
        parameters.issues.append(Issue(("parameters",), text))
    return parameters


def _leaves(
    level: Mapping[Any, Any], path: YamlPath, prefix: str, issues: list[Issue]
) -> Iterator[tuple[YamlPath, str, dict[str, Any]]]:
    """Go through the parameters of a level and of those inside; add what is wrong to `issues`."""
    for key, description in level.items():
        here: YamlPath = (*path, str(key))
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            text = f"parameter {key!r} is not a legal name (letters, digits, . _ -)"
            issues.append(Issue(here, text))
            continue
        name = f"{prefix}{key}"
        if not isinstance(description, dict):
            text = f"{name} is {description!r}; write value:, values: or min: and max:"
            issues.append(Issue(here, text))
            continue
        legal, unknown = split_unknown(description, PARAMETER_KEYS, here)
        inner = legal.get("parameters")
        if unknown:
            issues += unknown
        elif "parameters" not in legal:
            yield here, name, legal
        elif isinstance(inner, dict) and inner:
            yield from _leaves(inner, (*here, "parameters"), f"{name}/", issues)
        else:
            issues.append(Issue(here, f"{name} has no parameters inside"))


def _read_distribution(
    description: dict[str, Any], path: YamlPath, name: str
) -> tuple[Distribution | None, list[Issue]]:
    distribution = description.get("distribution") or infer_distribution(description)
    if distribution is None:
        keys = ", ".join(description) or "nothing"
        text = f"{name} has {keys}; give value, values, min and max, or a distribution"
        return None, [Issue(path, text)]
    complete = {**description, "distribution": distribution}
    # A number that is wrong must not be taken for its default: later rules would speak of that.
    return validate(_DISTRIBUTION.validate_python, complete, path, drop_wrong=False)


def _numbers_as_text(
    document: Document, description: Mapping[str, Any], path: YamlPath, name: str
) -> Iterator[tuple[YamlPath, str]]:
    """Give the strings among the values that were meant as numbers."""
    values = description.get("values")
    places: list[tuple[YamlPath, Any]] = [((*path, "value"), description.get("value"))]
    if isinstance(values, list):
        places += [((*path, "values", i), value) for i, value in enumerate(values)]
    for place, value in places:
        if place in document.numbers_as_text:
            yield place, f"{name}: {number_as_text(value)}"

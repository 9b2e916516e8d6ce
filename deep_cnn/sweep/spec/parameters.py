"""Turn the section `parameters` of a sweep file into distributions."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from deep_cnn.sweep.spec.distributions import PARAMETER_KEYS, Distribution, infer_distribution
from deep_cnn.sweep.spec.document import Document, Issue, YamlPath, parameter_path
from deep_cnn.sweep.spec.numbers import explain_text
from deep_cnn.sweep.spec.validation import unknown_keys, validate

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(
    Annotated[Distribution, Field(discriminator="distribution")]
)
# What a mapping of a YAML file holds: any key, any value.
_Content = Mapping[Any, Any]


def read_parameters(
    document: Document, issues: list[Issue], *, runs_deep_cnn: bool
) -> dict[str, Distribution]:
    """Return the distribution of each parameter, sorted by name; nested names are group/name.

    What is wrong is added to `issues`. A string that was meant as a number is an error where the
    sweep `runs_deep_cnn`, else a note.
    """
    space = {}
    section = document.content.get("parameters")
    if isinstance(section, dict) and section:
        for name, description in _leaves(section, "", ("parameters",), issues):
            path = parameter_path(name)
            distribution = _read_distribution(name, description, issues)
            if distribution:
                space[name] = distribution
            for value_path, value in _values(description, path):
                if value_path in document.numbers_as_text:
                    text = f"{name}: {explain_text(value)}"
                    issues.append(Issue(value_path, text, is_error=runs_deep_cnn))
    elif section is not None or not isinstance(document.content.get("scheduler"), dict):
        text = "no parameters; say what is searched, one at least"
        issues.append(Issue(("parameters",), text))
    return dict(sorted(space.items()))


def _leaves(
    level: _Content, prefix: str, path: YamlPath, issues: list[Issue]
) -> Iterator[tuple[str, _Content]]:
    """Go through the parameters of a level and of those inside; add what is wrong to `issues`."""
    for key, description in level.items():
        name, here = f"{prefix}{key}", (*path, str(key))
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            text = f"parameter {key!r} is not a legal name (letters, digits, . _ -)"
            issues.append(Issue(here, text))
        elif not isinstance(description, dict):
            text = f"{name} is {description!r}; write value:, values: or min: and max:"
            issues.append(Issue(here, text))
        elif unknown := unknown_keys(description, PARAMETER_KEYS, here):
            issues += unknown
        elif "parameters" not in description:
            yield name, description
        elif isinstance(inner := description["parameters"], dict) and inner:
            yield from _leaves(inner, f"{name}/", (*here, "parameters"), issues)
        else:
            issues.append(Issue(here, f"{name} has no parameters inside"))


def _read_distribution(
    name: str, description: _Content, issues: list[Issue]
) -> Distribution | None:
    path = parameter_path(name)
    distribution = description.get("distribution") or infer_distribution(description)
    if distribution is None:
        keys = ", ".join(description) or "nothing"
        text = f"{name} has {keys}; give value, values, min and max, or a distribution"
        issues.append(Issue(path, text))
        return None
    complete = {**description, "distribution": distribution}
    # A number that is wrong must not be taken for its default: later rules would speak of that.
    return validate(_DISTRIBUTION.validate_python, complete, path, issues, drop_wrong=False)


def _values(description: _Content, path: YamlPath) -> Iterator[tuple[YamlPath, Any]]:
    """Yield each value that a parameter lists, and where."""
    yield (*path, "value"), description.get("value")
    values = description.get("values")
    for i, value in enumerate(values if isinstance(values, list) else ()):
        yield (*path, "values", i), value

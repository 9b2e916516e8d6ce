"""Turn a W&B sweep file into a SweepSpec, reporting every error at once."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter

from deep_cnn.errors import SpecError
from deep_cnn.sweep.spec.command import program_end, read_command
from deep_cnn.sweep.spec.deep_cnn_rules import check_runs
from deep_cnn.sweep.spec.distributions import PARAMETER_KEYS, Distribution, infer_distribution
from deep_cnn.sweep.spec.document import Document, Finding, Issue, UnreadableError, YamlPath
from deep_cnn.sweep.spec.rules import RULES
from deep_cnn.sweep.spec.scheduler import check_scheduler, has_search_space
from deep_cnn.sweep.spec.schema import Hyperband, SweepMetric, SweepSpec, TopLevel
from deep_cnn.sweep.spec.validation import unknown_keys, validate, validate_section
from deep_cnn.sweep.spec.values import explain_text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(
    Annotated[Distribution, Field(discriminator="distribution")]
)
# A mapping in a YAML file, with any keys and values.
_Content = Mapping[Any, Any]


def read_sweep(path: Path, constants: Mapping[str, str] | None = None) -> SweepSpec:
    """Return the sweep in a file; raise SpecError with one line per error in it."""
    spec, findings = parse_sweep(path, constants)
    errors = [f"{path} {finding}" for finding in findings if finding.is_error]
    if spec is None:
        head = f"{path} has {len(errors)} errors:"
        raise SpecError(*(errors if len(errors) == 1 else [head, *errors]))
    return spec


def parse_sweep(
    path: Path, constants: Mapping[str, str] | None = None
) -> tuple[SweepSpec | None, list[Finding]]:
    """Return the sweep in a file, None if it has errors, and all findings by line.

    Args:
        path: The file.
        constants: Options of every run that the file does not set, as text by name.

    Raises:
        SpecError: The file cannot be read or is not text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); name a sweep file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not UTF-8 text; a sweep file is YAML in UTF-8") from None
    return parse_text(text, path.stem, constants)


def read_unchecked(path: Path) -> SweepSpec | None:
    """Return what is legal in a file, without the errors; None if it is not YAML."""
    try:
        return _read_content(Document(path.read_bytes().decode("utf-8-sig")), path.stem, [])
    except (OSError, UnicodeDecodeError, UnreadableError):
        return None


def parse_text(
    text: str, stem: str, constants: Mapping[str, str] | None = None
) -> tuple[SweepSpec | None, list[Finding]]:
    """Return the sweep in a text as `parse_sweep` does; its name is `stem` if it has none."""
    try:
        document = Document(text)
    except UnreadableError as error:
        return None, [error.finding]
    issues: list[Issue] = []
    spec = replace(_read_content(document, stem, issues), constants=constants or {})
    for rule in RULES:
        issues += rule(spec)
    if spec.runs_deep_cnn:
        issues += check_runs(spec, legal=not any(issue.is_error for issue in issues))
    findings = sorted({*document.duplicates, *map(document.locate, issues)})
    return (None if any(finding.is_error for finding in findings) else spec), findings


def parse_content(content: Mapping[str, Any], stem: str) -> SweepSpec | None:
    """Return the sweep with this content of a file, or None if it has errors."""
    return parse_text(yaml.safe_dump(content), stem)[0]


def _read_content(document: Document, stem: str, issues: list[Issue]) -> SweepSpec:
    """Return the legal parts of a file; add the errors of the other parts to `issues`.

    If the method is wrong, the rest is checked as for the method with the fewest rules.
    """
    content = document.content
    command = read_command(content)
    runs_deep_cnn = program_end(command) > 0
    found: list[Issue] = []
    top = validate_section(TopLevel, content, (), found) or TopLevel(method="random")
    for issue in found:  # W&B warns of keys that it does not know, and creates the sweep.
        is_known = not issue.path or issue.path[0] in TopLevel.model_fields
        issues.append(replace(issue, is_error=is_known or runs_deep_cnn))
    for key in ("metric", "early_terminate", "run_cap", "controller"):
        if key in content and content[key] is None:
            issues.append(Issue((key,), f"{key} is empty; give it a value, or remove it"))
    issues += check_scheduler(content, top.method)
    metric, rule = content.get("metric"), content.get("early_terminate")
    if metric is not None and not isinstance(metric, dict):
        issues.append(Issue(("metric",), f"metric is {metric!r}; write name: and goal: below it"))
        metric = None
    if rule is not None and not (isinstance(rule, dict) and rule.get("type") == "hyperband"):
        text = "early_terminate needs type: hyperband, the only one that W&B has"
        issues.append(Issue(("early_terminate",), text))
        rule = None
    return SweepSpec(
        name=" ".join((top.name or stem).split()),
        method=top.method,
        space=_read_parameters(document, issues, runs_deep_cnn=runs_deep_cnn),
        metric=validate_section(SweepMetric, metric, ("metric",), issues),
        run_cap=top.run_cap,
        early_terminate=validate_section(Hyperband, rule, ("early_terminate",), issues),
        command=command,
        runs_deep_cnn=runs_deep_cnn,
        content=content,
    )


def _read_parameters(
    document: Document, issues: list[Issue], *, runs_deep_cnn: bool
) -> dict[str, Distribution]:
    """Return the distribution of each parameter; nested names are group/name.

    They are sorted by name within each level, as W&B does. Errors are added to `issues`. A string
    that was meant as a number is an error if the sweep `runs_deep_cnn`, and a note otherwise.
    """
    space = {}
    section = document.content.get("parameters")
    if isinstance(section, dict) and section:
        for name, path, description in _leaves(section, "", ("parameters",), issues):
            distribution = _read_distribution(name, path, description, issues)
            if distribution:
                space[name] = distribution
            for value_path, value in _values(description, path):
                if value_path in document.numbers_as_text:
                    text = f"{name}: {explain_text(value)}"
                    issues.append(Issue(value_path, text, is_error=runs_deep_cnn))
    elif section is not None or not has_search_space(document.content):
        text = "no parameters; say what is searched, one at least"
        issues.append(Issue(("parameters",), text))
    return dict(sorted(space.items(), key=lambda item: item[0].split("/")))


def _leaves(
    level: _Content, prefix: str, path: YamlPath, issues: list[Issue]
) -> Iterator[tuple[str, YamlPath, _Content]]:
    """Go through the parameters of a level and all nested ones; add errors to `issues`."""
    for key, description in level.items():
        name, here = f"{prefix}{key}", (*path, str(key))
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            text = f"parameter {key!r} is not a legal name (letters, digits, . _ -)"
            issues.append(Issue(here, text))
        elif not isinstance(description, dict):
            text = f"{name} is {description!r}; write value:, values: or min: and max:"
            issues.append(Issue(here, text))
        elif unknown := unknown_keys(description, PARAMETER_KEYS, here):
            inner = [value for key, value in description.items() if key not in PARAMETER_KEYS]
            if any(isinstance(value, dict) for value in inner):
                text = f"{name}: nested parameters stand under {name}: {{parameters: ...}}"
                unknown = [Issue(here, text)]
            issues += unknown
        elif "parameters" not in description:
            yield name, here, description
        elif len(description) > 1:
            others = ", ".join(key for key in description if key != "parameters")
            issues.append(Issue(here, f"{name} has {others} beside parameters; remove them"))
        elif isinstance(nested := description["parameters"], dict) and nested:
            yield from _leaves(nested, f"{name}/", (*here, "parameters"), issues)
        else:
            issues.append(Issue(here, f"{name} has no parameters inside"))


def _read_distribution(
    name: str, path: YamlPath, description: _Content, issues: list[Issue]
) -> Distribution | None:
    distribution = description.get("distribution") or infer_distribution(description)
    if distribution is None:
        keys = ", ".join(description) or "nothing"
        text = f"{name} has {keys}; give value, values, min and max, or a distribution"
        issues.append(Issue(path, text))
        return None
    complete = {**description, "distribution": distribution}
    # Do not replace a wrong number by its default, or later rules would report the default.
    return validate(_DISTRIBUTION.validate_python, complete, path, issues, drop_wrong=False)


def _values(description: _Content, path: YamlPath) -> Iterator[tuple[YamlPath, Any]]:
    """Yield each value that a parameter lists, and its path."""
    yield (*path, "value"), description.get("value")
    values = description.get("values")
    for i, value in enumerate(values if isinstance(values, list) else ()):
        yield (*path, "values", i), value


def searched_options(content: Mapping[str, Any]) -> Mapping[str, Distribution]:
    """Return the parameters that a sweep searches by column, sorted, without its constants."""
    try:
        spec = _read_content(Document(yaml.safe_dump(dict(content))), "sweep", [])
    except (UnreadableError, yaml.YAMLError):
        return {}
    searched = {name: one for name, one in spec.space.items() if one.size != 1}
    return dict(sorted(spec.leaves(searched).items()))

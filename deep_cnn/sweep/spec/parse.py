"""Turn a W&B sweep file into a SweepSpec, reporting every error at once."""

from pathlib import Path

from deep_cnn.errors import SpecError
from deep_cnn.sweep.spec.command import program_end, read_command
from deep_cnn.sweep.spec.deep_cnn_rules import check_runs
from deep_cnn.sweep.spec.document import Document, Finding, Issue, UnreadableError
from deep_cnn.sweep.spec.parameters import read_parameters
from deep_cnn.sweep.spec.rules import RULES
from deep_cnn.sweep.spec.schema import Hyperband, SweepMetric, SweepSpec, TopLevel
from deep_cnn.sweep.spec.validation import validate_section


def read_sweep(path: Path) -> SweepSpec:
    """Return the sweep in a file; raise SpecError with a line for each error in it."""
    spec, findings = parse_sweep(path)
    errors = [f"{path} {finding}" for finding in findings if finding.is_error]
    if spec is None:
        head = f"{path} has {len(errors)} errors:"
        raise SpecError("\n".join(errors if len(errors) == 1 else [head, *errors]))
    return spec


def parse_sweep(path: Path) -> tuple[SweepSpec | None, list[Finding]]:
    """Return the sweep in a file, None if it has errors, and all findings by line.

    SpecError for a file that cannot be read, or is not text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); name a sweep file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not UTF-8 text; a sweep file is YAML in UTF-8") from None
    return parse_text(text, path.stem)


def parse_text(text: str, stem: str) -> tuple[SweepSpec | None, list[Finding]]:
    """Return the sweep in a text as `parse_sweep` does; its name is `stem` if it has none."""
    try:
        document = Document(text)
    except UnreadableError as error:
        return None, [error.finding]
    issues: list[Issue] = []
    spec = _read_content(document, stem, issues)
    for rule in RULES:
        issues += rule(spec)
    if spec.runs_deep_cnn:
        issues += check_runs(spec, legal=not any(issue.is_error for issue in issues))
    findings = sorted({*document.duplicates, *map(document.locate, issues)})
    return (None if any(finding.is_error for finding in findings) else spec), findings


def _read_content(document: Document, stem: str, issues: list[Issue]) -> SweepSpec:
    """Return what a file says as far as it is legal; add what is wrong with the rest to `issues`.

    Where the method is wrong, the rest is looked at as for the one with the fewest rules.
    """
    content = document.content
    top = validate_section(TopLevel, content, (), issues) or TopLevel(method="random")
    command = read_command(content)
    runs_deep_cnn = program_end(command) > 0
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
        space=read_parameters(document, issues, runs_deep_cnn=runs_deep_cnn),
        metric=validate_section(SweepMetric, metric, ("metric",), issues),
        run_cap=top.run_cap,
        early_terminate=validate_section(Hyperband, rule, ("early_terminate",), issues),
        command=command,
        runs_deep_cnn=runs_deep_cnn,
        content=content,
    )

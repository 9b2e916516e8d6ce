"""Turn a W&B sweep YAML into a SweepSpec, reporting every fault at once."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deep_cnn.errors import SpecError, nearest
from deep_cnn.sweep.flag_faults import absences, metric_faults, run_faults, value_faults
from deep_cnn.sweep.parameters import Parameters, is_number, is_whole, not_a_number
from deep_cnn.sweep.reading import Document, Finding, Findings, Unreadable, Where
from deep_cnn.sweep.spec import (
    DEFAULT_COMMAND,
    METHODS,
    OUR_COMMAND,
    Hyperband,
    Metric,
    SweepSpec,
    bands,
    program_end,
)

_TOP = {
    "method", "parameters", "metric", "metrics", "early_terminate", "scheduler", "run_cap",
    "command", "program", "project", "entity", "name", "description", "controller", "job",
    "image_uri", "apiVersion", "kind",
}  # fmt: skip
# Keys that W&B reads and a local sweep has no use for.
_UNUSED = ("project", "entity", "controller", "job", "image_uri", "apiVersion", "kind", "scheduler")
_METRIC_KEYS = {"name", "goal", "target", "impute", "impute_while_running"}
_HYPERBAND_KEYS = {"type", "min_iter", "max_iter", "s", "eta", "strict"}
_MACROS = {
    "env", "interpreter", "program", "args", "args_no_boolean_flags", "args_no_hyphens",
    "args_no_equals", "args_json", "args_json_file", "args_dict", "args_append_hydra",
    "args_override_hydra",
}  # fmt: skip
_ARGUMENTS = "${args"


def read_spec(path: Path) -> SweepSpec:
    """The sweep in the file `path`; SpecError tells every fault, a line each."""
    spec, findings = examine(path)
    faults = [finding for finding in findings if finding.fault]
    if spec is None or faults:
        count = f"{len(faults)} fault{'s' * (len(faults) != 1)}"
        lines = [f"{path} has {count}:", *(f"{path} {f}" for f in faults)]
        raise SpecError(f"{path} {faults[0]}" if len(faults) == 1 else "\n".join(lines))
    return spec


def examine(path: Path) -> tuple[SweepSpec | None, list[Finding]]:
    """The sweep in a file, or None, and every finding, by line. SpecError for no text at all."""
    return examine_text(read_text(path), path.stem)


def read_text(path: Path) -> str:
    """The text of a sweep file; SpecError where there is none."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); name a sweep file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not UTF-8 text; a sweep file is YAML in UTF-8") from None


def examine_text(text: str, stem: str) -> tuple[SweepSpec | None, list[Finding]]:
    """As `examine`; the sweep is called `stem` where the text names none."""
    document = Document()
    try:
        content = document.read(text)
        return _Examination(content, document, stem).result()
    except Unreadable as error:
        return None, [error.finding]
    except (OverflowError, ValueError, RecursionError) as error:
        return None, [Finding(1, f"numbers that are too large to handle ({error}); use less")]


class _Examination:
    """One look through a file's content, collecting findings on the way."""

    def __init__(self, content: dict[str, Any], document: Document, stem: str) -> None:
        self.content, self.document, self.stem = content, document, stem
        self.findings = Findings(document)
        self._wrong, self._note = self.findings.wrong, self.findings.note
        self.method = str(content.get("method"))
        self.command, self.ours = self._command()

    def result(self) -> tuple[SweepSpec | None, list[Finding]]:
        """The spec, where there is no fault, and all findings by line."""
        for path, line in self.document.twice:
            self.findings.add(
                line, f"key {path[-1]} is there twice, the last one counts; remove one", False
            )
        for key in self.content:
            if key not in _TOP:
                self._wrong((str(key),), f"unknown key {key!r}; {nearest(key, _TOP)}")
            elif key in _UNUSED:
                self._note((key,), f"{key} changes nothing in a local sweep")
        for key in ("program", "project", "entity", "name", "description", "job", "image_uri"):
            if not isinstance(self.content.get(key, ""), str):
                self._wrong((key,), f"{key} {self.content[key]!r} is no text; put it in quotes")
        if self.content.get("kind", "sweep") != "sweep":
            self._wrong(("kind",), f"kind {self.content['kind']!r} is not sweep")
        controller = self.content.get("controller", {"type": "cloud"})
        if not isinstance(controller, dict) or controller.get("type") not in ("cloud", "local"):
            self._wrong(("controller",), "controller needs type: local or cloud")
        if self.method not in METHODS:
            given = (
                f"method {self.method!r} is unknown" if "method" in self.content else "no method"
            )
            self._wrong(("method",), f"{given}; choose from {', '.join(METHODS[:3])}")
        if self.method == "custom":
            self._note(("method",), "method custom runs on W&B's scheduler only")
        parameters = self._parameters()
        metric = self._metric()
        hyperband = self._hyperband(metric)
        run_cap = self.content.get("run_cap")
        if run_cap is not None and not (is_whole(run_cap) and 0 < run_cap < 1e15):
            self._wrong(("run_cap",), "run_cap is not a whole number above 0")
        name = " ".join(str(self.content.get("name") or self.stem).split())
        spec = SweepSpec(
            name,
            self.method,
            dict(sorted(parameters.space.items())),
            metric,
            run_cap,
            hyperband,
            self.command,
            self.ours,
            self.content,
        )
        if self.ours:
            self._flags(spec, parameters.where)
        findings = sorted(set(self.findings.found))
        if any(finding.fault for finding in findings):
            return None, findings
        return spec, findings

    # What follows goes through the file section by section.

    def _command(self) -> tuple[tuple[str, ...], bool]:
        command = self.content.get("command", list(DEFAULT_COMMAND))
        if isinstance(command, str):
            command = command.split()
            self._wrong(("command",), "command is one string; W&B takes a list, a word each", True)
        if not isinstance(command, list):
            self._wrong(("command",), "command is not a list of words")
            return (), False
        program = str(self.content.get("program", ""))
        words = tuple(str(word) for word in command)
        if program.endswith("deep_cnn/__main__.py"):
            words = tuple(program if word == "${program}" else word for word in words)
        ours = program_end(words) > 0
        if "${program}" in words and not program:
            self._note(("command",), f"no program to run; for deep_cnn write {OUR_COMMAND}")
        for i, word in enumerate(words):
            macro = re.fullmatch(r"\$\{([^}:]*)\}", word)
            if macro and macro[1] not in _MACROS:
                near = nearest(macro[1], _MACROS)
                self._wrong(("command", i), f"macro {word} is unknown, W&B drops it; {near}", ours)
        return words, ours

    def _parameters(self) -> Parameters:
        found = Parameters(self.findings, self.method, ours=self.ours)
        given = self.content.get("parameters")
        if given is None and isinstance(self.content.get("scheduler"), dict):
            return found
        if not isinstance(given, dict) or not given:
            self._wrong(("parameters",), "no parameters; say what is searched, one at least")
            return found
        found.read(given)
        return found

    def _metric(self) -> Metric | None:
        metric = self.content.get("metric")
        if metric is None:
            needs = self.method == "bayes" or "early_terminate" in self.content
            if needs:
                self._wrong(
                    ("method",), "no metric; bayes and early_terminate need metric: name, goal"
                )
            return None
        if not isinstance(metric, dict):
            self._wrong(("metric",), f"metric is {metric!r}; write name: and goal: below it")
            return None
        for key in metric.keys() - _METRIC_KEYS:
            near = nearest(key, _METRIC_KEYS)
            self._wrong(("metric", str(key)), f"metric: unknown key {key!r}; {near}")
        name, goal = metric.get("name"), metric.get("goal", "minimize")
        if not isinstance(name, str) or not name:
            self._wrong(
                ("metric", "name"), "metric has no name; name what is logged, as in loss_val"
            )
            return None
        if goal not in ("minimize", "maximize"):
            near = nearest(goal, ("minimize", "maximize"))
            self._wrong(("metric", "goal"), f"metric goal {goal!r} is unknown; {near}")
        target = metric.get("target")
        if target is not None and not is_number(target):
            self._wrong(("metric", "target"), not_a_number(target, "metric target"))
            target = None
        for key, extra in (("impute", ()), ("impute_while_running", ("false", False))):
            legal = ("latest", "best", "worst", *extra)
            if metric.get(key, "worst") not in legal:
                text = ", ".join(map(str, legal))
                self._wrong(("metric", key), f"metric {key} {metric[key]!r}; choose from {text}")
        return Metric(name, str(goal), target, str(metric.get("impute", "worst")))

    def _hyperband(self, metric: Metric | None) -> Hyperband | None:
        given = self.content.get("early_terminate")
        if given is None:
            return None
        here = "early_terminate"
        if not isinstance(given, dict) or given.get("type") != "hyperband":
            self._wrong((here,), "early_terminate needs type: hyperband, the only one that W&B has")
            return None
        for key in given.keys() - _HYPERBAND_KEYS:
            near = nearest(key, _HYPERBAND_KEYS)
            self._wrong((here, str(key)), f"early_terminate: unknown key {key!r}; {near}")
        for key in ("min_iter", "max_iter", "s"):
            value = given.get(key)
            if value is not None and not (is_whole(value) and value >= 1):
                self._wrong(
                    (here, key), f"early_terminate: {key} {value!r} is not a whole number >= 1"
                )
                return None
        eta, strict = given.get("eta", 3), given.get("strict", True)
        if not is_number(eta) or eta <= 1:
            self._wrong((here, "eta"), f"early_terminate: eta {eta!r} must be above 1")
            return None
        if not isinstance(strict, bool):
            self._wrong(
                (here, "strict"), f"early_terminate: strict {strict!r} is not true or false"
            )
            return None
        low, high, s = (given.get(key) for key in ("min_iter", "max_iter", "s"))
        if low is not None and high is not None:
            text = "early_terminate has both min_iter and max_iter, max_iter wins; remove one"
            self._wrong((here, "min_iter"), text, self.ours)
        if (high is None and low is None) or (high is not None and s is None):
            self._wrong((here,), "early_terminate needs min_iter, or max_iter with s")
            return None
        found = bands(low, high, s, eta)
        if not found:
            self._wrong((here, "max_iter"), f"max_iter {high} / eta {eta} is below 1: no band")
            return None
        return Hyperband(found, eta, strict)

    def _flags(self, spec: SweepSpec, places: Mapping[str, Where]) -> None:
        """What only deep_cnn can know."""
        if not any(word.startswith(_ARGUMENTS) for word in self.command):
            self._wrong(("command",), "command has no ${args}: every run would be the same; add it")
        faults = list(value_faults(spec, self.content, places))
        # Only legal values make configurations.
        legal = not faults and not any(finding.fault for finding in self.findings.found)
        faults += run_faults(spec, places) if legal else metric_faults(spec)
        for where, text in faults:
            self._wrong(where, text)
        for where, text in absences(spec, places) if legal else ():
            self._note(where, text)

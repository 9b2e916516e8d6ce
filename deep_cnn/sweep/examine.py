"""Turn a W&B sweep YAML into a SweepSpec, reporting every fault at once."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deep_cnn.errors import SpecError, nearest
from deep_cnn.sweep import space
from deep_cnn.sweep.flag_faults import absences, leaf_flag, metric_faults, run_faults, value_faults
from deep_cnn.sweep.reading import Document, Finding, Unreadable, Where
from deep_cnn.sweep.space import Domain
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
_PARAMETER_KEYS = {"distribution", "value", "values", "probabilities", "min", "max", "mu", "sigma",
                   "a", "b", "q", "parameters"}  # fmt: skip
_METRIC_KEYS = {"name", "goal", "target", "impute", "impute_while_running"}
_HYPERBAND_KEYS = {"type", "min_iter", "max_iter", "s", "eta", "strict"}
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
# YAML 1.1 wants a dot in the mantissa and a sign in the exponent: it reads these as strings.
_NUMBER_AS_TEXT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_MACROS = {
    "env", "interpreter", "program", "args", "args_no_boolean_flags", "args_no_hyphens",
    "args_no_equals", "args_json", "args_json_file", "args_dict", "args_append_hydra",
    "args_override_hydra",
}  # fmt: skip
# Beyond it the width of a range is no float any more.
_LARGEST = 1e300
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


def is_number(value: Any) -> bool:
    """Whether a YAML value is a finite number; True is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Examination:
    """One look through a file's content, collecting findings on the way."""

    def __init__(self, content: dict[str, Any], document: Document, stem: str) -> None:
        self.content, self.document, self.stem = content, document, stem
        self.findings: list[Finding] = []
        self.space: dict[str, Domain] = {}
        self.where: dict[str, Where] = {}
        self.method = str(content.get("method"))
        self.command, self.ours = self._command()

    def result(self) -> tuple[SweepSpec | None, list[Finding]]:
        """The spec, where there is no fault, and all findings by line."""
        for path, line in self.document.twice:
            self._add(
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
        self._parameters()
        metric = self._metric()
        hyperband = self._hyperband(metric)
        run_cap = self.content.get("run_cap")
        if run_cap is not None and not (_is_whole(run_cap) and 0 < run_cap < 1e15):
            self._wrong(("run_cap",), "run_cap is not a whole number above 0")
        name = " ".join(str(self.content.get("name") or self.stem).split())
        spec = SweepSpec(
            name,
            self.method,
            dict(sorted(self.space.items())),
            metric,
            run_cap,
            hyperband,
            self.command,
            self.ours,
            self.content,
        )
        if self.ours:
            self._flags(spec)
        findings = sorted(set(self.findings))
        if any(finding.fault for finding in findings):
            return None, findings
        return spec, findings

    def _add(self, line: int, text: str, fault: bool = True) -> None:
        self.findings.append(Finding(line, text, fault))

    def _wrong(self, where: Where, text: str, fault: bool = True) -> None:
        self._add(self.document.line(where), text, fault)

    def _note(self, where: Where, text: str) -> None:
        self._wrong(where, text, False)

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

    def _parameters(self) -> None:
        parameters = self.content.get("parameters")
        if parameters is None and isinstance(self.content.get("scheduler"), dict):
            return
        if not isinstance(parameters, dict) or not parameters:
            self._wrong(("parameters",), "no parameters; say what is searched, one at least")
            return
        self._level(parameters, ("parameters",), "")
        if self.ours:
            self._same_leaf()

    def _level(self, parameters: dict[Any, Any], where: Where, prefix: str) -> None:
        for key, description in parameters.items():
            here: Where = (*where, str(key))
            if not isinstance(key, str) or not _NAME.match(key):
                self._wrong(here, f"parameter {key!r} is no legal name (letters, digits, . _ -)")
                continue
            name = f"{prefix}{key}"
            if not isinstance(description, dict):
                self._wrong(
                    here, f"{name} is {description!r}; write value:, values: or min: and max:"
                )
                continue
            if not self._known_keys(description, here, name):
                continue
            if "parameters" in description:
                inner = description["parameters"]
                if isinstance(inner, dict) and inner:
                    self._level(inner, (*here, "parameters"), f"{name}/")
                else:
                    self._wrong(here, f"{name} has no parameters inside")
                continue
            domain = self._domain(description, here, name)
            if domain:
                self.space[name], self.where[name] = domain, here

    def _known_keys(self, description: dict[Any, Any], where: Where, name: str) -> bool:
        unknown = [key for key in description if key not in _PARAMETER_KEYS]
        for key in unknown:
            near = nearest(key, _PARAMETER_KEYS)
            self._wrong((*where, str(key)), f"{name}: unknown key {key!r}; {near}")
        return not unknown

    def _domain(self, description: dict[str, Any], where: Where, name: str) -> Domain | None:
        distribution = description.get("distribution") or self._inferred(description)
        if distribution is None:
            keys = ", ".join(map(str, description)) or "nothing"
            self._wrong(
                where, f"{name} has {keys}; give value, values, min and max, or a distribution"
            )
            return None
        if distribution not in space.DISTRIBUTIONS:
            near = nearest(distribution, space.DISTRIBUTIONS)
            self._wrong((*where, "distribution"), f"{name}: unknown distribution; {near}")
            return None
        legal = _keys_of(distribution)
        for key in description.keys() - legal - {"distribution"}:
            self._wrong((*where, key), f"{name}: {key} does not go with {distribution}; remove it")
        if distribution == "constant":
            return self._constant(description, where, name)
        if distribution.startswith("categorical"):
            return self._categorical(description, where, name, distribution)
        return self._numeric(description, where, name, distribution)

    def _inferred(self, description: dict[str, Any]) -> str | None:
        if "values" in description:
            return (
                "categorical_w_probabilities" if "probabilities" in description else "categorical"
            )
        if "value" in description:
            return "constant"
        if {"min", "max"} <= description.keys() <= {"min", "max"}:
            both_whole = _is_whole(description["min"]) and _is_whole(description["max"])
            return "int_uniform" if both_whole else "uniform"
        return None

    def _constant(self, description: dict[str, Any], where: Where, name: str) -> Domain | None:
        if "value" not in description:
            self._wrong(where, f"{name}: a constant needs value")
            return None
        self._text_number(description["value"], (*where, "value"), name)
        return space.constant(description["value"])

    def _categorical(
        self, description: dict[str, Any], where: Where, name: str, distribution: str
    ) -> Domain | None:
        values = description.get("values")
        if not isinstance(values, list) or not values:
            self._wrong((*where, "values"), f"{name}: values is not a list with one value at least")
            return None
        for i, value in enumerate(values):
            self._text_number(value, (*where, "values", i), name)
        if distribution == "categorical":
            return space.categorical(values)
        chances = description.get("probabilities")
        place: Where = (*where, "probabilities")
        if not isinstance(chances, list) or not all(is_number(p) and p >= 0 for p in chances):
            self._wrong(place, f"{name}: probabilities is not a list of numbers, 0 or more each")
        elif len(chances) != len(values):
            self._wrong(place, f"{name}: {len(chances)} probabilities for {len(values)} values")
        elif not math.isclose(sum(chances), 1):
            self._wrong(place, f"{name}: probabilities sum to {sum(chances):g}; they must sum to 1")
        elif self.method == "grid":
            self._wrong(place, f"{name}: a grid has no probabilities; remove them or use random")
        else:
            return space.categorical(values, chances)
        return None

    def _numeric(
        self, description: dict[str, Any], where: Where, name: str, distribution: str
    ) -> Domain | None:
        numbers: dict[str, Any] = {}
        for key, default in _keys_of(distribution).items():
            value = description.get(key, default)
            if value is None:
                self._wrong(where, f"{name}: {distribution} needs {key}")
            elif not is_number(value):
                self._not_a_number(value, (*where, key), f"{name}: {key}")
            elif (key == "sigma" and value < 0) or (key in ("q", "a", "b") and value <= 0):
                self._wrong((*where, key), f"{name}: {key} {value} must be above 0")
            else:
                numbers[key] = value
        if len(numbers) < len(_keys_of(distribution)):
            return None
        if "min" in numbers and not self._bounds(numbers, where, name, distribution):
            return None
        if distribution == "int_uniform":
            domain = space.int_uniform(numbers["min"], numbers["max"])
        else:
            try:
                domain = space.continuous(distribution, numbers)
                for u in (0.0, 0.5, 1.0):
                    domain.at(u)
            except (OverflowError, ValueError, ZeroDivisionError):
                self._wrong(where, f"{name}: {distribution} leads to numbers beyond floats")
                return None
        self._surprises(domain, numbers, where, name)
        return domain

    def _bounds(self, numbers: dict[str, Any], where: Where, name: str, distribution: str) -> bool:
        low, high = numbers["min"], numbers["max"]
        place: Where = (*where, "min")
        if low >= high:
            self._wrong(place, f"{name}: min {low} is not below max {high}; swap or widen them")
        elif distribution.endswith("log_uniform_values") and low <= 0:
            self._wrong(place, f"{name}: min {low} must be above 0 for {distribution}")
        elif distribution == "int_uniform" and not (_is_whole(low) and _is_whole(high)):
            self._wrong(
                place, f"{name}: int_uniform needs whole numbers; write {low:g} as an integer"
            )
        else:
            return True
        return False

    def _surprises(self, domain: Domain, numbers: dict[str, Any], where: Where, name: str) -> None:
        distribution = domain.distribution
        if distribution in ("log_uniform", "q_log_uniform", "inv_log_uniform"):
            text = (
                f"{name}: {distribution} takes exponents of e, here from"
                f" {domain.at(0.0):.3g} to {domain.at(1.0):.3g}; {distribution}_values takes values"
            )
            large = self.ours and numbers["min"] > 0 and distribution != "inv_log_uniform"
            self._wrong(where, text, large)
        if self.method == "grid" and domain.grid is None:
            many = "too many points for" if "uniform" in distribution[-7:] and domain.size else ""
            reason = f"{many or 'no end in'} a grid; list values, or use random or bayes"
            self._wrong(where, f"{name}: {distribution} has {reason}")
        if "q" in numbers and "min" in numbers and self.method != "grid":
            low, high = domain.at(1e-12), domain.at(1 - 1e-12)
            bounds = (numbers["min"], numbers["max"])
            if distribution == "q_log_uniform":
                bounds = (math.exp(bounds[0]), math.exp(bounds[1]))
            slack = 1e-9 * max(1.0, abs(bounds[1]))
            if low < bounds[0] - slack or high > bounds[1] + slack:
                self._wrong(
                    where,
                    f"{name}: q={numbers['q']:g} rounds to {low:g} ... {high:g}, outside of"
                    f" {bounds[0]:g} ... {bounds[1]:g}; use bounds that are multiples of q",
                    self.ours,
                )

    def _text_number(self, value: Any, where: Where, name: str) -> None:
        if isinstance(value, str) and where in self.document.plain and _NUMBER_AS_TEXT.match(value):
            self._wrong(where, f"{name}: {_as_text(value)}", self.ours)

    def _not_a_number(self, value: Any, where: Where, what: str) -> None:
        if isinstance(value, str) and _NUMBER_AS_TEXT.match(value):
            self._wrong(where, f"{what} {_as_text(value)}")
        else:
            self._wrong(where, f"{what} {value!r} is not a number")

    def _same_leaf(self) -> None:
        seen: dict[str, str] = {}
        for name in sorted(self.space):
            leaf = leaf_flag(name)
            if leaf in seen:
                self._wrong(
                    self.where[name],
                    f"{name} and {seen[leaf]} are both the flag --{leaf}; rename or remove one",
                )
            seen[leaf] = name

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
            self._not_a_number(target, ("metric", "target"), "metric target")
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
            if value is not None and not (_is_whole(value) and value >= 1):
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

    def _flags(self, spec: SweepSpec) -> None:
        """What only deep_cnn can know."""
        if not any(word.startswith(_ARGUMENTS) for word in self.command):
            self._wrong(("command",), "command has no ${args}: every run would be the same; add it")
        faults = list(value_faults(spec, self.content, self.where))
        # Only legal values make configurations.
        legal = not faults and not any(finding.fault for finding in self.findings)
        faults += run_faults(spec, self.where) if legal else metric_faults(spec)
        for where, text in faults:
            self._wrong(where, text)
        for where, text in absences(spec, self.where) if legal else ():
            self._note(where, text)


def _keys_of(distribution: str) -> Mapping[str, Any]:
    """The keys that a distribution takes, with defaults; None where there is none."""
    special: Mapping[str, Mapping[str, Any]] = {
        "constant": {"value": None},
        "categorical": {"values": None},
        "categorical_w_probabilities": {"values": None, "probabilities": None},
        "int_uniform": {"min": None, "max": None},
    }
    if distribution in special:
        return special[distribution]
    keys = space.CONTINUOUS[distribution.removeprefix("q_")][0]
    return {**keys, "q": 1.0} if distribution in space.QUANTISED else keys


def _as_text(value: str) -> str:
    mantissa, _, exponent = value.lower().partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    sign = "" if exponent[0] in "+-" else "+"
    return f"{value} is a string to YAML, not a number; write {mantissa}e{sign}{exponent}"

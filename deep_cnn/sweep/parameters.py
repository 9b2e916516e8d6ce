"""Turn the parameters of a sweep file into domains, collecting every fault."""

import math
import re
from collections.abc import Mapping
from typing import Any

from deep_cnn.errors import nearest
from deep_cnn.sweep import space
from deep_cnn.sweep.flag_faults import leaf_flag
from deep_cnn.sweep.reading import Findings, Where
from deep_cnn.sweep.space import Domain

_PARAMETER_KEYS = {"distribution", "value", "values", "probabilities", "min", "max", "mu", "sigma",
                   "a", "b", "q", "parameters"}  # fmt: skip
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]*$")
# YAML 1.1 wants a dot in the mantissa and a sign in the exponent: it reads these as strings.
_NUMBER_AS_TEXT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
# Beyond it the width of a range is no float any more.
_LARGEST = 1e300


def is_number(value: Any) -> bool:
    """Whether a YAML value is a finite number; True is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST


def is_whole(value: Any) -> bool:
    """Whether a YAML value is a whole number; True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def not_a_number(value: Any, what: str) -> str:
    """What to say of a value that should be one, and is not."""
    if isinstance(value, str) and _NUMBER_AS_TEXT.match(value):
        return f"{what} {_as_text(value)}"
    return f"{what} {value!r} is not a number"


class Parameters:
    """The section `parameters`: after `read`, each one's domain in `space`, its place in `where`.

    `ours` says that deep_cnn is what runs, for which more is a fault than for W&B.
    """

    def __init__(self, findings: Findings, method: str, *, ours: bool) -> None:
        self.findings, self.method, self.ours = findings, method, ours
        self._wrong = findings.wrong
        self.space: dict[str, Domain] = {}
        self.where: dict[str, Where] = {}

    def read(self, parameters: dict[Any, Any]) -> None:
        """Read all of them, nested ones too."""
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
            both_whole = is_whole(description["min"]) and is_whole(description["max"])
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
                self._wrong((*where, key), not_a_number(value, f"{name}: {key}"))
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
        elif distribution == "int_uniform" and not (is_whole(low) and is_whole(high)):
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
        if (
            isinstance(value, str)
            and where in self.findings.document.plain
            and _NUMBER_AS_TEXT.match(value)
        ):
            self._wrong(where, f"{name}: {_as_text(value)}", self.ours)

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

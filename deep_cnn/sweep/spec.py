"""What a sweep is: a method, a space, a metric, and the command that runs a configuration."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deep_cnn.argv import parse_config
from deep_cnn.config import TrainConfig
from deep_cnn.sweep.space import Domain, Point, plain

# No run logs as many values.
_MOST_VALUES = 1e9
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
# What a file says to run deep_cnn.
OUR_COMMAND = 'command: ["${env}", python, -m, deep_cnn, "${args}"]'
METHODS = ("grid", "random", "bayes", "custom")


@dataclass(frozen=True, slots=True)
class Metric:
    """What a sweep optimises."""

    name: str
    goal: str = "minimize"
    target: float | None = None
    impute: str = "worst"

    def reached(self, value: float) -> bool:
        """Whether a value is as good as the target; where there is none it never is."""
        if self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


@dataclass(frozen=True, slots=True)
class Hyperband:
    """W&B's early termination; `bands` are counts of logged values, ascending."""

    bands: tuple[int, ...]
    eta: float
    strict: bool


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """A sweep file, understood. `space` is sorted by name; nested names are joined with slashes."""

    name: str
    method: str
    space: Mapping[str, Domain]
    metric: Metric | None
    run_cap: int | None
    early_terminate: Hyperband | None
    command: tuple[str, ...]
    ours: bool
    content: Mapping[str, Any]

    def leaves(self, point: Point) -> dict[str, Any]:
        """One value a column: by flag where deep_cnn runs, else by dotted name."""
        if self.ours:
            return {name.rpartition("/")[2]: value for name, value in point.items()}
        return {name.replace("/", "."): value for name, value in point.items()}

    def arguments(self, point: Point) -> dict[str, Any]:
        """What the agent passes on: flags where deep_cnn runs, else nested as in the file."""
        if self.ours:
            return self.leaves(point)
        found: dict[str, Any] = {}
        for name, value in point.items():
            *parents, last = name.split("/")
            place = found
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return found

    def argv(self, point: Point) -> list[str]:
        """The words that follow `deep_cnn` when W&B's agent runs this configuration."""
        words = ("${args_json}" if w == "${args_json_file}" else w for w in self.command)
        program = str(self.content.get("program", ""))
        return expand(tuple(words), program, self.arguments(point))[program_end(self.command) :]

    def command_line(self, point: Point) -> list[str]:
        """All the words that W&B's agent would run."""
        return self._words(point)

    def config(self, point: Point) -> TrainConfig:
        """The run that this configuration is; ConfigError for what its flags refuse."""
        return parse_config(self.argv(point), from_agent=True)

    def _words(self, point: Point) -> list[str]:
        return expand(self.command, str(self.content.get("program", "")), self.arguments(point))

    @property
    def points(self) -> int | None:
        """How many distinct configurations there are; None for infinitely many."""
        total = 1
        for domain in self.space.values():
            size = _length(domain.grid) if self.method == "grid" else domain.size
            if size is None:
                return None
            total *= size
        return total


def _length(values: Sequence[Any] | None) -> int:
    return 0 if values is None else len(values)


def bands(min_iter: int | None, max_iter: int | None, s: int | None, eta: float) -> tuple[int, ...]:
    """W&B's bands: max_iter/eta^k for k = 1 ... s, or min_iter*eta^k; counts of logged values."""
    found: list[int] = []
    if max_iter is not None:
        band = max_iter / eta
        while band >= 1 and len(found) < (s or 0):
            found.append(int(band))
            band /= eta
    else:
        band = float(min_iter or 1)
        while band < _MOST_VALUES and len(found) < 100:
            found.append(int(band))
            band *= eta
    return tuple(sorted(set(found)))


def expand(command: Sequence[str], program: str, arguments: Mapping[str, Any]) -> list[str]:
    """The words that W&B's agent makes of a command for these arguments."""
    found: list[str] = []
    whole = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": ["python"],
        "${program}": [program],
    }
    for word in command:
        macro = re.fullmatch(r"\$\{(\w+)\}", word)
        if word in whole:
            found += whole[word]
        elif macro:
            found += _arguments(macro[1], arguments)
        else:
            found.append(_environment(word))
    return found


def _arguments(macro: str, leaves: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in sorted(leaves.items()):
        if macro == "args_no_boolean_flags" and isinstance(value, bool):
            words += [f"--{name}"] if value else []
        elif macro in ("args", "args_no_boolean_flags"):
            words.append(f"--{name}={value}")
        elif macro == "args_no_equals":
            words += [f"--{name}", str(value)]
        elif macro == "args_no_hyphens":
            words.append(f"{name}={value}")
        elif macro in ("args_append_hydra", "args_override_hydra"):
            words.append(f"{'+' if macro == 'args_append_hydra' else '++'}{name}={value}")
    if macro in ("args_json", "args_dict"):
        words.append(json.dumps(plain(leaves), sort_keys=True))
    if macro == "args_json_file":
        words.append("ARGS.json")
    return words


def _environment(word: str) -> str:
    return re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", lambda m: os.environ.get(m[1], m[1]), word)


def program_end(command: Sequence[str]) -> int:
    """The index behind `deep_cnn` in a command; 0 where the program is another one."""
    for i, word in enumerate(command):
        if tuple(command[i - 1 : i + 1]) == ("-m", "deep_cnn"):
            return i + 1
        if word.endswith((".py", "${program}")) or word.rpartition("/")[2] == "deep-cnn":
            return i + 1 if word.endswith(("deep-cnn", "deep_cnn/__main__.py")) else 0
    return 0

"""Expand the macros of a sweep's command as W&B's agent does, and find deep_cnn in it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deep_cnn.sweep.spec.values import to_jsonable

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
# What a file says to run deep_cnn.
DEEP_CNN_COMMAND = 'command: ["${env}", python, -m, deep_cnn, "${args}"]'
MACROS = {
    "env", "interpreter", "program", "args", "args_no_boolean_flags", "args_no_hyphens",
    "args_no_equals", "args_json", "args_json_file", "args_dict", "args_append_hydra",
    "args_override_hydra",
}  # fmt: skip


def read_command(content: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the words of a sweep file's command; none where it is not a list or a string."""
    command = content.get("command", DEFAULT_COMMAND)
    if isinstance(command, str):
        command = command.split()
    if not isinstance(command, list | tuple):
        return ()
    program = str(content.get("program", ""))
    words = tuple(str(word) for word in command)
    if program.endswith("deep_cnn/__main__.py"):
        return tuple(program if word == "${program}" else word for word in words)
    return words


def program_end(command: Sequence[str]) -> int:
    """Return the index behind `deep_cnn` in a command, or 0 where it runs another program."""
    for i, word in enumerate(command):
        if tuple(command[i - 1 : i + 1]) == ("-m", "deep_cnn"):
            return i + 1
        if word.endswith((".py", "${program}")) or word.rpartition("/")[2] == "deep-cnn":
            return i + 1 if word.endswith(("deep-cnn", "deep_cnn/__main__.py")) else 0
    return 0


def expand(command: Sequence[str], program: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the words that W&B's agent makes of a command for these arguments."""
    words: list[str] = []
    fixed = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": ["python"],
        "${program}": [program],
    }
    for word in command:
        macro = re.fullmatch(r"\$\{(\w+)\}", word)
        if word in fixed:
            words += fixed[word]
        elif macro:
            words += _arguments(macro[1], arguments)
        else:
            words.append(_environment(word))
    return words


def _arguments(macro: str, arguments: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in sorted(arguments.items()):
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
        words.append(json.dumps(to_jsonable(arguments), sort_keys=True))
    if macro == "args_json_file":
        words.append("ARGS.json")
    return words


def _environment(word: str) -> str:
    return re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", lambda m: os.environ.get(m[1], m[1]), word)

"""Expand the macros of a sweep's command as W&B's agent does, and find deep_cnn in it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deep_cnn.sweep.spec.values import to_jsonable

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
# The command of a sweep file that runs deep_cnn.
DEEP_CNN_COMMAND = 'command: ["${env}", python, -m, deep_cnn, "${args}"]'
_VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
# How each macro writes the name and the value of a parameter, as one argument.
_FORMATS = {
    "args": "--{}={}",
    "args_no_boolean_flags": "--{}={}",
    "args_no_hyphens": "{}={}",
    "args_append_hydra": "+{}={}",
    "args_override_hydra": "++{}={}",
}
MACROS = {
    *("env", "interpreter", "program", "args_no_equals", "args_json", "args_json_file"),
    *("args_dict", *_FORMATS),
}


def read_command(content: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the parts of a sweep file's command, or none if it is not a list or a string."""
    command = content.get("command") or DEFAULT_COMMAND
    if isinstance(command, str):
        command = command.split()
    if not isinstance(command, list | tuple):
        return ()
    program = str(content.get("program", ""))
    is_deep_cnn = program.endswith("deep_cnn/__main__.py")
    return tuple(program if is_deep_cnn and p == "${program}" else str(p) for p in command)


def program_end(command: Sequence[str]) -> int:
    """Return the index after `deep_cnn` in a command, or 0 if it runs another program."""
    for i, part in enumerate(command):
        if tuple(command[i - 1 : i + 1]) == ("-m", "deep_cnn"):
            return i + 1
        if part.endswith((".py", "${program}")) or part.rpartition("/")[2] == "deep-cnn":
            return i + 1 if part.endswith(("deep-cnn", "deep_cnn/__main__.py")) else 0
    return 0


def expand(
    command: Sequence[str],
    program: str,
    arguments: Mapping[str, object],
    *,
    json_file: str = "ARGS.json",
    hides_variables: bool = False,
) -> list[str]:
    """Return the command line that W&B's agent builds from a command and these arguments.

    Args:
        command: The parts of the command.
        program: What ${program} stands for.
        arguments: The parameters.
        json_file: What ${args_json_file} stands for.
        hides_variables: Write *** for ${envvar:NAME}, which may be a credential.
    """
    argv: list[str] = []
    fixed = {"env": "/usr/bin/env", "interpreter": "python", "program": program}
    for item in command:
        part = _VARIABLE.sub("***" if hides_variables else _value_of, item)
        name = macro_name(part)
        if name is None:
            argv.append(part)
        elif name in fixed:
            argv.append(fixed[name])
        elif name == "args_json_file":
            argv.append(json_file)
        else:
            argv += _arguments(name, arguments)
    return argv


def _value_of(match: re.Match[str]) -> str:
    # W&B writes the bare name of a variable that is not set.
    return os.environ.get(match[1], match[1])


def macro_name(part: str) -> str | None:
    """Return the name of a macro; W&B expands whole arguments only, and drops unknown macros."""
    return part[2:-1] if part.startswith("${") and part.endswith("}") else None


def _arguments(macro: str, arguments: Mapping[str, object]) -> list[str]:
    if macro == "args_dict":
        return sorted(arguments)  # Names without values: a bug of W&B.
    if macro == "args_json":
        return [json.dumps(to_jsonable(arguments), sort_keys=True)]
    argv: list[str] = []
    for name, value in sorted(arguments.items()):
        if macro == "args_no_boolean_flags" and isinstance(value, bool):
            argv += [f"--{name}"] if value else []
        elif macro == "args_no_equals":
            argv += [f"--{name}", str(value)]
        elif macro in _FORMATS:
            argv.append(_FORMATS[macro].format(name, value))
    return argv

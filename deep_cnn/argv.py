"""Parse a command line: verbs, options, and the JSON arguments of W&B's agent."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import ConfigError
from deep_cnn.options import SWITCH_VALUES, Option, OptionModel, option_name, unknown_option

_Model = TypeVar("_Model", bound=OptionModel)
# An option without its hyphens, as ${args_no_hyphens} and the macros for Hydra write it.
_ASSIGNMENT = re.compile(r"\+{0,2}[A-Za-z_][\w.-]*=")


def parse_run(argv: Sequence[str], *, from_agent: bool = False) -> dict[str, str]:
    """Return the options of a run as text, by name; raise ConfigError for anything else.

    With `from_agent`, options may lack their hyphens, because some macros of W&B omit them.
    """
    values, rest = _read(argv, all_options(), of_run=True, from_agent=from_agent)
    if rest:
        raise not_an_option(rest[0])
    return values


def parse_config(argv: Sequence[str], *, from_agent: bool = False) -> TrainConfig:
    """Return the unresolved configuration that a command line describes; see `parse_run`."""
    return TrainConfig.parse(parse_run(argv, from_agent=from_agent))


def parse_verb(model: type[_Model], argv: Sequence[str]) -> tuple[_Model, list[str]]:
    """Return the options of a verb and its positional arguments; raise ConfigError."""
    values, rest = _read(argv, model.table())
    return model.parse(values), rest


def parse_sweep_verb(
    model: type[_Model], argv: Sequence[str]
) -> tuple[_Model, list[str], dict[str, str]]:
    """Return the options of a verb, its positional arguments, and the options of a run as text.

    An option that both have is the verb's. Raises ConfigError.
    """
    table = model.table()
    values, rest = _read(argv, {**all_options(), **table})
    constants = {name: value for name, value in values.items() if name not in table}
    own = {name: value for name, value in values.items() if name in table}
    return model.parse(own), rest, constants


def is_arguments(arg: str) -> bool:
    """Return whether an argument is W&B's ${args_json} or ${args_json_file}, with many options."""
    if arg.startswith("-") or _ASSIGNMENT.match(arg):
        return False
    return arg.startswith("{") or arg.endswith(".json")


def _read(
    argv: Sequence[str],
    options: Mapping[str, Option],
    *,
    of_run: bool = False,
    from_agent: bool = False,
) -> tuple[dict[str, str], list[str]]:
    """Return the values of the options by name, and the positional arguments.

    argparse supports neither JSON arguments nor switches without a value, such as --wandb.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    args = list(argv)
    while args:
        arg = args.pop(0)
        if of_run and is_arguments(arg):
            _add_nested(values, _read_arguments(arg), options)
            continue
        if from_agent and _ASSIGNMENT.match(arg):
            arg = f"--{arg.lstrip('+')}"
        if arg.startswith("-") and arg[1:2] in options:  # -n 5, -n=5 or -n5
            arg = f"--{arg[1]}" + (f"={arg[2:].removeprefix('=')}" if arg[2:] else "")
        if arg == "--" or not arg.startswith("--"):
            rest.append(arg)
            continue
        text, equals, value = arg[2:].partition("=")
        name = text.replace("-", "_")
        name = name if name in options else option_name(name)
        if of_run and not equals and args and args[0].startswith("{"):
            equals, value = "=", args.pop(0)
        # A group of nested parameters may have the name of an option; only a name may begin so.
        if of_run and value.startswith("{") and name != "run_name":
            _add_nested(values, _mapping(value, f"--{name}"), options)
            continue
        if name not in options:
            raise unknown_option(name, options)
        values[name] = value if equals else _next_value(options[name], args, of_run=of_run)
    for arg in rest:
        if arg.startswith("-"):
            raise not_an_option(arg)
    return values, rest


def _next_value(option: Option, args: list[str], *, of_run: bool) -> str:
    """Return the value of an option from the next arguments; raise ConfigError if there is none."""
    following = args[0] if args and not args[0].startswith("--") else None
    if option.kind is bool:
        # The value of a switch may be left out; what follows may be a file.
        legal = SWITCH_VALUES if of_run else ("true", "false")
        return args.pop(0) if following is not None and following.lower() in legal else "True"
    if following is None:
        example = option.name.upper() if option.default is None else option.default
        text = f"--{option.name} needs a value, as in --{option.name}={example}"
        raise ConfigError(text, option=option.name)
    return args.pop(0)


def _read_arguments(arg: str) -> dict[str, object]:
    if arg.startswith("{"):
        return _mapping(arg, "the JSON argument")
    try:
        return _mapping(Path(arg).read_text(encoding="utf-8"), arg)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{arg} cannot be read ({error}); name a JSON file of options") from None


def _mapping(text: str, source: str) -> dict[str, object]:
    """Return the mapping in `text`: JSON, or the Python literal that W&B writes for nested ones."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # If nested too deeply.
            continue
        if isinstance(value, dict):
            return value
    raise ConfigError(f"{source} holds no mapping of options to values, as in {{'lr': 0.1}}")


def _add_nested(
    values: dict[str, str], nested: Mapping[str, object], options: Mapping[str, Option]
) -> None:
    """Add the options inside nested values to `values`; the names of groups have no meaning."""
    for text, value in nested.items():
        name = option_name(str(text))
        if isinstance(value, dict):
            _add_nested(values, value, options)
        elif name not in options:
            raise unknown_option(str(text), options)
        elif name in values:
            both = f"as {values[name]} and {value}; remove one"
            raise ConfigError(f"--{name} is there twice, {both}")
        else:
            values[name] = str(value)


def not_an_option(arg: str) -> ConfigError:
    """Return the error for an argument that is neither an option nor the value of one."""
    return ConfigError(f"{arg!r} is not an option; options look like --epochs=3 (-h lists them)")

"""Read the arguments of a command line: verbs, options, and what W&B's agent passes as JSON."""

import argparse
import ast
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import ConfigError
from deep_cnn.options import SWITCH_VALUES, Option, OptionModel, option_name, unknown_option

_Model = TypeVar("_Model", bound=OptionModel)
# An option without its hyphens, as ${args_no_hyphens} and the macros for Hydra write it.
_ASSIGNMENT = re.compile(r"\+{0,2}[A-Za-z_][\w.-]*=")


def parse_run(argv: Sequence[str], *, from_agent: bool = False) -> dict[str, str]:
    """Return the options of a run as text, by name; raise ConfigError for anything else.

    With `from_agent` they may lack hyphens, as the macros of a sweep's command make them.
    """
    options = all_options()
    arguments = _normalize(argv, options, from_agent=from_agent, json_arguments=True)
    values, rest = _parse(arguments, tuple(options.values()))
    if rest:
        raise not_an_option(rest[0])
    return values


def parse_config(argv: Sequence[str], *, from_agent: bool = False) -> TrainConfig:
    """Return the configuration that a command line describes, not resolved; see `parse_run`."""
    return TrainConfig.parse(parse_run(argv, from_agent=from_agent))


def parse_verb(model: type[_Model], argv: Sequence[str]) -> tuple[_Model, list[str]]:
    """Return the options of a verb and its positional arguments; raise ConfigError."""
    options = model.table()
    values, rest = _parse(_normalize(argv, options), tuple(options.values()))
    return model.parse(values), rest


def is_arguments(word: str) -> bool:
    """Return whether a word holds many options, as W&B's ${args_json} and ${args_json_file}."""
    if word.startswith("-") or _ASSIGNMENT.match(word):
        return False
    return word.startswith("{") or word.endswith(".json")


def _normalize(
    argv: Sequence[str],
    options: Mapping[str, Option],
    *,
    from_agent: bool = False,
    json_arguments: bool = False,
) -> list[str]:
    """Write every option as --name=value, which argparse then reads.

    argparse knows neither JSON arguments nor options whose value may be left out, such as --wandb.
    """
    found: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if json_arguments and is_arguments(word):
            found += _leaves(_read_arguments(word), options, found)
            continue
        if from_agent and _ASSIGNMENT.match(word):
            word = f"--{word.lstrip('+')}"
        if word == "--" or not word.startswith("--"):
            found.append(word)
            continue
        given, equals, value = word[2:].partition("=")
        name = given.replace("-", "_")
        name = name if name in options else option_name(name)
        follows = bool(words) and not words[0].startswith("--")
        if json_arguments and not equals and words and words[0].startswith("{"):
            value = words.pop(0)
        # A group of nested parameters may have the name of an option; only a name may begin so.
        if json_arguments and value.startswith("{") and name != "run_name":
            found += _leaves(_mapping(value, f"--{name}"), options, found)
            continue
        if name not in options:
            raise unknown_option(name, options)
        if not equals and options[name].kind is bool:
            # The value of a switch may be left out; what follows may be a file.
            legal = SWITCH_VALUES if json_arguments else ("true", "false")
            value = words.pop(0) if follows and words[0].lower() in legal else "True"
        elif not equals:
            value = words.pop(0) if follows else _no_value(options[name])
        found.append(f"--{name}={value}")
    return found


def _no_value(option: Option) -> NoReturn:
    text = f"--{option.name} needs a value, as in --{option.name}={option.default}"
    raise ConfigError(text, option=option.name)


def _read_arguments(word: str) -> dict[str, Any]:
    if word.startswith("{"):
        return _mapping(word, "the JSON argument")
    try:
        return _mapping(Path(word).read_text(encoding="utf-8"), word)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{word} cannot be read ({error}); name a JSON file of options") from None


def _mapping(text: str, source: str) -> dict[str, Any]:
    """Return the mapping in `text`: JSON, or the Python literal that W&B makes of nested ones."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return value
    raise ConfigError(f"{source} holds no mapping of options to values, as in {{'lr': 0.1}}")


def _leaves(
    values: Mapping[str, Any], options: Mapping[str, Option], earlier: Sequence[str]
) -> list[str]:
    """Return the options in nested values as --name=value: groups are for order only."""
    found: list[str] = []
    for given, value in values.items():
        name = option_name(str(given))
        if isinstance(value, Mapping):
            found += _leaves(value, options, [*earlier, *found])
            continue
        if name not in options:
            raise unknown_option(str(given), options)
        for other in (*earlier, *found):
            if other.startswith(f"--{name}="):
                text = f"as {other.partition('=')[2]} and {value}; remove one"
                raise ConfigError(f"--{name} is there twice, {text}")
        found.append(f"--{name}={value}")
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing a usage and exiting."""
        raise ConfigError(f"{message}; -h lists the options")


@lru_cache(16)
def _parser(options: tuple[Option, ...]) -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for option in options:
        short = [f"-{option.name}"] if len(option.name) == 1 else []
        parser.add_argument(*short, f"--{option.name}", dest=option.name)
    return parser


def _parse(
    arguments: Sequence[str], options: tuple[Option, ...]
) -> tuple[dict[str, str], list[str]]:
    """Return the values of the options, and the words that are none."""
    found, rest = _parser(options).parse_known_args(list(arguments))
    for word in rest:
        if word.startswith("-"):
            raise not_an_option(word)
    return vars(found), rest


def not_an_option(word: str) -> ConfigError:
    """Return the error for a word that is neither an option nor the value of one."""
    return ConfigError(f"{word!r} is not an option; options look like --epochs=3 (-h lists them)")

"""Read the flags in the words of a command line, and in the JSON that W&B's agent passes."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deep_cnn.errors import ConfigError, choose_from
from deep_cnn.flag import Flag


def flag_name(text: str) -> str:
    """The flag that is meant: hyphens are underscores, and --data is --data_dir."""
    name = text.replace("-", "_")
    return {"data": "data_dir"}.get(name, name)


def split_argv(
    argv: Sequence[str],
    known: Mapping[str, Flag],
    plain: list[str] | None = None,
    *,
    sweep: bool = False,
) -> dict[str, str]:
    """The flags of a command line as text; a lone flag is legal for booleans only.

    Words that are no flags go to `plain`, or are a ConfigError where that is None. In a `sweep`
    they may have no hyphens, or Hydra's plus signs, as the macros of its command make them.
    """
    found: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if plain is None and is_arguments(word):
            _add_leaves(found, _read_arguments(word), known)
            continue
        if sweep and _ASSIGNMENT.match(word):
            word = f"--{word.lstrip('+')}"
        if not word.startswith("--") or word == "--":
            if plain is None or word.startswith("-"):
                raise ConfigError(
                    f"{word!r} is not a flag; they look like --epochs=3 (-h lists them)"
                )
            plain.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        name = name if name in known else flag_name(name)
        if not equals and words and words[0].startswith("{"):
            value = words.pop(0)
        # A group may have the name of a flag; only a name may begin with a brace.
        if value.startswith("{") and name != "run_name":
            _add_leaves(found, _parsed(value, f"--{name}"), known)
            continue
        if name not in known:
            raise ConfigError(f"--{name} is no flag; {choose_from(name, known)}")
        if not equals:
            boolean = known[name].kind is bool
            follows = bool(words) and not words[0].startswith("--")
            if boolean and plain is not None:  # What follows may be a file.
                follows = follows and words[0].lower() in ("true", "false")
            if not follows and not boolean:
                raise ConfigError(f"--{name} needs a value, as in --{name}={known[name].default}")
            value = words.pop(0) if follows else "True"
        found[name] = value
    return found


def is_arguments(word: str) -> bool:
    """Whether a word holds many flags, as W&B's agent passes ${args_json}, ${args_json_file}."""
    if word.startswith("-") or _ASSIGNMENT.match(word):
        return False
    return word.startswith("{") or word.endswith(".json")


def _read_arguments(word: str) -> dict[str, Any]:
    if word.startswith("{"):
        return _parsed(word, "the JSON argument")
    try:
        return _parsed(Path(word).read_text(encoding="utf-8"), word)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{word} cannot be read ({error}); name a JSON file of flags") from None


def _parsed(text: str, what: str) -> dict[str, Any]:
    """The mapping in `text`: JSON, or the Python literal that W&B makes of nested ones."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return value
    raise ConfigError(f"{what} holds no mapping of flags to values, as in {{'lr': 0.1}}")


def _add_leaves(
    found: dict[str, str], values: Mapping[str, Any], known: Mapping[str, Flag]
) -> None:
    """Nested names are for order only: what is inside are flags."""
    for given, value in values.items():
        name = flag_name(str(given))
        if isinstance(value, Mapping):
            _add_leaves(found, value, known)
            continue
        if name not in known:
            raise ConfigError(f"--{given} is no flag; {choose_from(name, known)}")
        if name in found:
            raise ConfigError(f"--{name} is there twice, as {found[name]} and {value}; remove one")
        found[name] = str(value)


# A flag without its hyphens, as ${args_no_hyphens} and the macros for Hydra make it.
_ASSIGNMENT = re.compile(r"\+{0,2}[A-Za-z_][\w.-]*=")

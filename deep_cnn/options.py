"""Declare options as the fields of a pydantic model; each field is one option."""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

from deep_cnn.errors import ConfigError, choose_from

# People, YAML 1.1 and W&B write truth values in several ways.
SWITCH_VALUES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _whole_number(value: object) -> int:
    text = str(value)
    number = float(text)  # A sweep with `q: 1` sends 7.0 for a whole number.
    if not number.is_integer():
        raise ValueError(text)
    # The digits themselves are exact; a float has no more than 53 bits of them.
    return int(text) if text.strip().lstrip("+-").isdigit() else int(number)


_PARSERS: Mapping[type, Callable[[object], Any]] = {
    int: _whole_number,
    float: lambda value: float(str(value)),
    bool: lambda value: SWITCH_VALUES[str(value).lower()],
    str: str,
}
# A class of the user: file.py:Class, or package.module:Class.
_CODE = re.compile(r"(.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):[^\W\d]\w*")
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its text for `-h`, and its legal values.

    Attributes:
        name: The name of the field, and of the option.
        kind: The type of its value: int, float, bool or str.
        default: The value if the option is not set; None is legal only if it is the default.
        group: The heading in `-h`.
        help: One line for `-h`.
        choices: The legal strings, or () for any string.
        sentinels: Strings that are legal in addition to numbers, such as `auto`.
        low, high: The range of a number; open_low and open_high exclude the bounds themselves.
        affects_result: Whether the option can change a number that a run logs.
        takes_code: Whether a class of the user is legal in addition to `choices`.
    """

    name: str
    kind: type
    default: Any
    group: str
    help: str
    choices: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    affects_result: bool = True
    takes_code: bool = False

    def convert(self, value: object) -> Any:
        """Return `value`, of a command line or a sweep file, as its type; raise ConfigError."""
        if value == "None" and self.default is None:
            return None
        if value == "None":
            raise self._error(f"=None is not legal; the default is {self.default}")
        if value == "":
            raise self._error("= is empty; give it a value")
        if str(value) == "False" and "off" in self.choices:  # YAML 1.1 reads `off` as False.
            return "off"
        if value in self.sentinels:
            return value
        try:
            converted = _PARSERS[self.kind](value)
        except (ValueError, KeyError):
            kinds = " or ".join((_KINDS[self.kind], *self.sentinels))
            raise self._error(f"={str(value)!r} is not {kinds}") from None
        if self.kind is str and not _is_text(converted):
            raise self._error(
                f"={str(value)!r} has characters that no file's name has; remove them"
            )
        if self.takes_code and is_code(converted):
            return converted
        if self.takes_code and re.search(r":|\.py$", converted):
            text = f"={converted} names no class; write file.py:Class or package.module:Class"
            raise self._error(text)
        if self.choices and converted not in self.choices:
            raise self._error(f"={converted} is unknown; {choose_from(converted, self.choices)}")
        if self.kind in (int, float) and not self._in_range(converted):
            raise self._error(f"={converted} is out of range; it must be {self._range()}")
        return converted

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"--{self.name}{text}", option=self.name)

    def _in_range(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def _range(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        return " and ".join(parts) or "a finite number"


def _is_text(value: str) -> bool:
    """Return whether the system accepts a text as a name; JSON and YAML can hold others."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # A half of a surrogate pair.
        return False


def is_code(value: object) -> bool:
    """Return whether a value names a class of the user, which the program would import."""
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def option_name(text: str) -> str:
    """Return the name of an option: hyphens become underscores, and --data is --data_dir."""
    name = text.replace("-", "_")
    return {"data": "data_dir"}.get(name, name)


def option(default: Any, help: str, *, alias: str | None = None, **details: Any) -> Any:
    """Declare a field of an OptionModel; `details` are fields of Option.

    `alias` is the name of the option if pydantic reserves this name for another use.
    """
    return Field(default, alias=alias, description=help, json_schema_extra=details)


class OptionModel(BaseModel):
    """The options of a run, a task or a verb; every field is the option of the same name.

    Values may be those of a command line or a sweep file: "1e-3", or 7.0 for a whole number. None
    stands for the default. Raises ConfigError, in one line, for the first value that is not
    legal. `heading` is the heading in `-h` for the options of a class.
    """

    heading: ClassVar[str] = ""

    # Schemas are built when a value is first validated, which -h never does.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    if not TYPE_CHECKING:  # Type checkers see the signature that pydantic makes of the fields.

        def __init__(self, **values: Any) -> None:
            super().__init__(**self.convert(values))

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Return the model for these values of a command line or a file, by name."""
        return cls(**values)

    @classmethod
    def convert(cls, values: Mapping[str, object]) -> dict[str, Any]:
        """Return the values that are not None, each converted to its type; raise ConfigError."""
        options, converted = cls.known_options(), {}
        for text, value in values.items():
            if value is not None:
                name = text if text in options else option_name(text)
                if name not in options:
                    raise unknown_option(name, options)
                converted[name] = options[name].convert(value)
        return converted

    @classmethod
    @cache
    def table(cls) -> Mapping[str, Option]:
        """Return the options by name, in the order of the fields."""
        classes = [base for base in reversed(cls.__mro__) if issubclass(base, OptionModel)]
        headings = {name: base.heading for base in classes for name in get_annotations(base)}
        table = {}
        for field, info in cls.model_fields.items():
            if isinstance(details := info.json_schema_extra, dict):
                name = info.alias or field
                # The type says the rest, as in `int | Literal["auto"]` or `float | None`.
                parts = get_args(info.annotation) or (info.annotation,)
                kind = next(part for part in parts if part in _PARSERS)
                sentinels = tuple(text for part in parts for text in get_args(part))
                about: Any = {**details, "help": info.description, "sentinels": sentinels}
                table[name] = Option(name, kind, info.default, headings[field], **about)
        return table

    @classmethod
    def known_options(cls) -> Mapping[str, Option]:
        """Return every option that may be set, by name."""
        return cls.table()


def unknown_option(name: str, options: Mapping[str, Option]) -> ConfigError:
    """Return the error for the name of an option that does not exist."""
    return ConfigError(f"--{name} is an unknown option; {choose_from(name, options)}", option=name)

"""One flag: its type, its default, and the values it takes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deep_cnn.errors import ConfigError, choose_from


@dataclass(frozen=True, slots=True)
class Flag:
    """What is known of one flag: its type, default, group and help, and which values it takes."""

    name: str
    kind: type
    default: Any
    group: str
    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    bookkeeping: bool = False
    also: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that `text` stands for; ConfigError says what would be legal."""
        if text == "None":
            if self.default is None:
                return None
            raise ConfigError(f"--{self.name}=None is not legal; the default is {self.default}")
        if text == "False" and "off" in self.choices:  # What YAML makes of off.
            return "off"
        if text in self.also:
            return text
        if not text:
            raise ConfigError(f"--{self.name}= is empty; give it a value")
        try:
            return _PARSERS[self.kind](text)
        except ValueError:
            kind = {int: "a whole number", float: "a number", bool: "True or False"}[self.kind]
            extra = "".join(f" or {word}" for word in self.also)
            raise ConfigError(f"--{self.name}={text!r} is not {kind}{extra}") from None

    def check(self, value: Any) -> None:
        """Raise ConfigError unless `value` is one that this flag takes."""
        if (value is None and self.default is None) or (
            isinstance(value, str) and value in self.also
        ):
            return
        kinds = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, kinds) or isinstance(value, bool) != (self.kind is bool):
            raise ConfigError(f"--{self.name}={value!r} is not of type {self.kind.__name__}")
        if self.choices and value not in self.choices:
            raise ConfigError(
                f"--{self.name}={value} is unknown; {choose_from(value, self.choices)}"
            )
        if isinstance(value, int | float) and not self._in_range(value):
            raise ConfigError(f"--{self.name}={value} is out of range; it must be {self._range()}")

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


def _parse_int(text: str) -> int:
    number = float(text)  # A sweep with `q: 1` sends 7.0 for a whole number.
    if not number.is_integer():
        raise ValueError(text)
    return int(text) if text.strip().lstrip("+-").isdigit() else int(number)


def _parse_bool(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


_PARSERS: Mapping[type, Callable[[str], Any]] = {
    int: _parse_int,
    float: float,
    bool: _parse_bool,
    str: str,
}

"""Declare options as the fields of a pydantic model: one field = one option of the command line."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from inspect import get_annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from deep_cnn.errors import ConfigError, choose_from

# pydantic warns about options that are named as its own deprecated methods are.
warnings.filterwarnings("ignore", r'Field name "(json|copy|dict|schema)"', UserWarning)
SWITCH_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _whole_number(value: Any) -> int:
    text = str(value)
    number = float(text)  # A sweep with `q: 1` sends 7.0 for a whole number.
    if not number.is_integer():
        raise ValueError(text)
    return int(text) if text.strip().lstrip("+-").isdigit() else int(number)


def _switch(value: Any) -> bool:
    text = str(value).lower()
    if text not in SWITCH_WORDS:
        raise ValueError(text)
    return SWITCH_WORDS[text]


WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
Number = Annotated[float, BeforeValidator(lambda value: float(str(value)))]
Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, BeforeValidator(str)]


@dataclass(frozen=True, slots=True)
class Option:
    """Describe one option: what `-h` prints about it, and which values it takes.

    Attributes:
        name: The name of the field, and of the option.
        kind: The type of its value: int, float, bool or str.
        default: The value if the option is not given; None is legal only where it is the default.
        group: The heading in `-h`.
        help: One line for `-h`.
        choices: The legal texts, or () for any.
        sentinels: Texts that are legal beside a number, such as `auto`.
        low, high: The range of a number; open_low and open_high exclude the bounds themselves.
        affects_result: Whether the option can change a number that a run logs.
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

    def translate(self, value: Any) -> Any:
        """Return what the texts None and False mean here; raise ConfigError for an empty text."""
        if value == "None":
            if self.default is None:
                return None
            raise self._error(f"=None is not legal; the default is {self.default}")
        if str(value) == "False" and "off" in self.choices:  # YAML 1.1 reads `off` as False.
            return "off"
        if value == "":
            raise self._error("= is empty; give it a value")
        return value

    def check(self, value: Any) -> None:
        """Raise ConfigError unless `value`, of the right type, is a legal one."""
        if value is None or value in self.sentinels:
            return
        if self.choices and value not in self.choices:
            raise self._error(f"={value} is unknown; {choose_from(value, self.choices)}")
        if self.kind in (int, float) and not self._in_range(value):
            raise self._error(f"={value} is out of range; it must be {self._range()}")

    def type_error(self, value: Any) -> ConfigError:
        """Return the error for a value of another type."""
        kinds = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
        kind = " or ".join((kinds[self.kind], *self.sentinels))
        return self._error(f"={str(value)!r} is not {kind}")

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


def option_name(text: str) -> str:
    """Return the option that is meant: hyphens are underscores, and --data is --data_dir."""
    name = text.replace("-", "_")
    return {"data": "data_dir"}.get(name, name)


def option(default: Any, help: str, *, alias: str | None = None, **details: Any) -> Any:
    """Declare a field of an OptionModel; `details` are fields of Option.

    `alias` is the name of the option where pydantic has another use for the field's.
    """
    return Field(default, alias=alias, description=help, json_schema_extra=details)


class OptionModel(BaseModel):
    """The options of a run, a task or a verb; every field is the option of the same name.

    Values may be what a command line or a sweep file holds: "1e-3", or 7.0 for a whole number. A
    None stands for the default. Raises ConfigError, in one line, for a value that is not legal.
    `heading` is where `-h` lists the options that a class declares.
    """

    heading: ClassVar[str] = ""

    # Schemas are built when a value is first validated, which -h never does.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    if not TYPE_CHECKING:  # Type checkers see the signature that pydantic makes of the fields.

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**{k: v for k, v in values.items() if v is not None})
            except ValidationError as error:
                raise _first_error(type(self), values, error) from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return the model of these values by name, as a command line or a file holds them."""
        known = cls.known_options()
        return cls(**{n if n in known else option_name(n): value for n, value in values.items()})

    @classmethod
    def table(cls) -> Mapping[str, Option]:
        """Return the options by name, in the order of the fields."""
        return _table(cls)

    @classmethod
    def known_options(cls) -> Mapping[str, Option]:
        """Return every option that may be given by name, for errors."""
        return cls.table()

    def replace(self, **values: Any) -> Self:
        """Return a copy with these fields changed to values that are known to be legal."""
        return self.model_copy(update=values)

    @field_validator("*", mode="before")
    @classmethod
    def _translate(cls, value: Any, info: ValidationInfo) -> Any:
        known = _option_of(cls, info)
        return known.translate(value) if known else value

    @field_validator("*", mode="after")
    @classmethod
    def _check(cls, value: Any, info: ValidationInfo) -> Any:
        known = _option_of(cls, info)
        if known:
            known.check(value)
        return value


@cache
def _table(model: type[OptionModel]) -> Mapping[str, Option]:
    classes = [base for base in reversed(model.__mro__) if issubclass(base, OptionModel)]
    headings = {name: c.heading for c in classes for name in get_annotations(c)}
    return {
        info.alias or name: _option(info.alias or name, info, headings[name])
        for name, info in model.model_fields.items()
        if info.json_schema_extra is not None
    }


def _option_of(model: type[OptionModel], info: ValidationInfo) -> Option | None:
    assert info.field_name is not None
    name = model.model_fields[info.field_name].alias or info.field_name
    return model.table().get(name)


def _option(name: str, info: FieldInfo, group: str) -> Option:
    """Read what the declaration of a field says, as in `WholeNumber | Literal["auto"]`."""
    details = info.json_schema_extra
    assert isinstance(details, dict)
    parts = get_args(info.annotation) or (info.annotation,)
    literals = [part for part in parts if get_origin(part) is Literal]
    kinds = [get_args(part)[0] if get_origin(part) is Annotated else part for part in parts]
    return Option(
        name,
        next(kind for kind in kinds if kind in (int, float, bool, str)),
        info.default,
        group,
        help=str(info.description),
        sentinels=tuple(text for literal in literals for text in get_args(literal)),
        **details,  # type: ignore[arg-type]
    )


def _first_error(
    model: type[OptionModel], values: Mapping[str, Any], error: ValidationError
) -> ConfigError:
    """Return the first error in the order in which the values were given."""
    order = list(values)

    def place(one: Any) -> int:
        name = one["loc"][0] if one["loc"] else None
        return order.index(name) if name in order else len(order)

    first = min(error.errors(include_url=False), key=place)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return unknown_option(name, model.known_options())
    return model.table()[name].type_error(values[name])


def unknown_option(name: str, known: Mapping[str, Option]) -> ConfigError:
    """Return the error for the name of an option that does not exist."""
    return ConfigError(f"--{name} is an unknown option; {choose_from(name, known)}", option=name)

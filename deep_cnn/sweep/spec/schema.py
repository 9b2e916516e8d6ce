"""Define a sweep: a method, a space, a metric, and the command that runs a configuration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, model_validator

from deep_cnn.argv import parse_config
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.options import option_name
from deep_cnn.results import DEFAULT_METRIC, Metric
from deep_cnn.sweep.spec.command import expand, program_end
from deep_cnn.sweep.spec.distributions import Distribution, Listed
from deep_cnn.sweep.spec.values import Number, Point, as_whole, invalid, is_whole, value_key

# No run logs more values than this, so later bands would never be reached.
_MOST_VALUES = 1e9
_MOST_RUNS = 1e15
_MOST_BANDS = 100_000
Method = Literal["grid", "random", "bayes", "custom"]


def _check_text(value: Any, info: ValidationInfo) -> str:
    # Half of a surrogate pair cannot be printed, nor be part of a file's name.
    if not isinstance(value, str) or any("\ud800" <= char <= "\udfff" for char in value):
        raise invalid(f"{info.field_name} {value!r} is not text; put it in quotes")
    return value


def _check_controller(value: Any) -> Any:
    if not isinstance(value, dict) or value.get("type") not in ("cloud", "local"):
        raise invalid("controller needs type: local or cloud")
    return value


def _check_run_cap(value: Any) -> int | None:
    count = as_whole(value)
    if value is not None and not (count and 0 < count < _MOST_RUNS):
        raise invalid("run_cap is not a whole number above 0")
    return count


def _check_count(value: Any, info: ValidationInfo) -> int | None:
    # W&B's engine crashes at s: 2.0.
    count = as_whole(value) if info.field_name != "s" or is_whole(value) else None
    if value is not None and not (count and count >= 1):
        raise invalid(f"{info.field_name} {value!r} is not a whole number >= 1")
    return count


Text = Annotated[str, PlainValidator(_check_text)]
Count = Annotated[int | None, PlainValidator(_check_count)]


class TopLevel(BaseModel):
    """The keys of a W&B sweep file; those of type `Any` are read elsewhere, or only by W&B."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    parameters: Any = None
    metric: Any = None
    metrics: Any = None
    early_terminate: Any = None
    scheduler: Any = None
    run_cap: Annotated[int | None, PlainValidator(_check_run_cap)] = None
    command: Any = None
    program: Text = ""
    project: Text = ""
    entity: Text = ""
    name: Text = ""
    description: Text = ""
    controller: Annotated[Any, PlainValidator(_check_controller)] = None
    job: Text = ""
    image_uri: Text = ""
    apiVersion: Text = ""
    kind: Literal["sweep"] = "sweep"


class SweepMetric(Metric):
    """The metric that a sweep optimizes until a run reaches the `target`.

    `impute` is the value that bayes uses for failed trials: the worst value of all trials, or
    their own best or latest value. Unless `impute_while_running` is false, it uses the best value
    so far of running trials; with "worst", those without a value get the worst one.
    """

    name: Text
    target: Number | None = None
    impute: Literal["latest", "best", "worst"] = "worst"
    impute_while_running: Literal["latest", "best", "worst", "false", False] = "false"

    @property
    def imputes_running(self) -> bool:
        """Whether bayes learns from the values of running trials."""
        return self.impute_while_running in ("latest", "best", "worst")

    def reached(self, value: float) -> bool:
        """Return whether a value reaches the target; False if there is none."""
        return self.target is not None and self.sign * value <= self.sign * self.target


class Scheduler(BaseModel):
    """The settings of W&B's scheduler for its own or other search engines, which it alone runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["optuna", "ax", "wandb"]
    source: Text | None = None
    optimizer: Text | None = None
    search_space: Text | None = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.source is None and (self.optimizer, self.search_space) != (None, None):
            raise invalid("optimizer and search_space need source: FILE", "source")
        return self


class Hyperband(BaseModel):
    """The settings of W&B's early termination."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["hyperband"]
    min_iter: Count = None
    max_iter: Count = None
    s: Count = None
    eta: Annotated[Number, Field(gt=1)] = 3
    strict: Annotated[bool, Field(strict=True)] = True

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        if (self.max_iter or self.min_iter) is None or (self.max_iter and self.s is None):
            raise invalid("early_terminate needs min_iter, or max_iter with s")
        steps = math.log(self.max_iter or 1) / math.log(self.eta)
        if min(steps, self.s or 0) > _MOST_BANDS:
            text = f"more than {_MOST_BANDS:,} bands; use a larger eta, or a smaller s"
            raise invalid(f"early_terminate has {text}", "eta")
        if not self.bands and self.max_iter is None:
            raise invalid(f"min_iter {self.min_iter} is more than any run logs", "min_iter")
        if not self.bands:
            text = f"max_iter {self.max_iter} / eta {self.eta} is below 1: no band"
            raise invalid(text, "max_iter")
        return self

    @cached_property
    def bands(self) -> tuple[int, ...]:
        """Return the counts of logged values at which a run is judged, ascending.

        They are those of W&B: max_iter/eta^k for k = 1 ... s, or min_iter*eta^k for k = 0, 1, ...
        """
        counts: list[int] = []
        if self.max_iter is not None:
            band = self.max_iter / self.eta
            while band >= 1 and len(counts) < (self.s or 0):
                counts.append(int(band))
                band /= self.eta
        else:
            band = float(self.min_iter or 1)
            while band < _MOST_VALUES and len(counts) < 100:
                counts.append(int(band))
                band *= self.eta
        return tuple(sorted(set(counts)))


@dataclass(frozen=True)
class SweepSpec:
    """A parsed sweep file.

    `space` holds the distribution of each parameter, sorted by name; nested names are joined with
    slashes. `content` is the whole content of the file. `runs_deep_cnn` is whether the command
    runs deep_cnn and not another program. `constants` are options of every run that the file does
    not set, as text. `earlier` are the spaces that a grid had before values were added to it.
    """

    name: str
    method: Method
    space: Mapping[str, Distribution]
    metric: SweepMetric | None = None
    run_cap: int | None = None
    early_terminate: Hyperband | None = None
    command: tuple[str, ...] = ()
    runs_deep_cnn: bool = False
    content: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    earlier: tuple[Mapping[str, Distribution], ...] = ()

    @property
    def objective(self) -> SweepMetric:
        """Return the metric, or the default one if the file has none."""
        return self.metric or SweepMetric(name=DEFAULT_METRIC.name, goal=DEFAULT_METRIC.goal)

    @property
    def points(self) -> int | None:
        """Return the number of distinct configurations, or None if it is infinite."""
        total = 1
        for one in self.space.values():
            size = len(one.grid or ()) if self.method == "grid" else one.size
            if size is None:
                return None
            total *= size
        return total

    @cached_property
    def added_points(self) -> Sequence[Point]:
        """Return the points of a grid that its first space did not have, in order."""
        spaces = [
            {name: one.grid or () for name, one in space.items()}
            for space in (*self.earlier, self.space)
        ]
        keys = [
            {name: set(map(value_key, grid)) for name, grid in space.items()} for space in spaces
        ]
        return [
            point
            for i, space in enumerate(spaces[1:], 1)
            for point in (dict(zip(space, v, strict=True)) for v in product(*space.values()))
            if not any(
                all(value_key(value) in known[name] for name, value in point.items())
                for known in keys[:i]
            )
        ]

    def leaves(self, point: Point) -> dict[str, Any]:
        """Return the values by column: by option for deep_cnn, else by dotted name."""

        def column(name: str) -> str:
            return name.rpartition("/")[2] if self.runs_deep_cnn else name.replace("/", ".")

        return {column(name): value for name, value in point.items()}

    def arguments(self, point: Point) -> dict[str, Any]:
        """Return the arguments that the agent passes: options for deep_cnn, else nested values."""
        if self.runs_deep_cnn:
            return self.leaves(point)
        arguments: dict[str, Any] = {}
        for name, value in point.items():
            *groups, last = name.split("/")
            inner = arguments
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[last] = value
        return arguments

    def command_line(self, point: Point) -> list[str]:
        """Return the whole command line that W&B's agent would run for a configuration."""
        program = str(self.content.get("program", ""))
        argv = expand(self.command, program, self.arguments(point))
        return argv + self._constant_arguments(point)

    def argv(self, point: Point) -> list[str]:
        """Return the arguments that deep_cnn gets for a configuration: constants, then W&B's."""
        # The file of ${args_json_file} is written by W&B's agent alone; here its content will do.
        same = {"${args_json_file}": "${args_json}"}
        command = [same.get(part, part) for part in self.command[program_end(self.command) :]]
        program = str(self.content.get("program", ""))
        argv = expand(command, program, self.arguments(point))
        return self._constant_arguments(point) + argv

    def _constant_arguments(self, point: Point) -> list[str]:
        set_here = {option_name(name) for name in self.leaves(point)}
        return [f"--{k}={v}" for k, v in self.constants.items() if k not in set_here]

    def config(self, point: Point) -> TrainConfig:
        """Return the TrainConfig of a configuration; raise ConfigError if it is not legal."""
        return parse_config(self.argv(point), from_agent=True)

    @cached_property
    def fixed(self) -> Mapping[str, Any]:
        """Return the parameters with one value that a sweep may change without becoming another.

        They cannot change a result, or they say where the data are, which count by their content.
        """
        if not self.runs_deep_cnn:
            return {}
        return {
            name: one.choices[0]
            for name, one in self.space.items()
            if isinstance(one, Listed) and one.size == 1 and not is_identity(name)
        }

    def current(self, point: Point) -> Point:
        """Return a configuration of an earlier start of the sweep with what is `fixed` now."""
        return {**point, **{name: value for name, value in self.fixed.items() if name in point}}


def is_identity(name: str) -> bool:
    """Return whether another value of a parameter or an option of deep_cnn is another sweep."""
    option = option_name(name.rpartition("/")[2])
    return option != "data_dir" and (
        option not in all_options() or all_options()[option].affects_result
    )

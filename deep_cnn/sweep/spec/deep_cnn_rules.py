"""Check a sweep over deep_cnn against the options, values and metrics of deep_cnn."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from deep_cnn import names
from deep_cnn.argv import parse_run
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.effects import format_unused, without_effect
from deep_cnn.errors import DataError, DeepCnnError, nearest
from deep_cnn.home import expand_user
from deep_cnn.options import Option, is_code, option_name
from deep_cnn.resolve import data_folder, resolve
from deep_cnn.source import CODE_OPTIONS, read_source
from deep_cnn.sweep.spec.distributions import Distribution, Listed, WeightedCategorical
from deep_cnn.sweep.spec.document import Issue, parameter_path
from deep_cnn.sweep.spec.numeric import Continuous
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.rules import Rule
from deep_cnn.sweep.spec.schema import SweepSpec

NOT_SEARCHED = {
    "out_dir": "is one for the whole sweep; remove it, sweep --out_dir=FOLDER sets it",
    "resume": "is not for a sweep, which resumes its own runs; remove it",
    "dry_run": "is not for a sweep, which trains; remove it",
    "test_net": "is not for a sweep, which never opens the test split; remove it",
}
# Values of options that name files which are not paths.
_NOT_PATHS = ("imagenet", "none", "auto")
# The number of whole configurations that are tried.
_TRIED = 50


def check_runs(spec: SweepSpec, *, legal: bool) -> list[Issue]:
    """Return the issues of a sweep over deep_cnn.

    If the sweep is `legal` so far and its values are legal, whole configurations are tried, too.
    """
    issues = [issue for rule in _RULES for issue in rule(spec)]
    if issues or not legal:
        return [*issues, *_metric_not_logged(spec)]
    return [*_cannot_run(spec), *_missing_paths(spec), *_no_effect(spec)]


def _no_arguments(spec: SweepSpec) -> Iterator[Issue]:
    if not any(part.startswith("${args") for part in spec.command):
        text = "command has no ${args}: every run would be the same; add it"
        yield Issue(("command",), text)


def _options_and_values(spec: SweepSpec) -> Iterator[Issue]:
    options = all_options()
    by_option: dict[str, str] = {}
    for name, distribution in spec.space.items():
        option = _option(name)
        if option not in options:
            texts = [f"parameter {option} is not an option of deep_cnn; {nearest(option, options)}"]
        elif option in NOT_SEARCHED:
            texts = [f"{option} {NOT_SEARCHED[option]}"]
        elif spec.method != "grid" and _has_needless_floats(options[option], distribution):
            text = f"{name}: q is not written as a whole number, so values are floats such as"
            texts = [f"{text} {distribution.ppf(0.25)}; write q: 1 or the like"]
        else:
            texts = _refused(options[option], distribution)
        if option in by_option:
            text = f"{name} and {by_option[option]} are both the option --{option}"
            texts.append(f"{text}; rename or remove one")
        by_option[option] = name
        for text in texts:
            yield Issue(parameter_path(name), text)


def _constants(spec: SweepSpec) -> Iterator[Issue]:
    """Find options of the command line that the file sets, too."""
    by_option = {_option(name): parameter_path(name) for name in spec.space}
    try:
        in_command = parse_run(replace(spec, constants={}).argv({}), from_agent=True)
    except DeepCnnError:
        return  # A configuration that cannot run has the same error.
    for option in spec.constants:
        text = f"--{option} is set here and on the command line; remove one of them"
        if option in by_option:
            yield Issue(by_option[option], text)
        elif option in in_command:
            yield Issue(("command",), text)


def _has_needless_floats(option: Option, distribution: Distribution) -> bool:
    step = distribution.step if isinstance(distribution, Continuous) else None
    return option.kind is int and isinstance(step, float)


def _refused(option: Option, distribution: Distribution) -> list[str]:
    """Return the errors of every refused value of a list, or of one refused value of a range."""
    errors = []
    for value in _some_values(distribution):
        try:
            TrainConfig.parse({option.name: str(value)})
        except DeepCnnError as error:
            errors.append(str(error))
    return errors if isinstance(distribution, Listed) else errors[:1]


def _some_values(distribution: Distribution) -> Sequence[Any]:
    """Return all values of a list, or some values from the whole range."""
    if isinstance(distribution, WeightedCategorical):
        return distribution.choices
    if isinstance(distribution, Listed):
        return distribution.values
    # The tails of a normal distribution are infinite, and no trial draws the ends of others.
    is_normal = distribution.distribution in ("normal", "log_normal")
    us = (0.01, 0.5, 0.99) if is_normal else (1e-12, 0.25, 0.5, 0.75, 1 - 1e-12)
    return [*map(distribution.ppf, us), *(distribution.grid or ())[:3]]


def _cannot_run(spec: SweepSpec) -> Iterator[Issue]:
    """Find a configuration that cannot run, or else a metric that no run logs."""
    logged = set()
    for point in first_points(spec, 0, _TRIED):
        try:
            config = resolve(spec.config(point))
            logged.add((config.task, config.train_on))
        except DataError:  # The data may be on another machine.
            continue
        except DeepCnnError as error:
            values = ", ".join(f"{name}={value}" for name, value in spec.leaves(point).items())
            paths = {_option(name): parameter_path(name) for name in spec.space}
            path = paths.get(error.option or "", ("command",))
            yield Issue(path, f"the configuration {values} cannot run: {error}")
            logged = set()
            break
    yield from _metric_not_logged(spec, logged)


def _configs(spec: SweepSpec) -> Iterator[TrainConfig]:
    """Yield the first configurations that are legal, resolved if their data are on this machine."""
    for point in first_points(spec, 0, _TRIED):
        with suppress(DeepCnnError):
            config = spec.config(point)
            with suppress(DataError):
                config = resolve(config)
            yield config


def _missing_paths(spec: SweepSpec) -> Iterator[Issue]:
    """Find paths that are missing on this machine; only a note, as the sweep may be for another."""
    names_of = {_option(name): name for name in spec.space}
    for config in _configs(spec):
        keep = config.options.get("keep", "none")
        paths = {"weights": config.weights, "keep": str(keep)}
        if names.weights_name(config.weights):
            del paths["weights"]
        paths = {k: str(expand_user(v)) for k, v in paths.items() if v not in _NOT_PATHS}
        if config.task == "auto" or names.TASKS[config.task].reads_folder:
            paths["data_dir"] = str(data_folder(config))
            if config.options.get("scores"):
                paths["scores"] = str(data_folder(config) / expand_user(config.options["scores"]))
        for option in CODE_OPTIONS:
            yield from _code_problem(option, getattr(config, option), names_of.get(option))
        for option, path in paths.items():
            # Path's own `exists` fails for a name that is too long.
            if os.path.exists(path):  # noqa: PTH110
                continue
            name, value = names_of.get(option), config.to_dict()[option]
            text = f"{name or f'--{option}'}: {value} is not on this machine; the sweep needs it"
            yield Issue(parameter_path(name) if name else ("command",), text, is_error=False)


def _code_problem(option: str, text: str, name: str | None) -> Iterator[Issue]:
    """Find what is wrong with the source of a class of the user, without executing it."""
    if is_code(text):
        try:
            read_source(option, text)
        except DeepCnnError as error:
            is_missing = isinstance(error.__cause__, OSError)
            path = parameter_path(name) if name else ("command",)
            yield Issue(path, str(error), is_error=not is_missing)


def _no_effect(spec: SweepSpec) -> Iterator[Issue]:
    """Find options that change nothing in any configuration."""
    each = [without_effect(config) for config in _configs(spec)]
    unused = {k: v for k, v in (each[0] if each else {}).items() if all(k in one for one in each)}
    if unused:
        paths = [parameter_path(name) for name in spec.space if _option(name) in unused]
        text = f"options without effect in this sweep: {format_unused(unused)}"
        yield Issue(min(paths, default=("command",)), text, is_error=False)


def _metric_not_logged(spec: SweepSpec, runs: Iterable[tuple[str, str]] = ()) -> Iterator[Issue]:
    """Find a metric that none of `runs`, (task, train_on) each, logs; by default, no run at all."""
    runs = set(runs) or {(task, "train") for task in names.TASKS}
    legal: set[str] = set()
    for task, train_on in runs:
        splits = ("train", "val") if train_on == "train" else ("train",)
        legal |= {f"{m}_{s}" for m in ("loss", *names.TASKS[task].metrics) for s in splits}
        legal |= {f"best_{names.TASKS[task].watch}"} if "val" in splits else set()
    if spec.metric and spec.metric.name not in legal:
        tasks = "/".join(sorted({task for task, _ in runs}))
        tasks += "" if any(train_on == "train" for _, train_on in runs) else " on train+val"
        text = f"metric {spec.metric.name} is never logged by {tasks}"
        yield Issue(("metric", "name"), f"{text}; {nearest(spec.metric.name, legal)}")


def _option(name: str) -> str:
    """Return the option that a parameter sets, ignoring the groups around it."""
    return option_name(name.rpartition("/")[2])


_RULES: tuple[Rule, ...] = (_no_arguments, _options_and_values, _constants)

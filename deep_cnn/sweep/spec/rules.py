"""Check a sweep file for errors that W&B would report, and for surprises."""

import math
import re
from collections.abc import Callable, Iterator

from deep_cnn.errors import nearest
from deep_cnn.names import MORE_IS_BETTER
from deep_cnn.sweep.spec.command import DEEP_CNN_COMMAND, MACROS, macro_name
from deep_cnn.sweep.spec.distributions import WeightedCategorical
from deep_cnn.sweep.spec.document import Issue, parameter_path
from deep_cnn.sweep.spec.numeric import Range
from deep_cnn.sweep.spec.schema import SweepSpec

# Words in the name of a metric that say where or when it is measured.
_SPLITS = (
    "train", "training", "val", "valid", "validation", "dev", "eval", "test", "best", "final",
    "epoch",
)  # fmt: skip
_BETTER = {
    **dict.fromkeys((*MORE_IS_BETTER, "acc", "f1", "auc", "auroc"), "maximize"),
    **dict.fromkeys(("loss", "mae", "mse", "rmse"), "minimize"),
}
# Keys that W&B reads and that a local sweep does not use; other programs get the first two.
_UNUSED = ("project", "entity", "controller", "job", "image_uri", "apiVersion", "kind", "scheduler")


def _keys(spec: SweepSpec) -> Iterator[Issue]:
    for key in spec.content:
        if key in _UNUSED[0 if spec.runs_deep_cnn else 2 :]:
            yield Issue((key,), f"{key} changes nothing in a local sweep", is_error=False)
    if spec.method == "custom":
        yield Issue(("method",), "method custom runs on W&B's scheduler only", is_error=False)
    needs_metric = spec.method == "bayes" or "early_terminate" in spec.content
    if needs_metric and spec.content.get("metric") is None:
        yield Issue(("method",), "no metric; bayes and early_terminate need metric: name, goal")
    rule = spec.content.get("early_terminate")
    keys = ("min_iter", "max_iter")
    if isinstance(rule, dict) and all(rule.get(key) is not None for key in keys):
        text = "early_terminate has both min_iter and max_iter, max_iter wins; remove one"
        yield Issue(("early_terminate", "min_iter"), text, is_error=spec.runs_deep_cnn)


def _command(spec: SweepSpec) -> Iterator[Issue]:
    command = spec.content.get("command", [])
    if isinstance(command, str):
        yield Issue(("command",), "command is one string; W&B takes a list, a word each")
    elif not isinstance(command, list):
        yield Issue(("command",), "command is not a list of words")
    if "${program}" in spec.command and not spec.content.get("program"):
        text = f"no program to run; for deep_cnn write {DEEP_CNN_COMMAND}"
        yield Issue(("command",), text, is_error=False)
    if spec.constants and not spec.runs_deep_cnn:
        options = ", ".join(f"--{name}" for name in spec.constants)
        text = f"the command does not run deep_cnn, which has {options}; set parameters instead"
        yield Issue(("command",), text)
    for i, part in enumerate(spec.command):
        macro = macro_name(part)
        if macro == "args_dict":
            text = "${args_dict} passes names without values, a bug of W&B; use ${args_json}"
            yield Issue(("command", i), text, is_error=spec.runs_deep_cnn)
        elif macro is not None and macro not in MACROS and not macro.startswith("envvar:"):
            near = nearest(macro, MACROS)
            text = f"macro {part!r} is unknown, W&B drops it; {near}"
            is_typo = near.startswith("did you mean")
            yield Issue(("command", i), text, is_error=spec.runs_deep_cnn and is_typo)


def _mixed_bounds(spec: SweepSpec) -> Iterator[Issue]:
    for name, one in spec.content["parameters"].items() if spec.space else ():
        if not isinstance(one, dict) or "distribution" in one:
            continue
        if {type(one.get(key)) for key in ("min", "max")} == {int, float}:
            text = f"{name}: W&B's client refuses one integer and one float; write both as floats"
            yield Issue((*parameter_path(name), "min"), text, is_error=False)


def _parameters(spec: SweepSpec) -> Iterator[Issue]:
    for name, one in spec.space.items():
        path = parameter_path(name)
        if isinstance(one, Range) and one.takes_exponents:
            text = (
                f"{name}: {one.distribution} takes exponents of e, here from {one.ppf(0.0):.3g}"
                f" to {one.ppf(1.0):.3g}; {one.distribution}_values takes values"
            )
            # Exponents of learning rates are negative, so a bound above 0 was meant as a value.
            is_wrong = one.min > 0 and one.distribution != "inv_log_uniform"
            yield Issue(path, text, is_error=spec.runs_deep_cnn and is_wrong)
        if spec.method == "grid" and isinstance(one, WeightedCategorical):
            text = f"{name}: a grid has no probabilities; remove them or use random"
            yield Issue((*path, "probabilities"), text)
        elif spec.method == "grid" and one.grid is None:
            is_long = one.distribution in ("int_uniform", "q_uniform")
            reason = "too many points for a grid" if is_long else "no end in a grid"
            text = f"{name}: {one.distribution} has {reason}; list values, or use random or bayes"
            yield Issue(path, text)
        elif spec.method != "grid" and isinstance(one, Range) and one.step:
            text = _outside_of_bounds(one)
            if text:
                yield Issue(path, f"{name}: {text}", is_error=spec.runs_deep_cnn)


def _outside_of_bounds(one: Range) -> str:
    """Return a note if rounding to multiples of q leaves the bounds, which W&B allows."""
    low, high = (
        (math.exp(one.min), math.exp(one.max)) if one.takes_exponents else (one.min, one.max)
    )
    lowest, highest = one.ppf(1e-12), one.ppf(1 - 1e-12)
    slack = 1e-9 * max(1.0, abs(high))
    if lowest >= low - slack and highest <= high + slack:
        return ""
    return (
        f"q={one.step:g} rounds to {lowest:g} ... {highest:g}, outside of"
        f" {low:g} ... {high:g}; use bounds that are multiples of q"
    )


def metric_direction(spec: SweepSpec) -> str | None:
    """Return a note if the goal of the metric, given or W&B's default, is not the better direction.

    Other programs may give a name any meaning, so only names that leave no doubt are known.
    """
    if spec.metric is None:
        return None
    words = [word for word in re.split(r"[\s/_.:-]+", spec.metric.name.lower()) if word]
    names = [word for word in words if word not in _SPLITS]
    better = _BETTER.get(names[0]) if len(names) == 1 else None
    if better is None or better == spec.metric.goal:
        return None
    side = "higher" if better == "maximize" else "lower"
    content = spec.content.get("metric")
    if isinstance(content, dict) and "goal" in content:
        given = f"goal is {spec.metric.goal}, but of {spec.metric.name} {side} values are better"
    else:
        given = (
            f"metric {spec.metric.name} has no goal, so W&B and this program minimize it, but"
            f" {side} values are better"
        )
    return f"{given}; write goal: {better}"


def _direction(spec: SweepSpec) -> Iterator[Issue]:
    text = metric_direction(spec)
    if text:
        yield Issue(("metric", "goal"), text, is_error=False)


Rule = Callable[[SweepSpec], Iterator[Issue]]
RULES: tuple[Rule, ...] = (_keys, _command, _mixed_bounds, _parameters, _direction)

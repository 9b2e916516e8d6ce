"""Faults of a sweep file that only deep_cnn can know: its flags, their values, its metrics."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deep_cnn import names
from deep_cnn.config import SAMPLE_DATA, TrainConfig, all_options
from deep_cnn.errors import DataError, DeepCnnError, nearest
from deep_cnn.options import Option, option_name
from deep_cnn.resolve import resolve
from deep_cnn.sweep.reading import Where
from deep_cnn.sweep.search import first_points
from deep_cnn.sweep.space import Domain
from deep_cnn.sweep.spec import SweepSpec

_NOT_SEARCHED = {
    "out_dir": "is one for the whole sweep; remove it, sweep --out_dir=FOLDER sets it",
    "resume": "is not for a sweep, which resumes its own runs; remove it",
    "dry_run": "is not for a sweep, which trains; remove it",
    "test_net": "is not for a sweep, which never opens the test split; remove it",
}
# Flags that name files and folders, and values of theirs that do not.
_PLACES = {"data_dir", "weights", "keep"}
_NO_PLACE = {SAMPLE_DATA, "imagenet", "none", "auto"}
# How many configurations are looked at as a whole.
_TRIED = 50
# Where a parameter is, by its name; and what is there.
Places = Mapping[str, Where]
Content = Mapping[str, Any]
Faults = Iterator[tuple[Where, str]]


def value_faults(spec: SweepSpec, content: Content, places: Places) -> Faults:
    """Parameters that are no flags, and values that their flags refuse."""
    known = all_options()
    for name, domain in spec.space.items():
        leaf = leaf_flag(name)
        if leaf not in known:
            texts = [f"parameter {leaf} is no flag of deep_cnn; {nearest(leaf, known)}"]
        elif leaf in _NOT_SEARCHED:
            texts = [f"{leaf} {_NOT_SEARCHED[leaf]}"]
        else:
            values = _some_values(domain, _at(content, places[name]))
            texts = _refused(name, known[leaf], domain, values, spec.method)
        for text in texts:
            yield places[name], text


def run_faults(spec: SweepSpec, places: Places) -> Faults:
    """A configuration that cannot run, or that never logs the metric."""
    logged = set()
    for point in first_points(spec, 0, _TRIED):
        try:
            config = resolve(spec.config(point))
            logged.add((config.task, config.train_on))
        except DataError:  # The data may be on another machine.
            continue
        except DeepCnnError as error:
            shown = ", ".join(f"{k}={v}" for k, v in spec.leaves(point).items())
            # The flag that is wrong is what the error begins with, if it is in the file.
            begin = re.match(r"--(\w+)", str(error))
            named = {leaf_flag(name): where for name, where in places.items()}
            where = named.get(begin[1] if begin else "", ("command",))
            yield where, f"the configuration {shown} cannot run: {error}"
            logged = set()
            break
    yield from metric_faults(spec, logged)


def absences(spec: SweepSpec, places: Places) -> Faults:
    """What is not on this machine, which is no fault: the sweep may be for another one."""
    for point in first_points(spec, 0, _TRIED):
        given = {leaf_flag(name): (str(value), name) for name, value in point.items()}
        for flag in _PLACES & given.keys():
            value, name = given[flag]
            root = given["root_dir"][0] if flag == "data_dir" and "root_dir" in given else "."
            # Path's own `exists` fails for a name that is too long.
            path = os.path.join(*map(os.path.expanduser, (root, value)))  # noqa: PTH118
            if value not in _NO_PLACE and not os.path.exists(path):  # noqa: PTH110
                yield places[name], f"{name}: {value} is not on this machine; the sweep needs it"


def metric_faults(spec: SweepSpec, runs: Iterable[tuple[str, str]] = ()) -> Faults:
    """A metric that none of `runs`, (task, train_on) each, logs; without them, no run."""
    runs = set(runs) or {(task, "train") for task in names.TASKS}
    legal: set[str] = set()
    for task, train_on in runs:
        splits = ("train", "val") if train_on == "train" else ("train",)
        legal |= {f"{m}_{s}" for m in ("loss", *names.TASKS[task].metrics) for s in splits}
        legal |= {f"best_{names.TASKS[task].watch}"} if "val" in splits else set()
    if spec.metric and spec.metric.name not in legal:
        who = "/".join(sorted({task for task, _ in runs}))
        who += "" if any(train_on == "train" for _, train_on in runs) else " on train+val"
        text = f"metric {spec.metric.name} is never logged by {who}"
        yield ("metric", "name"), f"{text}; {nearest(spec.metric.name, legal)}"


def leaf_flag(name: str) -> str:
    """The flag that a parameter sets, whatever groups it is in."""
    return option_name(name.rpartition("/")[2])


def _at(content: Content, where: Where) -> Content:
    found: Any = content
    for key in where:
        found = found[key]
    assert isinstance(found, Mapping)
    return found


def _some_values(domain: Domain, given: Content) -> list[Any]:
    """All values of a list, or some from the whole of a range."""
    if domain.distribution.startswith(("constant", "categorical")):
        return list(domain.grid if domain.grid is not None else given.get("values", []))
    if domain.distribution in ("normal", "log_normal"):
        return [domain.at(u) for u in (0.01, 0.5, 0.99)]
    values = [domain.at(u) for u in (1e-12, 0.25, 0.5, 0.75, 1 - 1e-12)]
    return values + (list(domain.grid[:3]) if domain.grid is not None else [])


def _refused(name: str, flag: Option, domain: Domain, values: list[Any], method: str) -> list[str]:
    """Every value of a list that the flag refuses, or the first one in a range."""
    quantised = domain.distribution.startswith("q_") and method != "grid"
    if flag.kind is int and quantised and isinstance(values[0], float):
        text = f"{name}: q is not written as a whole number, so values are floats such as"
        return [f"{text} {values[1]}; write q: 1 or the like"]
    found = []
    for value in values:
        try:
            TrainConfig.parse({flag.name: str(value)})
        except DeepCnnError as error:
            found.append(str(error))
    return found if domain.distribution.startswith("categorical") else found[:1]

"""The verbs check, sample and sweep, as they are typed."""

import csv
import json
import os
import re
import shlex
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from deep_cnn.argv import parse_run, parse_verb
from deep_cnn.config import all_options
from deep_cnn.errors import ConfigError, SpecError
from deep_cnn.options import OptionModel, Switch, Text, WholeNumber, option, option_name
from deep_cnn.runs import RunFiles, safe_name
from deep_cnn.signals import Signals, exit_status
from deep_cnn.sweep import trust
from deep_cnn.sweep.engine import Swept, check_runnable, run_points, run_sweep
from deep_cnn.sweep.spec.parse import parse_sweep, read_sweep
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key, to_jsonable
from deep_cnn.sweep.table import best_trials
from deep_cnn.tracking.access import Access, access_of

_SYNC = re.compile(r"with: (wandb sync(?: --include-online)?) (.+)$", re.MULTILINE)
# How many of the best trials are listed after a sweep.
_BEST_SHOWN = 5


class CheckOptions(OptionModel):
    """Options of the verb check."""

    probe: Switch = option(False, "take a step of the largest configuration")


class SampleOptions(OptionModel):
    """Options of the verb sample."""

    n: WholeNumber = option(10, "how many configurations", low=1)
    seed: WholeNumber = option(0, "seed of the search", low=0)
    format: Text = option("csv", "how", choices=("csv", "commands", "json"))


class SweepOptions(OptionModel):
    """Options of the verb sweep."""

    workers: WholeNumber | None = option(None, "trials at once", low=1, high=1024)
    seed: WholeNumber = option(0, "seed of the search", low=0)
    retries: WholeNumber = option(1, "how often a failed trial is tried again", low=0)
    count: WholeNumber | None = option(None, "trials at most, beside run_cap", low=1)
    repeats: WholeNumber | None = option(None, "run the best again with so many seeds", low=2)
    top: WholeNumber = option(3, "how many of the best are run again", low=1)
    refit: Switch = option(False, "train the winner on train + validation")
    out_dir: Text | None = option(None, "folder for results, else as the file says")


class AgentOptions(OptionModel):
    """Options of the verb agent."""

    workers: WholeNumber = option(1, "runs at once", low=1, high=1024)
    count: WholeNumber | None = option(None, "runs at most, by this agent", low=1)


OPTIONS: Mapping[str, type[OptionModel]] = {
    "check": CheckOptions,
    "sample": SampleOptions,
    "sweep": SweepOptions,
    "agent": AgentOptions,
}


def check(argv: list[str]) -> int:
    """Tell every fault of a sweep file, or what the sweep would be."""
    name, options = _parse("check", CheckOptions, argv)
    file = Path(name)
    spec, findings = parse_sweep(file)
    for finding in findings:
        print(f"{file} {finding}", file=sys.stderr if finding.is_error else sys.stdout)
    if spec is None:
        return 2
    print("\n".join(describe(spec)))
    if options.probe:
        if not spec.runs_deep_cnn or spec.method == "custom":
            raise SpecError(f"{file}: --probe tries sweeps of deep_cnn only; leave it out")
        from deep_cnn.sweep.probe import probe

        print("\n".join(probe(spec)))
    return 0


def describe(spec: SweepSpec) -> list[str]:
    """What a sweep would do, in lines."""
    count = spec.points
    points = "infinitely many" if count is None else f"{count:,}"
    lines = [f"{spec.name}: {spec.method} search, {points} configurations"]
    for name, distribution in spec.space.items():
        lines.append(f"  {name.replace('/', '.')}: {distribution.describe()}")
    if spec.run_cap:
        lines.append(f"at most {spec.run_cap} trials (run_cap)")
    if spec.metric:
        target = "" if spec.metric.target is None else f" until {spec.metric.target:g}"
        lines.append(f"{spec.metric.goal} {spec.metric.name}{target}")
    if spec.early_terminate:
        bands = ", ".join(map(str, spec.early_terminate.bands[:8]))
        more = ", ..." if len(spec.early_terminate.bands) > 8 else ""
        kind = "strict" if spec.early_terminate.strict else "not strict"
        lines.append(f"hyperband ({kind}): a run may stop at its value number {bands}{more}")
    if not spec.runs_deep_cnn:
        lines.append("the command runs another program: its flags and metrics are not checked")
    return lines


def sample(argv: list[str]) -> int:
    """Print configurations without training."""
    name, options = _parse("sample", SampleOptions, argv)
    file = Path(name)
    spec = read_sweep(file)
    if spec.method == "custom":
        raise SpecError(f"{file}: method custom runs on W&B's scheduler; use grid, random or bayes")
    points = first_points(spec, options.seed, options.n)
    _PRINTERS[options.format](spec, points)
    return 0


def _print_csv(spec: SweepSpec, points: list[Point]) -> None:
    names = sorted(spec.leaves(dict.fromkeys(spec.space)))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for point in points:
        leaves = spec.leaves(point)
        writer.writerow([_cell(leaves[name]) for name in names])


def _cell(value: Any) -> Any:
    """Text as it is; None and what has an inside as JSON, so that it can be read back."""
    return json.dumps(to_jsonable(value)) if isinstance(value, list | dict | None) else value


def _print_json(spec: SweepSpec, points: list[Point]) -> None:
    print(json.dumps([to_jsonable(spec.arguments(point)) for point in points], indent=2))


def _print_commands(spec: SweepSpec, points: list[Point]) -> None:
    for point in points:
        print(shlex.join(spec.command_line(point)))


_PRINTERS = {"csv": _print_csv, "json": _print_json, "commands": _print_commands}


def sweep(argv: list[str]) -> int:
    """Run a sweep here; the same command again goes on with it."""
    name, options = _parse("sweep", SweepOptions, argv)
    file = Path(name)
    spec = read_sweep(file)
    check_runnable(spec, file, options.count)
    out = Path(options.out_dir) if options.out_dir else _base_out(spec)
    if options.repeats or options.refit:
        trust.check_possible(spec, first_points(spec, options.seed, 1)[0])
    again = shlex.join(["python", "-m", "deep_cnn", "sweep", *argv])
    with Signals() as signals:
        shared = {name: getattr(options, name) for name in ("workers", "seed", "retries")}
        shared["signalled"] = signals
        swept = run_sweep(spec, out, count=options.count, **shared)
        status = _say(swept, spec, again)
        if swept.signal is None and not swept.error:
            status = _trust(spec, swept, out, options, shared, again) or status
    _say_unsynced(out, swept)
    return status


def _say_unsynced(out: Path, swept: Swept) -> None:
    """The commands that upload what W&B has not got, as the logs of the runs have them."""
    found: dict[str, list[str]] = {}
    for name in (trial.run_name for trial in swept.trials if trial.run_name):
        try:
            text = RunFiles(out, name).log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for command, folder in re.findall(
            r"with: (wandb sync(?: --include-online)?) (.+)$", text, re.M
        ):
            found.setdefault(command, []).append(folder)
    for command, folders in found.items():
        if command == "wandb sync":
            folders = [str(out / "wandb" / "offline-run-*")]
        print(f"W&B: not uploaded yet; do it with: {command} {' '.join(folders)}", file=sys.stderr)


def _trust(
    spec: SweepSpec,
    swept: Swept,
    out: Path,
    options: SweepOptions,
    shared: Mapping[str, Any],
    command: str,
) -> int:
    """Repeat the best trials, and fit the winner on all data, as --repeats and --refit ask."""
    best = trust.distinct_but_for_seed(best_trials(spec, swept.trials))[: options.top]
    if not best:
        return 0
    status, winner, last = 0, best[0], trust.best_epoch(spec, best[0])
    if options.repeats:
        count = options.repeats
        seeds = trust.unused_seeds(spec, swept.trials, count)
        points = trust.repeats_of(spec, best, seeds)
        again = run_points(spec, "-repeats", points, out, **shared)
        found = trust.collect(spec, best, again.trials, seeds)
        trust.keep(out / "sweeps" / safe_name(spec.name) / "repeats.csv", found)
        status = _say_left(again, command)
        if again.signal is not None or again.error or not found:
            return status
        print("\n".join(trust.describe(spec, found, count)))
        winner, last = found[0].trial, round(statistics.median(found[0].best_epochs))
    if options.refit:
        point = trust.refit_of(spec, winner, last + 1)
        again = run_points(spec, "-refit", [point], out, **shared)
        status = _say_left(again, command) or status
        done = [
            t.run_name
            for t in again.trials
            if t.over and canonical_key(t.point) == canonical_key(point)
        ]
        for name in filter(None, done):
            print(f"Fitted on train + validation: {name}; look at test, once, with:")
            print(f"python -m deep_cnn --test_net={shlex.quote(str(out / 'models' / name))}.pt")
    return status


def agent(argv: list[str]) -> int:
    """Run a sweep that is kept on W&B's server, in processes that stay warm."""
    path, options = _parse("agent", AgentOptions, argv)
    access = _agent_access(path)
    with Signals() as signals:
        from deep_cnn.sweep.agent import run_agent
        from deep_cnn.sweep.remote import SweepServer  # W&B's client takes a while.

        server = SweepServer(access, path.rpartition("/")[2])
        left = run_agent(server, workers=options.workers, count=options.count, signalled=signals)
    print(f"{server.path}: {left.ended} runs, {left.failed} of them failed")
    if left.signal is not None:
        return exit_status(left.signal)
    if left.error:
        print(f"deep_cnn: the agent is stopped: {left.error}", file=sys.stderr)
    return 1 if left.error else 0


def _agent_access(path: str) -> Access:
    """How to reach the sweep ENTITY/PROJECT/SWEEP_ID, or the part of it that is not in WB_..."""
    *place, name = path.split("/")
    if not name or len(place) > 2 or not all(place):
        raise ConfigError(f"{path!r} is no sweep; it looks like ENTITY/PROJECT/SWEEP_ID")
    names = ("WB_USER", "WB_PROJECT")[2 - len(place) :]
    mode = os.environ.get("WANDB_MODE", "")
    if mode not in ("", "online"):
        raise ConfigError(
            f"WANDB_MODE={mode}: an agent asks its server what to run; unset it, or run the file"
            " here: python -m deep_cnn sweep FILE"
        )
    environ = {**os.environ, **dict(zip(names, place, strict=True))}
    access = access_of(True, environ, needed_by="an agent")
    assert access is not None, "it is an error where W&B was asked for"
    return access


def _say(swept: Swept, spec: SweepSpec, command: str) -> int:
    over = sum(trial.over for trial in swept.trials)
    name = spec.objective.name
    print(f"{spec.name}: {over} of {len(swept.trials)} trials are over")
    valued = best_trials(spec, swept.trials)
    best = valued[:_BEST_SHOWN]
    if best:
        print(f"{'trial':>6}  {name:<12}  run")
    for trial in best:
        value = float((trial.outcome or {})["value"])
        print(f"{trial.number:>6}  {value:<12.6g}  {trial.run_name}")
    if len(valued) > len(best):
        print(f"and {len(valued) - len(best)} more, in sweeps/{safe_name(spec.name)}/trials.csv")
    if best and spec.metric and spec.metric.reached((best[0].outcome or {})["value"]):
        print(f"the target {spec.metric.target:g} is reached: no new trial is begun")
    return _say_left(swept, command)


def _say_left(swept: Swept, command: str) -> int:
    """What went wrong, and the exit status that says so."""
    for trial in swept.failed:
        print(f"trial {trial.number} failed: {trial.error}", file=sys.stderr)
    if swept.signal is not None:
        print(f"Interrupted; go on with: {command}", file=sys.stderr)
        return exit_status(swept.signal)
    if swept.error:
        print(f"deep_cnn: the sweep is stopped: {swept.error}", file=sys.stderr)
    return 1 if swept.error or swept.failed else 0


def _base_out(spec: SweepSpec) -> Path:
    given = parse_run(spec.argv({}))
    return Path(given.get("root_dir", ".")) / given.get("out_dir", "outputs")


_Options = TypeVar("_Options", bound=OptionModel)


def _parse(verb: str, model: type[_Options], argv: list[str]) -> tuple[str, _Options]:
    """Return the one sweep that a verb takes, and its options."""
    for name in (option_name(word[2:].partition("=")[0]) for word in argv if word[:2] == "--"):
        if name in all_options().keys() - model.table().keys():
            way = f"in the file it is {name}: {{value: ...}} under parameters"
            raise ConfigError(f"--{name} is a flag of a run, not of {verb}; {way}")
    options, sweeps = parse_verb(model, argv)
    if len(sweeps) != 1:
        example = "ENTITY/PROJECT/SWEEP_ID" if verb == "agent" else "sweeps/lr.yaml"
        raise ConfigError(f"{verb} takes one sweep, not {len(sweeps)}: {verb} {example}")
    return sweeps[0], options

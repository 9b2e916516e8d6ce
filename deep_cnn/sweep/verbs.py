"""Run the verbs check, sample, sweep and agent."""

import os
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from deep_cnn.argv import parse_run
from deep_cnn.errors import ConfigError, SpecError
from deep_cnn.files import safe_name
from deep_cnn.results import exit_status
from deep_cnn.source import code_arguments
from deep_cnn.sweep import repeats
from deep_cnn.sweep.formatting import (
    FORMATS,
    describe,
    format_earlier_lenet,
    format_summary,
    format_upload,
    without_value,
)
from deep_cnn.sweep.options import (
    OPTIONS,
    AgentOptions,
    CheckOptions,
    SampleOptions,
    SharedSweepOptions,
    SweepOptions,
    checkpoints_to_keep,
    parse_sweep_options,
)
from deep_cnn.sweep.programs import describe_programs, program_options, program_problem
from deep_cnn.sweep.run import derived, engine
from deep_cnn.sweep.run.ending import end_once
from deep_cnn.sweep.run.identity import stored_constants
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.submitted import check_submitted
from deep_cnn.sweep.run.table import best_trials
from deep_cnn.sweep.spec.parse import parse_sweep, read_sweep, read_unchecked
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.rules import metric_direction
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.text import printable, printable_lines
from deep_cnn.tracking.access import Access, access_of
from deep_cnn.training.stop import Interrupted, Signals

__all__ = ["OPTIONS", "agent", "check", "sample", "sweep"]


def check(argv: list[str]) -> int:
    """Report every error in a sweep file; if there is none, describe the sweep.

    Options of a run, such as --data_dir=FOLDER, apply to every trial.
    """
    file, options, constants = parse_sweep_options("check", CheckOptions, argv)
    spec, findings = parse_sweep(Path(file), constants)
    for finding in findings:
        print(f"{printable(file)} {finding}", file=sys.stderr if finding.is_error else sys.stdout)
    if spec is None:
        return 2
    print("\n".join(map(printable, describe(spec))))
    if options.probe:
        if not spec.runs_deep_cnn or spec.method == "custom":
            raise SpecError(f"{file}: --probe tries sweeps of deep_cnn only; leave it out")
        from deep_cnn.sweep.probe import probe

        print("\n".join(probe(spec)))
    return 0


def sample(argv: list[str]) -> int:
    """Print the first configurations of a sweep without training.

    Options of a run, such as --data_dir=FOLDER, apply to every trial.
    """
    file, options, constants = parse_sweep_options("sample", SampleOptions, argv)
    spec = read_sweep(Path(file), constants)
    if spec.method == "custom":
        raise SpecError(f"{file}: method custom runs on W&B's scheduler; use grid, random or bayes")
    print(FORMATS[options.format](spec, first_points(spec, options.seed, options.n)))
    return 0


def sweep(argv: list[str]) -> int:
    """Run a sweep on this machine. The same command again resumes it.

    Options of a run, such as --data_dir=FOLDER, apply to every trial. They are stored with the
    sweep, and so may be left out when it is resumed.
    """
    file, options, constants = parse_sweep_options("sweep", SweepOptions, argv)
    program, constants = program_options(Path(file), options, constants)
    spec, out = read_runnable(Path(file), options, constants)
    if options.dry_run and spec.runs_deep_cnn:
        raise ConfigError("--dry_run is not for a sweep, which trains; remove it")
    if options.dry_run:
        print("\n".join(describe_programs(spec, out, options.seed, program)))
        return 0
    if note := metric_direction(spec):
        print(printable(f"{file}: {note}"), file=sys.stderr)
    if options.pilot:
        check_submitted(out / "sweeps" / safe_name(spec.name), os.environ)
    command = shlex.join(["python", "-m", "deep_cnn", "sweep", *argv])
    keep, pilot = checkpoints_to_keep(options.keep), options.pilot
    with Signals() as signals:
        seed, retries = options.seed, options.retries
        how = engine.EngineOptions(options.workers, seed, retries, signals, pilot, keep, program)
        try:
            local, total = engine.open_sweep(spec, out, how, options.count)
        except Interrupted as error:
            print(f"Interrupted; go on with: {command}", file=sys.stderr)
            return exit_status(error.request.signum)
        for note in format_earlier_lenet(spec) if local.is_of_earlier_version else ():
            print(printable(note), file=sys.stderr)
        summary = local.run(total)
        return (_end_as_pilot if options.pilot else _end)(local, summary, options, command)


def _end(
    local: engine.LocalSweep, summary: engine.SweepSummary, options: SweepOptions, command: str
) -> int:
    """Print how a sweep stands, run what follows it if it is over, and return the exit status."""
    spec, out, signals = local.spec, local.config.out, local.options.stop
    print("\n".join(map(printable, format_summary(spec, summary))))
    status = _print_problems(summary, command)
    if summary.signal is None and (problem := without_value(spec, summary)):
        print(f"deep_cnn: {printable(problem)}", file=sys.stderr)
        status = 1
    is_repeated = bool(options.repeats or options.refit)
    if is_repeated and summary.signal is None and not summary.error:
        how = replace(local.options, keep=None)
        run = partial(derived.run_points, spec, out=out, options=how)
        status = _repeat_and_refit(spec, summary.trials, options, run, out, command) or status
    for line in format_upload(out, spec.name, summary.trials, on_login_node=options.pilot):
        print(printable(line), file=sys.stderr)
    local.close(summary.trials, export=signals.signum is None)
    return status


def _end_as_pilot(
    local: engine.LocalSweep, summary: engine.SweepSummary, options: SweepOptions, command: str
) -> int:
    """End a sweep if no other pilot does, and return the exit status."""
    status = None
    if summary.signal is None and not summary.error:
        what = f"repeats={options.repeats} top={options.top} refit={options.refit}"
        end = partial(_end, local, summary, options, command)
        status = end_once(local, summary.trials, what, end)
    if status is None:
        local.close(summary.trials, export=False)
        print(printable(format_summary(local.spec, summary)[0]))
        status = _print_problems(summary, command)
    return status


def read_runnable(
    file: Path, options: SharedSweepOptions, constants: Mapping[str, str]
) -> tuple[SweepSpec, Path]:
    """Return the sweep of a file, which can be run with these options, and its folder for results.

    Raises:
        SpecError: The file has errors, or its sweep cannot be run here.
        ConfigError: An option is not legal.
    """
    constants = {**_stored_constants(file, options.out_dir, constants), **constants}
    spec = read_sweep(file, constants)
    _check_runnable(spec, file, options)
    if options.repeats or options.refit:
        repeats.check_possible(spec, first_points(spec, options.seed, 1)[0], options.seed_parameter)
    return spec, Path(options.out_dir) if options.out_dir else base_out(spec)


def _stored_constants(
    file: Path, out_dir: str | None, constants: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the options that the sweep was begun with, by which its file is judged, too."""
    spec = read_unchecked(file)
    with suppress(ConfigError):  # A wrong command; it is reported with all other errors.
        if spec is not None:
            spec = replace(spec, constants=constants)
            out = Path(out_dir) if out_dir else base_out(spec)
            return stored_constants(out / "sweeps" / safe_name(spec.name), spec)
    return {}


def _check_runnable(spec: SweepSpec, file: Path, options: SharedSweepOptions) -> None:
    """Raise SpecError if the sweep of a `file` cannot run here, or would never end."""
    if not spec.runs_deep_cnn and (problem := program_problem(spec, options)):
        raise SpecError(f"{file}: {problem}")
    if spec.method == "custom":
        raise SpecError(
            f"{file}: method custom runs on W&B's scheduler only; use grid, random or bayes"
        )
    if spec.points is None and spec.run_cap is None and options.count is None:
        raise SpecError(
            f"{file}: this search has no end; add run_cap: 20 to the file, or --count=20"
        )


def _repeat_and_refit(
    spec: SweepSpec,
    trials: Sequence[Trial],
    options: SweepOptions,
    run: Callable[..., engine.SweepSummary],
    out: Path,
    command: str,
) -> int:
    """Run --repeats and --refit after a sweep, and return the exit status.

    `run` takes the suffix of a further sweep and its configurations. `command` resumes the sweep.
    """
    seed = repeats.seed_name(spec, options.seed_parameter)
    best = repeats.distinct_but_for_seed(spec, best_trials(spec, trials), seed)[: options.top]
    if not best:
        return 0
    status, winner, last = 0, best[0], repeats.best_epoch(spec, best[0])
    if options.repeats:
        seeds = repeats.unused_seeds(spec, trials, options.repeats, seed)
        summary = run("-repeats", repeats.repeats_of(spec, best, seeds, seed))
        repeated = repeats.collect(spec, best, summary.trials, seeds, seed)
        repeats.write_repeats(out / "sweeps" / safe_name(spec.name) / "repeats.csv", repeated)
        status = _print_problems(summary, command)
        if summary.signal is not None or summary.error or not repeated:
            return status
        print("\n".join(repeats.describe(spec, repeated, options.repeats)))
        winner, last = repeated[0].trial, round(statistics.median(repeated[0].best_epochs))
    if not options.refit:
        return status
    point = repeats.refit_of(spec, winner, last + 1)
    summary = run("-refit", [point])
    status = _print_problems(summary, command) or status
    for trial in summary.trials:
        if trial.over and trial.run_name and derived.key_of(trial.point) == derived.key_of(point):
            checkpoint = shlex.quote(str(out / "models" / trial.run_name))
            print(f"Fitted on train + validation: {trial.run_name}; test it once with:")
            code = "".join(f" {shlex.quote(w)}" for w in code_arguments(spec.config(point)))
            print(f"python -m deep_cnn --test_net={checkpoint}.best.pt{code}")
    return status


def agent(argv: list[str]) -> int:
    """Run trials that W&B's server assigns. The processes stay alive between trials."""
    path, options, constants = parse_sweep_options("agent", AgentOptions, argv)
    for name in constants:
        way = f"in the sweep file write {name}: {{value: ...}} under parameters"
        raise ConfigError(f"--{name} is an option of a run, not of agent; {way}")
    access = _agent_access(path)
    with Signals() as signals:
        # W&B's client takes seconds to import; a signal in the meantime must end the agent, too.
        from deep_cnn.sweep.wandb_agent.agent import run_agent
        from deep_cnn.sweep.wandb_agent.api import WandbSweep

        remote = WandbSweep(access, path.rpartition("/")[2])
        summary = run_agent(remote, workers=options.workers, count=options.count, stop=signals)
    print(f"{remote.path}: {summary.ended} runs, {summary.failed} of them failed")
    if summary.signal is not None:
        return exit_status(summary.signal)
    if summary.error:
        print(f"deep_cnn: the agent is stopped: {summary.error}", file=sys.stderr)
    return 1 if summary.error else 0


def _agent_access(path: str) -> Access:
    """Return how to reach the sweep ENTITY/PROJECT/SWEEP_ID; WB_... supply missing parts."""
    *owner, name = path.split("/")
    if not name or len(owner) > 2 or not all(owner):
        raise ConfigError(f"{path!r} is no sweep; it looks like ENTITY/PROJECT/SWEEP_ID")
    mode = os.environ.get("WANDB_MODE", "")
    if mode not in ("", "online"):
        raise ConfigError(
            f"WANDB_MODE={mode}: an agent asks its server what to run; unset it, or run the file"
            " here: python -m deep_cnn sweep FILE"
        )
    names = ("WB_USER", "WB_PROJECT")[2 - len(owner) :]
    environ = os.environ | dict(zip(names, owner, strict=True))
    access = access_of(True, environ, needed_by="an agent")
    assert access is not None, "it is an error where W&B was asked for"
    return access


def _print_problems(summary: engine.SweepSummary, command: str) -> int:
    """Print the problems of a sweep, and return the exit status."""
    for trial in summary.failed:
        print(printable_lines(f"trial {trial.number} failed: {trial.error}"), file=sys.stderr)
    if summary.signal is not None:
        print(printable(f"Interrupted; go on with: {command}"), file=sys.stderr)
        return exit_status(summary.signal)
    if summary.error:
        print(printable_lines(f"deep_cnn: the sweep is stopped: {summary.error}"), file=sys.stderr)
    return 1 if summary.error or summary.failed else 0


def base_out(spec: SweepSpec) -> Path:
    """Return the folder for results that the command of a sweep file sets."""
    options = parse_run(spec.argv({})) if spec.runs_deep_cnn else {}
    return Path(options.get("root_dir", ".")) / options.get("out_dir", "outputs")

"""Run a sweep whose trials are calls of a function in this process."""

import _thread
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import print_exception
from typing import Any

import yaml

from deep_cnn.config import format_options
from deep_cnn.errors import ConfigError, DeepCnnError, OutputError, SpecError
from deep_cnn.results import RunResult
from deep_cnn.sweep.formatting import format_summary, format_upload, without_value
from deep_cnn.sweep.run.engine import EngineOptions, LocalSweep, SweepSummary, open_sweep
from deep_cnn.sweep.run.program.attempt import Ending, Program, run_attempt
from deep_cnn.sweep.run.program.environment import COOKIE, Attempt, ProgramOptions
from deep_cnn.sweep.run.program.source import ProgramSource
from deep_cnn.sweep.run.store_source import Claim
from deep_cnn.sweep.run.table import write_table
from deep_cnn.sweep.run.trial_search import StoreConfig
from deep_cnn.sweep.run.worker import one_line
from deep_cnn.sweep.spec.parse import parse_text, read_sweep
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point
from deep_cnn.text import printable
from deep_cnn.training.stop import StopToken

# trials.csv is written again after so many seconds.
_TABLE_PAUSE = 4.0


def agent(
    sweep: str | Path | Mapping[str, Any],
    function: Callable[[], object],
    *,
    count: int | None = None,
    seed: int = 0,
    retries: int = 1,
    out_dir: str | Path = "outputs",
) -> None:
    """Call a function for each configuration of a sweep, as `wandb.agent` does, but offline.

    `wandb.init()` in the function opens an offline run whose `wandb.config` is the configuration.
    The same call again resumes the sweep; several processes may make it at once. An exception
    costs its trial. KeyboardInterrupt hands the trial back, and ends the call. A function cannot
    be stopped, so `early_terminate` has no effect.

    Args:
        sweep: The sweep file, or its content.
        function: Takes no arguments. What it returns is ignored.
        count: The number of trials of the sweep at most, those of earlier calls included.
        seed: The seed of the search.
        retries: How often a failed trial is tried again.
        out_dir: The folder for results.

    Raises:
        ConfigError: An argument is not legal, or `function` is a call of this function itself.
        SpecError: The sweep has errors, cannot run here, or would never end.
        OutputError: The folder for results cannot be written.
    """
    if not callable(function):
        raise ConfigError(f"function={function!r} cannot be called; give a function")
    spec = _read(sweep)
    _check(spec, count)
    if spec.early_terminate is not None:
        _print(f"{spec.name}: a function cannot be stopped; early_terminate has no effect")
    options = EngineOptions(workers=1, seed=seed, retries=retries)
    local, _ = open_sweep(spec, Path(out_dir), options, count)
    try:
        _run(local, FunctionSource(local.config, function))
    finally:
        summary = _summary(local)
        local.close(summary.trials, export=True)
    _print_end(local, summary)


def _print_end(local: LocalSweep, summary: SweepSummary) -> None:
    spec, out = local.spec, local.config.out
    print("\n".join(map(printable, format_summary(spec, summary))))
    problem = without_value(spec, summary)
    for line in [*filter(None, [problem]), *format_upload(out, spec.name, summary.trials)]:
        _print(line)


def _read(sweep: str | Path | Mapping[str, Any]) -> SweepSpec:
    if not isinstance(sweep, str | Path | Mapping):
        raise ConfigError(f"{sweep!r} is no sweep; name a sweep file, or give its content")
    if not isinstance(sweep, Mapping):
        return read_sweep(Path(sweep))
    spec, findings = parse_text(yaml.safe_dump(dict(sweep)), "sweep")
    if spec is None:
        raise SpecError(*(f"sweep: {one.text}" for one in findings if one.is_error))
    return spec


def _check(spec: SweepSpec, count: int | None) -> None:
    """Raise an error if a sweep cannot be run by calls, or would never end."""
    if count is not None and count < 1:
        raise ConfigError(f"count={count} is less than 1; leave it out for no limit")
    if spec.runs_deep_cnn:
        raise SpecError(f"{spec.name}: its command runs deep_cnn; use: python -m deep_cnn sweep")
    if spec.method == "custom":
        raise SpecError(f"{spec.name}: method custom runs on W&B only; use grid, random or bayes")
    if spec.points is None and spec.run_cap is None and count is None:
        raise SpecError(f"{spec.name}: this search has no end; add run_cap, or count=20")


def _summary(local: LocalSweep) -> SweepSummary:
    """Return how the sweep stands, and write trials.csv unless another process does."""
    local.store.look()
    trials = local.store.trials()
    if local.writer.take():
        write_table(local.config.folder / "trials.csv", local.spec, trials)
    return SweepSummary(tuple(trials))


def _run(local: LocalSweep, source: "FunctionSource") -> None:
    """Call the function for trials until there are no more, or until it is interrupted."""
    if "WANDB_SWEEP_PARAM_PATH" in os.environ and COOKIE in os.environ:
        raise ConfigError("agent is called in a trial of a sweep; call it outside")
    claim: Claim | None = None
    due = 0.0
    try:
        while not source.is_interrupted and (claim := source.take()) is not None:
            source.run_and_report(claim)
            claim = None
            if time.monotonic() >= due:
                _summary(local)
                due = time.monotonic() + _TABLE_PAUSE
    except KeyboardInterrupt:
        source.is_interrupted = True
        if claim is not None:
            source.hand_back(claim)
    if source.is_interrupted:
        _print(f"{local.spec.name}: interrupted; the same call again goes on")


class _LostClaim(DeepCnnError):
    """Another process has taken the trial over."""


class FunctionSource(ProgramSource):
    """Claims trials as any worker does, and calls a function for each, in this process."""

    def __init__(self, config: StoreConfig, function: Callable[[], object]) -> None:
        super().__init__(config, ProgramOptions())
        self.function = function
        self.is_interrupted = self.is_lost = False

    def run_and_report(self, claim: Claim) -> None:
        """Run a trial, and commit or report how it ended."""
        point = claim.trial.point or {}
        name, values = self.spec.name, format_options(self.spec.leaves(point))
        _print(f"{name}: trial {claim.trial.number} with {values}")
        try:
            result = self.run(claim)
            if result.error is not None:
                _print(f"{name}: trial {claim.trial.number} failed: {result.error}")
            self.finish(claim, result)
        except _LostClaim:
            self.is_lost = False
        except OutputError:
            raise
        except DeepCnnError as error:
            self.fail(claim, error)

    def hand_back(self, claim: Claim) -> None:
        """Let the trial be run again."""
        self._give_back(claim, "interrupted", None)

    def _shown(self, point: Point, attempt: Attempt) -> str:
        return f"{getattr(self.function, '__name__', 'function')}()"

    def _execute(self, program: Program, number: int, stop: StopToken) -> RunResult:
        def call(values: object) -> Ending:
            from deep_cnn.tracking.wandb_session import noted_folders

            # The function may name another folder for its run than the environment does.
            with _environment(program.environment), noted_folders():
                return self._call()

        return run_attempt(program, call)

    def _call(self) -> Ending:
        from deep_cnn.tracking.wandb_session import end_session  # W&B's client takes a second.

        end_session()
        ending = Ending(status=1)
        try:
            self.function()
            ending.status = 0
        except KeyboardInterrupt:
            if self.is_lost:
                raise _LostClaim("another process has taken the trial over") from None
            self.is_interrupted = ending.is_interrupted = True
        except SystemExit as error:
            ending.status = int(error.code not in (None, 0))
            ending.problem = f"the function exited with {error.code}" if ending.status else None
        except Exception as error:
            own = error.__traceback__ and error.__traceback__.tb_next  # Without this frame.
            print_exception(type(error), error, own)
            ending.problem = one_line(error)
        finally:
            end_session(ending.status)
        return ending

    def _listen(self) -> None:
        """Leave signals to the program of the user."""

    def _leave(self) -> None:
        """Interrupt the function: this process is not ours to end."""
        if not self.is_lost:
            self.is_lost = True
            _thread.interrupt_main()


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set the environment of this process for a while."""
    before = dict(os.environ)
    _set_environment(wanted)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _print(text: str) -> None:
    print(printable(text), file=sys.stderr)

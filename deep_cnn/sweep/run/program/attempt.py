"""Judge one attempt of a trial by the numbers that its program logs, and keep them."""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deep_cnn.files import RunFiles, unwritable
from deep_cnn.results import (
    Best,
    EpochRecord,
    Metric,
    RunResult,
    State,
    StopReason,
    SweepTrial,
)
from deep_cnn.sweep.run.program.table import write_table
from deep_cnn.sweep.run.program.values import MetricFile, Output, Values
from deep_cnn.tracking import FileTracker, Start

_LOGGER = logging.getLogger("deep_cnn")
_MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is to be run.

    Attributes:
        command: The command line.
        environment: The environment.
        arguments: The parameters by name.
        files: The files of its run.
        trial: The sweep and the trial.
        metric: The metric of the sweep, or None if the sweep file has none.
        run_id: The id of W&B's run.
        shown: The command line without the values of variables.
        metric_file: The table that the program writes, if it was named.
        say: Shows the user a text, the second argument, unless one of its kind was shown before.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    arguments: Mapping[str, Any]
    files: RunFiles
    trial: SweepTrial
    metric: Metric | None
    run_id: str
    shown: str
    metric_file: Path | None
    say: Callable[[str, str], None]

    @property
    def runs(self) -> Path:
        """The folder of W&B's runs."""
        return Path(self.environment["WANDB_DIR"]) / "wandb"


@dataclass(slots=True)
class Ending:
    """How a program ended, and what we did to it."""

    status: int = 0
    reason: StopReason | None = None
    is_interrupted: bool = False
    problem: str | None = None


def run_attempt(program: Program, execute: Callable[[Values], Ending]) -> RunResult:
    """Run a program; return how it ended, with the values of the metric as its history.

    Args:
        program: The program.
        execute: Runs it to its end, and may look at its numbers in the meantime.

    Raises:
        OutputError: The files of the run cannot be written.
    """
    files, metric = program.files, program.metric.name if program.metric else None
    tracker = FileTracker()
    tracker.start(Start(files, program.arguments))
    try:
        _LOGGER.info("The program: %s", program.shown)
        output = Output(files.log, files.log.stat().st_size)
        file = MetricFile(program.metric_file) if program.metric_file else None
        values = Values(metric, program.runs, program.run_id, output, file)
        begun = time.monotonic()
        ending = execute(values)
        seconds = time.monotonic() - begun
        values.read(is_over=True)
        result = replace(_result(program, values, ending), seconds=seconds)
        write_table(files.table, values)
        _LOGGER.info("%s", _said(result, values))
        source = values.source(is_over=True)[0]
        if source:
            program.say("source", f"{metric} is read from {source}")
        if output.has_old_client:
            program.say("client", "W&B's client is older than 0.31: no run can be stopped early")
        tracker.close(result)
    except OSError as error:
        tracker.abandon()
        raise unwritable(files.log, error) from error
    except BaseException:
        tracker.abandon()
        raise
    return result


def _result(program: Program, values: Values, ending: Ending) -> RunResult:
    """Return how a program ended."""
    metric, rows = program.metric, values.source(is_over=True)[1]
    numbers: dict[str, float] = {}
    for row in rows:
        numbers.update(row)
    logged = [(i, row[metric.name]) for i, row in enumerate(rows) if metric and metric.name in row]
    error = None
    if ending.reason is not None:
        state = State.STOPPED
    elif ending.is_interrupted:
        state = State.INTERRUPTED
    else:
        error = _error(ending, values, has_value=metric is None or bool(logged))
        state = State.FAILED if error else State.FINISHED
    folder = values.folder
    # A run that went online is complete on W&B if its client has ended it.
    is_lacking = folder is not None and (
        folder.name.startswith("offline-run-") or not values.is_run_over
    )
    return RunResult(
        run_name=program.files.name,
        state=state,
        program=program.shown,
        config=program.arguments,
        stop_reason=ending.reason,
        sweep=program.trial,
        best=_best(metric, logged, values.summary),
        metrics={name: value for name, value in numbers.items() if not name.startswith("_")},
        error=error,
        unsynced=(os.path.relpath(folder),) if is_lacking and folder else (),
        history=tuple(
            EpochRecord(i, math.nan, {metric.name: value}) for i, value in logged if metric
        ),
    )


def _best(
    metric: Metric | None, logged: Sequence[tuple[int, float]], summary: float | None
) -> Best | None:
    """Return the best of the logged values and of the summary, as W&B's engine sees it."""
    if metric is None:
        return None
    value = metric.best([*(value for _, value in logged), math.nan if summary is None else summary])
    if value is None:
        return None
    epoch = next((i for i, one in logged if one == value), logged[-1][0] if logged else 0)
    return Best(epoch, metric.name, value)


def _error(ending: Ending, values: Values, *, has_value: bool) -> str | None:
    """Return what is wrong with a program that ended by itself, or None."""
    if ending.problem is not None:
        return ending.problem
    if ending.status != 0:
        if ending.status < 0:
            with suppress(ValueError):
                name = f" ({signal.Signals(-ending.status).name})"
            how = f"was killed by signal {-ending.status}{name}"
        else:
            how = f"exited with {ending.status}"
        last = "".join(f"\n{line}" for line in values.output.last)
        return f"the program {how}; {'its last output:' if last else 'it printed nothing'}{last}"
    if not has_value:
        names = values.names()
        shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        what = f"it logged: {shown}" if names else "it logged no numbers"
        if values.file is not None and not values.file.path.exists():
            what = f"{values.file.path} does not exist"
        return f"the program exited with 0 and never logged the metric {values.metric}; {what}"
    return None


def _said(result: RunResult, values: Values) -> str:
    if result.error:
        return f"Failed: {result.error}"
    source = values.source(is_over=True)[0] or "nowhere"
    text = f"{str(result.state).capitalize()}"
    if values.metric is None:
        return text
    count = len(result.history)
    return f"{text}: {count} value{'s' * (count != 1)} of {values.metric} from {source}"

"""Run one configuration of a sweep as an ordinary run, from where it was left."""

import csv
import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_cnn.config import TrainConfig, format_options
from deep_cnn.errors import CheckpointError, ConfigError, DeepCnnError, OutputError
from deep_cnn.files import RunFiles
from deep_cnn.resolve import resolve
from deep_cnn.results import EpochRecord, Metric, RunResult, State, SweepTrial
from deep_cnn.sweep.run.records import TrialOutcome
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point
from deep_cnn.tracking import FileTracker, RemoteRun, Start, Tracker, open_tracker
from deep_cnn.training.stop import StopToken

if TYPE_CHECKING:  # It imports torch, which takes seconds; supervisors import this module, too.
    from deep_cnn.training.epochs import ShouldStop

_LOGGER = logging.getLogger("deep_cnn")


@dataclass(frozen=True, slots=True)
class TrialRun:
    """What a trial of a sweep is run with, whichever source assigned it.

    Attributes:
        config: The configuration.
        sweep: The sweep and the trial.
        files: The files of its run, the last checkpoint of an interrupted one among them.
        stop: Asked between two steps.
        remote: The run on W&B's server, if the server made it.
        title: What W&B displays instead of the run's name.
        before_row: Called before each row is sent to W&B.
    """

    config: TrainConfig
    sweep: SweepTrial
    files: RunFiles
    stop: StopToken
    remote: RemoteRun | None = None
    title: str | None = None
    before_row: Callable[[], None] | None = None


class _BeforeRow(Tracker):
    """Calls a function before the trackers behind it get a row."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def log(self, record: EpochRecord) -> None:
        """Call it."""
        self.call()


def trial_config(spec: SweepSpec, point: Point, out: Path) -> TrainConfig:
    """Return the run of a configuration; results go to `out`."""
    return resolve(spec.config(spec.current(point))).replace(out_dir=str(out.resolve()))


def trial_title(spec: SweepSpec, point: Point) -> str | None:
    """Return the values of a configuration that differ between trials, as `lr=0.00102`, if any."""
    searched = {k: v for k, v in point.items() if k not in spec.space or spec.space[k].size != 1}
    return format_options(dict(sorted(spec.leaves(searched).items()))) or None


def run_trial(trial: TrialRun, should_stop: "ShouldStop | None" = None) -> RunResult:
    """Run a trial of a sweep as an ordinary run, or go on with the run that it was left with.

    Raises:
        DeepCnnError: The run failed; unless it is an OutputError, the result on disk says so.
    """
    files, sweep, remote = trial.files, trial.sweep, trial.remote
    config = trial.config.replace(run_name=files.name)

    def run(config: TrainConfig) -> RunResult:
        from deep_cnn.training.fit import fit

        tracker, stop = open_tracker(config, sweep, remote, trial.title), trial.stop
        if trial.before_row is not None:
            tracker.others.insert(0, _BeforeRow(trial.before_row))
        return fit(config, tracker, should_stop=should_stop, stop=stop, files=files, sweep=sweep)

    try:
        if files.last.exists():
            try:
                return run(config.replace(resume=str(files.last)))
            except CheckpointError:
                files.last.unlink(missing_ok=True)  # Damaged: begin again.
        return run(config)
    except OutputError:
        raise
    except DeepCnnError as error:
        record_failure(config, files, sweep, str(error), remote)
        raise


def record_failure(
    config: TrainConfig,
    files: RunFiles,
    sweep: SweepTrial,
    error: str,
    remote: RemoteRun | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Leave the log and the result of a run that failed before it began to train.

    Args:
        config: Says whether and how W&B is used.
        files: The files of the run.
        sweep: The sweep and the trial.
        error: What went wrong.
        remote: The run on W&B's server, if the server made it.
        options: What was set, if that does not make a configuration.
    """
    options = options or config.to_dict()
    result = RunResult(files.name, State.FAILED, options, sweep=sweep, error=error)
    start = Start(files, options)
    tracker: Tracker
    try:
        tracker = open_tracker(config, sweep, remote)
        tracker.start(start)
    except ConfigError:  # W&B may refuse to be used.
        tracker = FileTracker()
        tracker.start(start)
    _LOGGER.error("Failed: %s", error)
    tracker.close(result)


def values_of(history: Sequence[EpochRecord], metric: Metric) -> list[float]:
    """Return the metric of each epoch that has it."""
    named = ((record.metrics, _name_in(metric, record.metrics)) for record in history)
    return [metrics[name] for metrics, name in named if name in metrics]


def logged_values(table: Path, metric: Metric) -> list[float]:
    """Return the metric of each epoch that has it in results/<run>.csv by now."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            name = _name_in(metric, rows.fieldnames or ())
            return [float(row[name]) for row in rows if row[name]]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


def _name_in(metric: Metric, names: Container[str]) -> str:
    """Return the name of a metric in a table: best_loss_val is the best value of loss_val."""
    return metric.name if metric.name in names else metric.name.removeprefix("best_")


def outcome_of(result: RunResult, spec: SweepSpec, claim: int) -> TrialOutcome:
    """Return what the store keeps of a run that finished or was stopped under a claim."""
    values = values_of(result.history, spec.objective)
    return TrialOutcome(
        state="finished" if result.state is State.FINISHED else "stopped",
        value=spec.objective.best(values),
        run_name=result.run_name,
        values=tuple(values),
        epochs=len(result.history),
        stop_reason=result.stop_reason,
        seconds=result.seconds,
        claim=claim,
    )

"""Run one configuration of a sweep as an ordinary run, from where it was left."""

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deep_cnn.config import TrainConfig
from deep_cnn.errors import CheckpointError, ConfigError, DeepCnnError, OutputError
from deep_cnn.resolve import resolve
from deep_cnn.runs import EpochRecord, Metric, RunFiles, RunResult, State, claim_run
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point
from deep_cnn.sweep.store import Trial
from deep_cnn.tracking import FileTracker, Start, Tracker, open_tracker
from deep_cnn.training import ShouldStop, fit, never

_LOGGER = logging.getLogger("deep_cnn")


@dataclass(frozen=True, slots=True)
class Objective:
    """Turns a configuration into a result; knows neither the store nor the search."""

    spec: SweepSpec
    out: Path

    def config(self, point: Point) -> TrainConfig:
        """The run of `point`, its results in the sweep's folder, named by what is not default."""
        config = resolve(self.spec.config(point)).replace(out_dir=str(self.out.resolve()))
        return config.replace(run_name=config.run_name or config.short_name())

    def __call__(
        self,
        point: Point,
        trial: int,
        run_name: str | None,
        named: Callable[[str], None],
        signalled: Callable[[], int | None],
        should_stop: ShouldStop = never,
    ) -> RunResult:
        """Run `point`, or go on with the run `run_name`; `named` is told the name of a new run."""
        sweep = {"name": self.spec.name, "trial": trial}
        return run_trial(
            self.config(point), sweep, run_name, named, signalled, should_stop=should_stop
        )


def run_trial(
    config: TrainConfig,
    sweep: Mapping[str, Any],
    run_name: str | None,
    named: Callable[[str], None],
    signalled: Callable[[], int | None],
    *,
    should_stop: ShouldStop = never,
    sigterm_stops: bool = False,
    remote: Mapping[str, Any] | None = None,
) -> RunResult:
    """Run the trial `sweep` of a sweep, or go on with its run `run_name`, which `named` is told.

    `remote`: see `open_tracker`. A DeepCnnError is recorded as the run's end, and raised.
    """
    files = RunFiles(config.out_path, run_name) if run_name else claim_run(config)
    if not run_name:
        named(files.name)
    config = config.replace(run_name=files.name)

    def run(config: TrainConfig) -> RunResult:
        return fit(
            config,
            open_tracker(config, sweep, remote),
            should_stop=should_stop,
            signalled=signalled,
            files=files,
            sweep=sweep,
            sigterm_stops=sigterm_stops,
        )

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
    sweep: Mapping[str, Any],
    error: str,
    remote: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> None:
    """Leave the log and the result of a run that never came to train.

    `flags`: what was given, where it does not make a configuration.
    """
    flags = flags or config.to_dict()
    result = RunResult(files.name, State.FAILED, flags, sweep=sweep, error=error)
    start = Start(files, flags)
    tracker: Tracker
    try:
        tracker = open_tracker(config, sweep, remote)
        tracker.start(start)
    except ConfigError:  # It may be W&B that is refused.
        tracker = FileTracker()
        tracker.start(start)
    _LOGGER.error("Failed: %s", error)
    tracker.close(result)


def values_of(history: Sequence[EpochRecord], metric: Metric) -> list[float]:
    """The metric of each epoch."""
    name = metric.name.removeprefix("best_")
    return [record.metrics[name] for record in history if name in record.metrics]


def logged_values(table: Path, metric: Metric) -> list[float]:
    """The metric of each epoch that is in results/<run>.csv by now."""
    name = metric.name.removeprefix("best_")
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return [float(row[name]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def target_reached(spec: SweepSpec, trials: Sequence[Trial]) -> bool:
    """Whether a trial is as good as the metric's target, so that no new one is begun."""
    values = [t.outcome["value"] for t in trials if t.outcome and t.outcome["value"] is not None]
    return spec.metric is not None and any(map(spec.metric.reached, values))


def outcome(result: RunResult, spec: SweepSpec) -> Mapping[str, Any]:
    """What the store keeps of a finished run."""
    values = values_of(result.history, spec.objective)
    return {
        "state": str(result.state),
        "run_name": result.run_name,
        "value": spec.objective.best(values),
        "values": values,
        "epochs": len(result.history),
        "stop_reason": asdict(result.stop_reason) if result.stop_reason else None,
        "seconds": result.seconds,
    }

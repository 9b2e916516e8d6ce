"""Format the output of the verbs: a plan, configurations, and the state of a sweep."""

import csv
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from deep_cnn.files import RunFiles, safe_name
from deep_cnn.names import WEIGHTS
from deep_cnn.results import RunResult
from deep_cnn.sweep.run.engine import SweepSummary
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.table import best_trials
from deep_cnn.sweep.run.work import WorkFolders
from deep_cnn.sweep.spec.equal_runs import EqualRuns
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, to_jsonable
from deep_cnn.text import printable

# The number of best trials that are listed after a sweep.
_LISTED = 5
# Weights are stored as float32.
_BYTES_EACH = 4


def describe(spec: SweepSpec) -> list[str]:
    """Return lines that describe what a sweep would do."""
    count = spec.points
    points = "infinitely many" if count is None else f"{count:,}"
    lines = [f"{spec.name}: {spec.method} search, {points} configurations"]
    runs = None if count is None else EqualRuns(spec).count(count)
    if runs is not None and runs != count:
        lines[0] += f", {runs:,} different runs; equal ones are trained once"
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
    if spec.runs_deep_cnn:
        lines += _disk_estimate(spec)
    else:
        lines.append("the command runs another program: its flags and metrics are not checked")
    return lines


def _disk_estimate(spec: SweepSpec) -> list[str]:
    """Return how much space the checkpoints of a sweep take, if the number of trials is known."""
    trials = min((n for n in (spec.points, spec.run_cap) if n is not None), default=None)
    if trials is None or spec.method == "custom":
        return []
    if not set(models_of(spec)) <= WEIGHTS.keys():  # A network of the user may have any size.
        return []
    each = max(_BYTES_EACH * WEIGHTS[name] * 1e6 for name in models_of(spec))
    text = f"checkpoints take up to {_size(trials * each)} on disk, {_size(each)} for each trial"
    return [f"{text}; sweep --keep=best:10 keeps those of the best ten"]


def models_of(spec: SweepSpec) -> list[str]:
    """Return the networks that a sweep of deep_cnn trains."""
    models = [name for name in spec.space if name.rpartition("/")[2] == "model"]
    values = spec.space[models[0]].grid if models else None
    return [str(name) for name in values or (spec.config(first_points(spec, 0, 1)[0]).model,)]


def format_earlier_lenet(spec: SweepSpec) -> list[str]:
    """Return a note for a sweep that an earlier version began, if it trains `lenet`."""
    if not spec.runs_deep_cnn or "lenet" not in models_of(spec):
        return []
    return [
        f"{spec.name}: an earlier version began this sweep with another lenet, and its new trials"
        " train the present one; to compare them, begin a new sweep: another name: in the file"
    ]


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.3g} MB"


def _as_csv(spec: SweepSpec, points: Sequence[Point]) -> str:
    names = sorted(spec.leaves(dict.fromkeys(spec.space)))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for leaves in map(spec.leaves, points):
        writer.writerow([_cell(leaves[name]) for name in names])
    return text.getvalue().removesuffix("\n")


def _cell(value: Any) -> Any:
    """Return None and nested values as JSON, to be read back, and text in one line."""
    if isinstance(value, list | dict | None):
        return json.dumps(to_jsonable(value))
    return printable(value) if isinstance(value, str) else value


def _quoted(arg: str) -> str:
    """Return an argument for bash, without control characters."""
    if printable(arg) == arg:
        return shlex.quote(arg)
    escaped = arg.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"


FORMATS: Mapping[str, Callable[[SweepSpec, Sequence[Point]], str]] = {
    "csv": _as_csv,
    "json": lambda spec, points: json.dumps(
        [to_jsonable(spec.arguments(point)) for point in points], indent=2
    ),
    "commands": lambda spec, points: "\n".join(
        " ".join(map(_quoted, spec.command_line(point))) for point in points
    ),
}


def format_summary(spec: SweepSpec, summary: SweepSummary) -> list[str]:
    """Return lines with the number of trials that are over, and the best trials."""
    over = sum(trial.over for trial in summary.trials)
    lines = [f"{spec.name}: {over} of {len(summary.trials)} trials are over"]
    same = sum(t.outcome is not None and t.outcome.same_as is not None for t in summary.trials)
    if same:
        lines.append(f"{same} of them are the same run as an earlier trial, and have its result")
    waiting = sum(trial.state == "waiting" for trial in summary.trials)
    if waiting and summary.failed and summary.signal is None and not summary.error:
        lines.append(f"{waiting} are the same run as a trial that failed, and were not run")
    valued = best_trials(spec, summary.trials)
    best = valued[:_LISTED]
    if best:
        lines.append(f"{'trial':>6}  {spec.objective.name:<12}  run")
    lines += [f"{trial.number:>6}  {trial.value:<12.6g}  {trial.run_name}" for trial in best]
    if len(valued) > len(best):
        name = safe_name(spec.name)
        lines.append(f"and {len(valued) - len(best)} more, in sweeps/{name}/trials.csv")
    value = best[0].value if best else None
    if value is not None and spec.metric and spec.metric.reached(value):
        lines.append(f"the target {spec.metric.target:g} is reached: no new trial is begun")
    return lines


def without_value(spec: SweepSpec, summary: SweepSummary) -> str | None:
    """Return a text if trials are over and none has a finite value of the sweep's metric."""
    over = [trial for trial in summary.trials if trial.over]
    if spec.metric is None or not over or best_trials(spec, over):
        return None
    return (
        f"none of the {len(over)} trials that are over has a value of {spec.metric.name}: every"
        " value is NaN, infinite or missing; see the tables of the runs, and choose another metric"
        " or correct the data"
    )


def format_upload(
    out: Path, name: str, trials: Sequence[Trial], *, on_login_node: bool = False
) -> list[str]:
    """Return a line with the command that uploads what W&B lacks of a sweep's trials, if any."""
    if not any(_unsynced(out, name, trial) for trial in trials):
        return []
    command = f"python -m deep_cnn upload {shlex.quote(str(out))}"
    place = "on the login node" if on_login_node else "do it with"
    return [f"W&B: not uploaded yet; {place}: {command}"]


def _unsynced(out: Path, name: str, trial: Trial) -> tuple[str, ...]:
    if trial.run_name is None:
        return ()
    work = WorkFolders(FolderIO(), out / "sweeps" / safe_name(name), out)
    places = (work.files(trial.number, trial.claim, trial.run_name), RunFiles(out, trial.run_name))
    results = (RunResult.read(files.result) for files in places)
    # The run may not be over, or its result may be lost.
    return next((result.unsynced for result in results if result is not None), ())

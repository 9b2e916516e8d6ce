"""Find the runs that a report is about, and what their sweeps have searched."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_cnn.errors import DataError
from deep_cnn.files import RunFiles, read_text, safe_name
from deep_cnn.names import TASKS
from deep_cnn.results import DEFAULT_METRIC, RunResult

if TYPE_CHECKING:
    from deep_cnn.sweep.spec.distributions import Distribution

_LOSSES = {"mse": "squared error", "huber": "Huber loss"}
# A list of values is drawn on a logarithmic axis if the largest is this many times the smallest.
_WIDE = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, and its result file."""

    path: Path
    result: RunResult

    @property
    def files(self) -> RunFiles:
        """Its files."""
        folder, stem = self.path.parent, self.path.name.removesuffix(".json")
        if folder.name == "results":
            return RunFiles(folder.parent, stem)
        return RunFiles(folder, stem, work=folder)  # An interrupted trial, or files moved away.

    @property
    def sweep_folder(self) -> Path | None:
        """The folder of its sweep, or None."""
        sweep = self.result.sweep
        return self.files.out / "sweeps" / safe_name(sweep.name) if sweep else None

    @property
    def scale(self) -> tuple[str, str]:
        """The metric of its best epoch, and what a loss measures: equal for comparable runs."""
        result = self.result
        metric = result.best.metric if result.best else DEFAULT_METRIC.name
        task = TASKS.get(str(result.config.get("task")))
        if task is None or not metric.startswith("loss_"):
            return metric, ""
        loss = str(result.config.get("loss", "mse"))
        is_score = "mae" in task.metrics
        return metric, _LOSSES.get(loss, loss) if is_score else "cross-entropy"

    def row(self) -> dict[str, Any]:
        """Return every column of the leaderboard."""
        result, best, sweep = self.result, self.result.best, self.result.sweep
        test, looks = result.valid_test, result.looks
        own = {
            "run_name": result.run_name,
            "state": str(result.state),
            "metric": best and best.metric,
            "best": best and best.value,
            "epoch": best and best.epoch,
            "seconds": result.seconds,
            "sweep": sweep and sweep.name,
            "trial": sweep and sweep.trial,
        }
        looked = {"test_looks": looks} if looks else {}
        others = {**result.metrics, **(test.metrics if test else {}), **looked, **result.config}
        return {**own, **others, **own}  # An option must not replace a column.


def one_run(text: str) -> Path | None:
    """Return the result file for `text`, a file of a run or the name of a run in outputs."""
    path = Path(text)
    # Path's own `is_file` fails for a name that is too long.
    if path.suffix == ".json" and os.path.isfile(path):  # noqa: PTH113
        return path
    if path.suffix == ".pt" and path.parent.name == "models":
        stem = path.name.removesuffix(".pt").removesuffix(".best")
        result = RunFiles(path.parent.parent, stem).result
        return result if os.path.isfile(result) else None  # noqa: PTH113
    named = RunFiles(Path("outputs"), text).result
    is_name = "/" not in text and not os.path.isdir(path)  # noqa: PTH112
    return named if is_name and os.path.isfile(named) else None  # noqa: PTH113


def find_runs(text: str) -> list[Run]:
    """Return the run that `text` names, or all runs of a folder; raise DataError.

    The folder of a sweep stands for the runs of the sweep.
    """
    one = one_run(text)
    if one:
        return [read_run(one)]
    folder = Path(text)
    if not os.path.isdir(folder):  # noqa: PTH112
        raise DataError(f"{text} is no folder, no result and no run in outputs; name one")
    folder, sweep = _sweep_of(folder)
    results = folder / "results"
    runs = []
    if results.is_dir() or sweep:
        # A trial that is interrupted has its files in the sweep's folder.
        paths = [*results.glob("*.json"), *folder.glob("sweeps/*/work/*/*.json")]
    else:
        paths = list(folder.rglob("*.json"))
    for path in sorted(paths):
        if path.name.endswith((".args.json", ".upload.json")):
            continue
        try:
            runs.append(read_run(path))
        except DataError as error:
            # In other folders, JSON files that are not results are normal.
            if path.parent.name == "results" and not sweep:
                print(f"left out: {error}", file=sys.stderr)
    named = (run for run in runs if run.result.sweep)
    return [r for r in named if r.sweep_folder == sweep] if sweep else runs


def _sweep_of(folder: Path) -> tuple[Path, Path | None]:
    """Return the output folder and the folder of a sweep in it, if `folder` is one."""
    whole = folder.absolute()
    if whole.parent.name != "sweeps" or not (whole / "sweep.json").is_file():
        return folder, None
    out = folder.parent.parent if len(folder.parts) > 2 else whole.parent.parent
    return out, out / "sweeps" / whole.name


def read_run(path: Path) -> Run:
    """Return the run whose result is in the file `path`; raise DataError."""
    try:
        return Run(path, RunResult.from_json(read_text(path)))
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise DataError(f"{path} is no result of a run ({text}); leave it out") from None


@cache
def searched_in(folder: Path) -> Mapping[str, bool]:
    """Return the parameters that a sweep searches, by column.

    The value says whether an axis of the parameter is logarithmic. A damaged or missing
    sweep.json gives none.
    """
    from deep_cnn.sweep.spec.parse import searched_options

    try:
        searched = searched_options(json.loads(read_text(folder / "sweep.json"))["content"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: _is_log(one) for name, one in searched.items()}


def _is_log(one: "Distribution") -> bool:
    values = [v for v in one.grid or () if isinstance(v, int | float)]
    is_wide = len(values) > 2 and min(values) > 0 and max(values) / min(values) >= _WIDE
    return "log" in one.distribution or is_wide

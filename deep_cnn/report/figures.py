"""Draw the figures of a paper: each as SVG, as PNG, and as the CSV behind it."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deep_cnn.errors import DataError
from deep_cnn.files import safe_name, to_csv, unwritable, write_text, write_whole
from deep_cnn.report.leaderboard import parameters
from deep_cnn.report.paired import read_predictions
from deep_cnn.report.plots import (
    draw_confusion,
    draw_learning_curves,
    draw_parameter,
    draw_predictions,
    draw_repeats,
    draw_runs,
    draw_steps,
    window,
)
from deep_cnn.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

# The width of a column of a journal in inches, and a size of letters that can be read there.
_WIDTH, _HEIGHT = 3.35, 2.6
_STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.2,
    "lines.markersize": 3, "svg.hashsalt": "deep_cnn",
    "savefig.dpi": 300, "figure.constrained_layout.use": True,
}  # fmt: skip
# Up to so many runs have figures of their own; of more, the best one.
_FEW = 4
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure: its name, the numbers behind it, and the function that draws them."""

    name: str
    table: "DataFrame"
    draw: "Callable[[Axes, DataFrame], None]"
    height: float = _HEIGHT


def write_figures(ranked: Sequence[Sequence[Run]], folder: Path) -> list[str]:
    """Write all figures of the runs to a folder; return their names.

    Args:
        ranked: Runs by metric, best first.
        folder: The folder; figures of several metrics are in sub-folders of it.

    Raises:
        OutputError: The folder cannot be written.
    """
    names = []
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # It warns of a missing home.
    for group in ranked:
        metric, loss = group[0].scale
        own = safe_name(f"{metric}_{loss}".strip("_").replace(" ", "_")) if len(ranked) > 1 else ""
        for drawing in _drawings(group):
            _write(drawing, folder / own)
            names.append(f"{own}/{drawing.name}".strip("/"))
    return names


def _write(drawing: Drawing, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, "--figures") from error
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of letters that the font lacks.
        figure = Figure(figsize=(_WIDTH, drawing.height))
        drawing.draw(figure.add_subplot(), drawing.table)
        for suffix, metadata in (("svg", {"Date": None}), ("png", {})):

            def save(path: Path, suffix: str = suffix, metadata: Any = metadata) -> None:
                figure.savefig(path, format=suffix, metadata=metadata)

            write_whole(folder / f"{drawing.name}.{suffix}", save, "--figures")
    write_text(folder / f"{drawing.name}.csv", to_csv(drawing.table.astype(object)))


def _drawings(runs: Sequence[Run]) -> Iterator[Drawing]:
    """Yield the figures of runs with one metric, best first."""
    for run in runs if len(runs) <= _FEW else runs[:1]:
        yield from _of_training(run)
    for run in [run for run in runs if run.result.valid_test][:_FEW]:
        yield from _of_test(run)
    metric = runs[0].scale[0]
    if len(runs) > 1 and (curves := _curves(runs, metric)) is not None:
        yield Drawing(f"{metric}_of_all_runs", curves, partial(draw_runs, metric=metric))
    values = [run.result.best.value if run.result.best else math.nan for run in runs]
    for name, is_log in parameters(runs).items() if len(runs) > 1 else ():
        table = pd.DataFrame(
            {
                "run_name": [run.result.run_name for run in runs],
                name: [run.result.config.get(name) for run in runs],
                f"best_{metric}": values,
            }
        ).dropna()
        if table[name].map(repr).nunique() > 1:
            draw = partial(draw_parameter, is_log=is_log)
            yield Drawing(f"{metric}_against_{safe_name(name)}", table, draw)
    for folder in dict.fromkeys(run.sweep_folder for run in runs if run.sweep_folder):
        if (repeats := _repeats(folder)) is not None:
            yield Drawing(f"repeats_{folder.name}", repeats, partial(draw_repeats, metric=metric))


def _of_training(run: Run) -> Iterator[Drawing]:
    stem, result = run.files.name, run.result
    table = _read(run.files.table)
    metric = run.scale[0].rpartition("_")[0]
    columns = [f"{metric}_{split}" for split in ("train", "val")]
    if table is not None and {"epoch", *columns[:1]} <= set(table):
        curves = table[["epoch", *[name for name in columns if name in table]]]
        best = result.best.epoch if result.best else None
        yield Drawing(f"learning_curves_{stem}", curves, partial(draw_learning_curves, best=best))
    steps = _read(run.files.steps("train"))
    if steps is not None and {"step", "loss"} <= set(steps):
        smooth = steps["loss"].rolling(window(len(steps)), center=True, min_periods=1).median()
        yield Drawing(f"step_loss_{stem}", steps.assign(median=smooth), draw_steps)


def _of_test(run: Run) -> Iterator[Drawing]:
    stem = run.files.name
    try:
        predictions = read_predictions(run.path, run.result).reset_index()
    except DataError:
        return
    if predictions.empty:
        return
    if pd.api.types.is_numeric_dtype(predictions["truth"]):
        yield Drawing(f"predictions_{stem}", predictions, draw_predictions, _WIDTH)
    else:
        # All classes in their order; a class may be missing in the predictions.
        counts = _read(run.files.confusion)
        if counts is not None and list(counts.columns[1:]) == list(counts["truth"].map(str)):
            yield Drawing(f"confusion_{stem}", counts, draw_confusion, _WIDTH)


def _read(path: Path) -> "DataFrame | None":
    """Return the table in a file, or None if it is missing, empty or damaged."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return None
    return None if table.empty else table


def _curves(runs: Sequence[Run], metric: str) -> "DataFrame | None":
    """Return a metric by epoch, with a column for each run, best first."""
    columns = {}
    for run in runs:
        table = _read(run.files.table)
        if table is not None and {"epoch", metric} <= set(table):
            columns[run.result.run_name] = table.drop_duplicates("epoch").set_index("epoch")[metric]
    return pd.DataFrame(columns).reset_index() if columns else None


def _repeats(folder: Path) -> "DataFrame | None":
    """Return the values of the repeats of a sweep, with the mean of each trial and its interval.

    The interval is the 95 % percentile bootstrap interval of the mean over the seeds.
    """
    table = _read(folder / "repeats.csv")
    if table is None or not {"trial", "seed", "value"} <= set(table):
        return None
    table = table.dropna(subset=["value"])
    random = np.random.default_rng(0)
    for trial, values in table.groupby("trial")["value"]:
        numbers = values.to_numpy()
        draws = random.choice(numbers, (_RESAMPLES, len(numbers))).mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975]) if len(numbers) > 1 else (math.nan,) * 2
        rows = table["trial"] == trial
        table.loc[rows, ["mean", "low", "high"]] = numbers.mean(), low, high
    return table if len(table) else None

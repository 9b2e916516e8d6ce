"""Draw tables of numbers on matplotlib's axes, readable without colours."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from deep_cnn.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

# Lines also differ in their dashes and markers, so that they can be distinguished without colours.
_LINES = (
    {"color": "black", "linestyle": "-", "marker": "o"},
    {"color": "0.45", "linestyle": "--", "marker": "s"},
    {"color": "0.25", "linestyle": ":", "marker": "^"},
    {"color": "0.6", "linestyle": "-.", "marker": "v"},
)
_GREY = "0.75"
_MOST_CURVES = 4
_MOST_TICKS, _LONGEST_TICK = 6, 6
# A logarithmic axis shows values better if the largest is this many times the smallest.
_WIDE = 30.0
_MOST_CLASSES_WITH_NUMBERS = 12
_MOST_LABELS, _MOST_OF_CLASS = 40, 18


def window(count: int) -> int:
    """Return over how many steps the running median of the losses of `count` steps goes."""
    return max(1, count // 50)


def _style(number: int) -> dict[str, Any]:
    return dict(_LINES[number % len(_LINES)])


def _label(text: object, longest: int = _MOST_LABELS) -> str:
    text = printable(text)
    short = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return short.replace("$", r"\$")  # Otherwise it begins a formula.


def _every(count: int) -> int:
    """Return how many points lie between two markers, so that a line shows about ten."""
    return max(1, count // 10)


def _whole_ticks(axes: "Axes") -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def draw_learning_curves(axes: "Axes", table: "DataFrame", best: int | None) -> None:
    """Draw a metric of training and validation by epoch, and mark the best epoch."""
    for i, name in enumerate(reversed(table.columns[1:])):
        axes.plot(
            table["epoch"], table[name], label=name, markevery=_every(len(table)), **_style(i)
        )
    if best is not None:
        axes.axvline(best, color=_GREY, linewidth=0.8, zorder=0, label="best epoch")
    axes.set(xlabel="epoch", ylabel=str(table.columns[1]).rpartition("_")[0])
    _whole_ticks(axes)
    axes.legend()


def draw_steps(axes: "Axes", table: "DataFrame") -> None:
    """Draw the loss of each training step, and a running median."""
    is_long = window(len(table)) > 1
    style = {"color": _GREY, "linewidth": 0.6} if is_long else {"color": "black"}
    axes.plot(table["step"], table["loss"], label="loss", **style)
    if is_long:
        axes.plot(table["step"], table["median"], color="black", label="running median")
        axes.legend()
    axes.set(xlabel="step", ylabel="training loss")
    _whole_ticks(axes)


def draw_runs(axes: "Axes", table: "DataFrame", metric: str) -> None:
    """Draw a metric by epoch for all runs, the best ones in front."""
    names = list(table.columns[1:])
    for name in reversed(names[_MOST_CURVES:]):
        axes.plot(table["epoch"], table[name], color="0.85", linewidth=0.6)
    for i, name in reversed(list(enumerate(names[:_MOST_CURVES]))):
        style = {**_style(i), "markevery": _every(len(table))}
        axes.plot(table["epoch"], table[name], label=_label(name), **style)
    axes.set(xlabel="epoch", ylabel=metric)
    values = table[names].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > _WIDE:
        axes.set_yscale("log")
    _whole_ticks(axes)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1])


def draw_predictions(axes: "Axes", table: "DataFrame") -> None:
    """Draw the predicted score against the true one for each test picture."""
    both = table[["truth", "prediction"]].to_numpy(dtype=float)
    finite = both[np.isfinite(both).all(axis=1)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    axes.plot([low, high], [low, high], color=_GREY, linewidth=0.8, zorder=0)
    alpha = min(1.0, max(0.1, 300 / max(len(finite), 1)))
    axes.scatter(finite[:, 0], finite[:, 1], s=6, color="black", alpha=alpha, linewidths=0)
    axes.set(xlabel="truth", ylabel="prediction", aspect="equal")


def draw_confusion(axes: "Axes", table: "DataFrame") -> None:
    """Draw a confusion matrix; shades are shares of the true class."""
    counts = table.drop(columns="truth").to_numpy(dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    if len(counts) <= _MOST_CLASSES_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=color, size=6)
    if len(counts) <= _MOST_LABELS:
        size = 7 if len(counts) <= _MOST_CLASSES_WITH_NUMBERS else 4
        labels = [_label(name, _MOST_OF_CLASS) for name in table["truth"]]
        axes.set_xticks(range(len(counts)), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(len(counts)), labels, fontsize=size)
    axes.set(xlabel="prediction", ylabel="truth")
    for spine in axes.spines.values():
        spine.set_visible(True)


def draw_parameter(axes: "Axes", table: "DataFrame", *, is_log: bool) -> None:
    """Draw the best value of each run against one parameter."""
    name, best = table.columns[1:]
    values = list(table[name])
    is_number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if is_number:
        axes.scatter([float(v) for v in values], table[best], s=8, color="black", alpha=0.7)
        if is_log and min(values) > 0:
            axes.set_xscale("log")
        ticks = {value: f"{value:g}" for value in sorted(set(values))}
        if len(ticks) <= _MOST_TICKS and max(map(len, ticks.values())) <= _LONGEST_TICK:
            axes.set_xticks(list(ticks), list(ticks.values()))  # The values of a list.
            axes.minorticks_off()
    else:
        texts = list(map(str, values))
        places = {text: i for i, text in enumerate(sorted(set(texts)))}
        middle = table.groupby(table[name].map(str))[best].median()
        axes.scatter([places[t] for t in texts], table[best], s=8, color="black", alpha=0.7)
        marks = [middle[text] for text in places]
        axes.scatter(list(places.values()), marks, s=120, marker="_", color="0.4")
        axes.set_xticks(list(places.values()), [_label(text) for text in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.tick_params(axis="x", labelrotation=30 if len(places) > 3 else 0)
    axes.set(xlabel=_label(name), ylabel=best)


def draw_repeats(axes: "Axes", table: "DataFrame", metric: str) -> None:
    """Draw the values of each repeated configuration, and their mean with its interval."""
    order = table.groupby("trial", sort=False)["mean"].first()
    for i, (trial, mean) in enumerate(order.items()):
        rows = table[table["trial"] == trial]
        axes.scatter([i] * len(rows), rows["value"], s=8, facecolors="none", edgecolors="0.5")
        low, high = rows["low"].iloc[0], rows["high"].iloc[0]
        if math.isfinite(low):
            error = [[mean - low], [high - mean]]
            axes.errorbar(i + 0.15, mean, error, color="black", marker="o", capsize=2)
    axes.set_xticks(range(len(order)), [f"trial {trial}" for trial in order.index])
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set(ylabel=metric)

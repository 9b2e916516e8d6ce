"""Rank runs and print them as tables."""

import json
import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deep_cnn.config import all_options
from deep_cnn.errors import ConfigError, choose_from
from deep_cnn.files import to_csv
from deep_cnn.report.runs import Run, searched_in
from deep_cnn.results import Metric, RunResult
from deep_cnn.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

# The number of rows that fit on a screen.
_MOST_ROWS = 20
_MOST_OPTIONS = 6
_MOST_TEST_METRICS = 2
_WIDEST_CELL = 44
_GAP = "  "


def leaderboard(runs: Sequence[Run]) -> "DataFrame":
    """Return a row for each run, with the columns of all runs; missing values are None."""
    import pandas as pd

    rows = [run.row() for run in runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in columns] for row in rows]
    return pd.DataFrame(cells, columns=columns, dtype=object)


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs in groups that have the same metric, of the same kind of loss.

    A run that failed before it had a metric, or whose loss is not known, is in the first group
    that may be its own.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.result.best is None, not run.scale[1])):
        metric, loss = run.scale
        near = [k for k in groups if run.result.best is None or k[0] == metric]
        near = [k for k in near if not loss or k[1] == loss] or near[: run.result.best is None]
        groups.setdefault(near[0] if near else (metric, loss), []).append(run)
    order = {id(run): i for i, run in enumerate(runs)}
    return [sorted(group, key=lambda run: order[id(run)]) for group in groups.values()]


def rank(runs: Sequence[Run], column: str) -> list[Run]:
    """Return the runs, best first: numbers by their metric, then texts, then missing values.

    Equal runs keep their order. Numbers that are not finite count as missing. `column` is one of
    `leaderboard`.
    """
    name = next((run.scale[0] for run in runs if run.result.best), "loss_val")
    sign = Metric.named(name if column == "best" else column).sign

    def key(run: Run) -> tuple[int, float, str]:
        value = run.row().get(column)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return (2, 0.0, "") if value is None else (1, 0.0, str(value))
        # Only floats are asked, because a whole number may be too large for one.
        is_missing = isinstance(value, float) and not math.isfinite(value)
        return (2, 0.0, "") if is_missing else (0, -value if sign < 0 else value, "")

    return sorted(runs, key=key)


def varied(results: Sequence[RunResult]) -> list[str]:
    """Return the options that differ, without those that only set folders and names."""
    ignored = {name for name, one in all_options().items() if not one.affects_result}
    names = dict.fromkeys(name for result in results for name in result.config)
    return [
        name
        for name in names
        if name not in ignored and len({repr(r.config.get(name)) for r in results}) > 1
    ]


def parameters(runs: Sequence[Run]) -> dict[str, bool]:
    """Return the parameters that the sweeps of the runs search, then other options that differ.

    The value says whether an axis of the parameter is logarithmic.
    """
    found: dict[str, bool] = {}
    for folder in dict.fromkeys(run.sweep_folder for run in runs if run.sweep_folder):
        found |= searched_in(folder)
    others = {name: False for name in varied([run.result for run in runs]) if name not in found}
    return {**found, **dict(list(others.items())[: max(0, _MOST_OPTIONS - len(found))])}


def print_leaderboards(
    runs: Sequence[Run], sort: str, top: int | None, form: str
) -> list[list[Run]]:
    """Print the runs, best first, in one table for each metric; return them in this order.

    Args:
        runs: The runs.
        sort: The column to sort by, as in the CSV, or by its title on the screen.
        top: The number of runs to print of each table; None: 20, or all as CSV or JSON.
        form: table, csv or json.

    Raises:
        ConfigError: There is no such column.
    """
    groups = group_runs(runs)
    titles = [_titles(group) for group in groups]
    name = sort.replace("-", "_")
    columns = {title: name for one in titles for name, title in one.items()}
    column, whole = columns.get(name, name), leaderboard(runs)
    if column not in whole:
        raise ConfigError(f"--sort={sort} is no column; {choose_from(name, whole.columns)}")
    ranked = [rank(group, column) for group in groups]
    if form == "table":
        for i, (group, title) in enumerate(zip(ranked, titles, strict=True)):
            if len(groups) > 1:
                name = " of ".join(filter(None, groups[i][0].scale))
                print(f"{name}:" if i == 0 else f"\n{name}:")
            _print_group(group, column, title, top or _MOST_ROWS)
        return ranked
    shown = [run for group in ranked for run in group[: top or len(runs)]]
    if form == "json":
        print(json.dumps([json.loads(run.result.to_json()) for run in shown], indent=2))
    else:
        print(csv_of(leaderboard(shown)), end="")
    return ranked


def _titles(runs: Sequence[Run]) -> dict[str, str]:
    """Return W&B's names for the columns of the best epoch; other metrics are of the last one."""
    return {"best": f"best_{runs[0].scale[0]}", "epoch": "best_epoch"}


def _print_group(runs: Sequence[Run], column: str, titles: dict[str, str], top: int) -> None:
    shown = runs[:top]
    table = leaderboard(shown)
    tests = [name for name in table if name.endswith("_test")][:_MOST_TEST_METRICS]
    # A second look at the test split is marked.
    tests += ["test_looks"] if max(run.result.looks for run in shown) > 1 else []
    first = ["run_name", "state", "best", "epoch", column]
    columns = dict.fromkeys((*first, *parameters(runs), *tests, "seconds"))
    table = table[[name for name in columns if name in table]].rename(columns=titles)
    fitting, left_out = _fitting(table)
    print_table(fitting)
    if left_out:
        print(f"too wide for this terminal: {', '.join(left_out)}; --csv has all columns")
    if len(runs) > len(shown):
        print(f"and {len(runs) - len(shown)} more; --top={len(runs)} lists them all")


def _fitting(table: "DataFrame") -> tuple["DataFrame", list[str]]:
    """Return the columns that fit on the terminal, and the names of the others.

    Whatever is not a terminal is as wide as it needs to be.
    """
    if not sys.stdout.isatty():
        return table, []
    room = shutil.get_terminal_size().columns
    kept: list[str] = []
    # The state is least missed, because a run without a value did not finish.
    by_worth = sorted(
        table.columns, key=lambda name: (name in ("state", "seconds"), name != "run_name")
    )
    for name in by_worth:
        room -= max(map(len, _cells(table, name))) + len(_GAP)
        if room + len(_GAP) >= 0 or not kept:
            kept.append(name)
    return table[[n for n in table if n in kept]], [n for n in table if n not in kept]


def csv_of(table: "DataFrame") -> str:
    """Return a table as CSV, with the escapes of `printable` in its texts."""
    table = table.map(lambda value: "" if value is None else printable(value))
    return to_csv(table.rename(columns=printable))


def print_table(table: "DataFrame") -> None:
    """Print a table with aligned columns."""
    columns = [_cells(table, name) for name in table.columns]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(_GAP.join(cells).rstrip())


def _cells(table: "DataFrame", name: str) -> list[str]:
    """Return a column as text, with its title; names of runs are whole, so they can be copied."""
    widest = None if name == "run_name" else _WIDEST_CELL
    return [printable(name), *(_cell(value, widest) for value in table[name])]


def _cell(value: Any, widest: int | None) -> str:
    if value is None:
        return ""
    text = f"{value:.5g}" if isinstance(value, float) else printable(value)
    return text if widest is None or len(text) <= widest else f"{text[: widest - 3]}..."

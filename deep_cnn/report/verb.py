"""Run the verb report: a leaderboard of runs, or a comparison of two runs."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_cnn.argv import parse_verb
from deep_cnn.config import all_options
from deep_cnn.errors import ConfigError, DataError, choose_from
from deep_cnn.files import RunFiles, read_text, to_csv
from deep_cnn.options import OptionModel, option
from deep_cnn.report.paired import compare_predictions, format_comparison, read_predictions
from deep_cnn.results import Metric, RunResult, replace_nonfinite
from deep_cnn.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

# The number of rows that fit on a screen.
_MOST_ROWS = 20
_MOST_FLAGS = 6
_MOST_TEST_METRICS = 2
_WIDEST_CELL = 44


class ReportOptions(OptionModel):
    """Options of the verb report."""

    sort: str = option("best", "column to sort by; best: the loss_val of the best epoch")
    top: int | None = option(
        None, "number of runs to print; None: 20, or all with --csv or --json", low=1
    )
    csv: bool = option(False, "print all columns as CSV")
    as_json: bool = option(False, "print all results as JSON", alias="json")


OPTIONS: Mapping[str, type[OptionModel]] = {"report": ReportOptions}


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended, and its result file."""

    path: Path
    result: RunResult

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


def report(argv: list[str]) -> int:
    """Print a leaderboard of the runs in PATH ..., by default in outputs, or compare two runs."""
    options, paths = parse_verb(ReportOptions, argv)
    if options.csv and options.as_json:
        raise ConfigError("--csv and --json are two formats; give one of them")
    single = [_one_run(path) for path in paths]
    if len(paths) == 2 and all(single):
        first, second = (_read(path) for path in single if path)
        _print_comparison(first, second, options)
        return 0
    runs = [run for path in paths or ["outputs"] for run in _runs(path)]
    runs = list({run.path.resolve(): run for run in runs}.values())
    if not runs:
        raise DataError(f"no run is over in {', '.join(paths) or 'outputs'}; name other folders")
    _print_leaderboard(runs, options)
    return 0


def _one_run(text: str) -> Path | None:
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


def _runs(text: str) -> list[Run]:
    """Return the run that `text` names, or all runs of a folder; raise DataError."""
    one = _one_run(text)
    if one:
        return [_read(one)]
    folder = Path(text)
    if not os.path.isdir(folder):  # noqa: PTH112
        raise DataError(f"{text} is no folder, no result and no run in outputs; name one")
    results = folder / "results"
    runs = []
    if results.is_dir():
        # A trial that is interrupted has its files in the sweep's folder.
        paths = [*results.glob("*.json"), *folder.glob("sweeps/*/work/*/*.json")]
    else:
        paths = list(folder.rglob("*.json"))
    for path in sorted(paths):
        if path.name.endswith((".args.json", ".upload.json")):
            continue
        try:
            runs.append(_read(path))
        except DataError as error:
            # In other folders, JSON files that are not results are normal.
            if path.parent.name == "results":
                print(f"left out: {error}", file=sys.stderr)
    return runs


def _read(path: Path) -> Run:
    try:
        return Run(path, RunResult.from_json(read_text(path)))
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise DataError(f"{path} is no result of a run ({text}); leave it out") from None


def leaderboard(runs: Sequence[Run]) -> "DataFrame":
    """Return a row for each run, with the columns of all runs; missing values are None."""
    import pandas as pd

    rows = [run.row() for run in runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in columns] for row in rows]
    return pd.DataFrame(cells, columns=columns, dtype=object)


def sort_leaderboard(table: "DataFrame", column: str) -> "DataFrame":
    """Return the rows, best first: numbers by their metric, then texts, then missing values.

    Equal rows keep their order. Numbers that are not finite count as missing.
    """
    metrics = table["metric"].dropna().tolist() if column == "best" else [column]
    sign = Metric.named(metrics[0] if metrics else "loss_val").sign

    def key(value: Any) -> tuple[int, float, str]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return (2, 0.0, "") if value is None else (1, 0.0, str(value))
        # Only floats are asked, because a whole number may be too large for one.
        is_missing = isinstance(value, float) and not math.isfinite(value)
        return (2, 0.0, "") if is_missing else (0, -value if sign < 0 else value, "")

    # Sort by tuples instead of columns, because a whole number may be too large for a column.
    return table.sort_values(column, key=lambda cells: cells.map(key), kind="stable")


def _titles(table: "DataFrame") -> dict[str, str]:
    """Return W&B's names for the columns of the best epoch; other metrics are of the last one."""
    metrics = table["metric"].dropna().unique()
    one = {"best": f"best_{metrics[0]}"} if len(metrics) == 1 else {}
    return {**one, "epoch": "best_epoch"}


def _print_leaderboard(runs: Sequence[Run], options: ReportOptions) -> None:
    table = leaderboard(runs)
    titles = _titles(table)
    # --sort names a column as in the CSV, or by its title on the screen.
    name = options.sort.replace("-", "_")
    column = {title: name for name, title in titles.items()}.get(name, name)
    if column not in table:
        raise ConfigError(f"--sort={options.sort} is no column; {choose_from(name, table.columns)}")
    table = sort_leaderboard(table, column)
    ranked = [runs[i] for i in table.index]
    # CSV and JSON contain all runs, the screen only some.
    whole = options.csv or options.as_json
    top = ranked[: options.top or (len(runs) if whole else _MOST_ROWS)]
    if options.as_json:
        print(json.dumps([json.loads(run.result.to_json()) for run in top], indent=2))
    elif options.csv:
        print(_csv(leaderboard(top)), end="")
    else:
        tests = [name for name in leaderboard(top) if name.endswith("_test")][:_MOST_TEST_METRICS]
        # A second look at the test split is marked.
        tests += ["test_looks"] if max(run.result.looks for run in top) > 1 else []
        varied = _varied([run.result for run in ranked])[:_MOST_FLAGS]
        columns = ["run_name", "state", *([] if "best" in titles else ["metric"]), "best", "epoch"]
        sort = [] if column in (*columns, *tests, *varied, "seconds") else [column]
        columns += [*sort, *tests, *varied, "seconds"]
        columns = list(dict.fromkeys(columns))
        _print_table(table[columns].rename(columns=titles).head(len(top)))
        if len(runs) > len(top):
            print(f"and {len(runs) - len(top)} more; --top={len(runs)} lists them all")


def _varied(results: Sequence[RunResult]) -> list[str]:
    """Return the options that differ, without those that only set folders and names."""
    ignored = {name for name, one in all_options().items() if not one.affects_result}
    names = dict.fromkeys(name for result in results for name in result.config)
    return [
        name
        for name in names
        if name not in ignored and len({repr(r.config.get(name)) for r in results}) > 1
    ]


def _print_comparison(first: Run, second: Run, options: ReportOptions) -> None:
    both = (first.result, second.result)
    # A and B as rows, and then as columns.
    table = leaderboard([first, second]).T
    config = _varied(both)
    metrics = [name for r in both for name in (*r.metrics, *(r.test or {}))]
    results = list(dict.fromkeys(("state", "metric", "best", "epoch", "seconds", *metrics)))
    tables = [read_predictions(run.path, run.result) for run in (first, second)]
    compared = compare_predictions(both, tables)
    if options.as_json:
        content = {
            "a": first.result.run_name,
            "b": second.result.run_name,
            "config": {name: table.loc[name].tolist() for name in config},
            "results": {name: table.loc[name].tolist() for name in results},
            "paired": asdict(compared),
        }
        print(json.dumps(replace_nonfinite(content), indent=2))
        return
    table = table.loc[list(dict.fromkeys((*config, *results)))].set_axis(["A", "B"], axis=1)
    if options.csv:
        print(_csv(table.set_axis(["a", "b"], axis=1).reset_index(names="name")), end="")
        return
    print(f"A: {printable(first.result.run_name)}\nB: {printable(second.result.run_name)}\n")
    table["B - A"] = [_difference(a, b) for a, b in zip(table["A"], table["B"], strict=True)]
    _print_table(table.reset_index(names=""))
    print(f"\n{format_comparison(compared)}")


def _difference(a: Any, b: Any) -> str:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    try:
        return f"{b - a:+.4g}" if numbers else ""
    except OverflowError:  # A whole number that is too large for a float.
        return ""


def _csv(table: "DataFrame") -> str:
    """Return a table as CSV, with the escapes of `printable` in its texts."""
    table = table.map(lambda value: "" if value is None else printable(value))
    return to_csv(table.rename(columns=printable))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.5g}" if isinstance(value, float) else printable(value)
    return text if len(text) <= _WIDEST_CELL else f"{text[: _WIDEST_CELL - 3]}..."


def _print_table(table: "DataFrame") -> None:
    rows = [[_cell(column) for column in table.columns], *table.map(_cell).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())

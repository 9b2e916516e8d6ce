"""Run the verb report: a leaderboard of runs, or a comparison of two runs."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deep_cnn.argv import parse_verb
from deep_cnn.errors import ConfigError, DataError
from deep_cnn.options import OptionModel, option
from deep_cnn.report.leaderboard import (
    csv_of,
    group_runs,
    leaderboard,
    print_leaderboards,
    print_table,
    varied,
)
from deep_cnn.report.paired import compare_predictions, format_comparison, read_predictions
from deep_cnn.report.runs import Run, find_runs, one_run, read_run
from deep_cnn.results import replace_nonfinite
from deep_cnn.text import printable


class ReportOptions(OptionModel):
    """Options of the verb report."""

    sort: str = option("best", "column to sort by; best: the loss_val of the best epoch")
    top: int | None = option(
        None, "number of runs to print; None: 20, or all with --csv or --json", low=1
    )
    csv: bool = option(False, "print all columns as CSV")
    as_json: bool = option(False, "print all results as JSON", alias="json")
    figures: str | None = option(None, "write figures as SVG, PNG and CSV to this folder")


OPTIONS: Mapping[str, type[OptionModel]] = {"report": ReportOptions}


def report(argv: list[str]) -> int:
    """Print a leaderboard of the runs in PATH ..., by default in outputs, or compare two runs."""
    options, paths = parse_verb(ReportOptions, argv)
    if options.csv and options.as_json:
        raise ConfigError("--csv and --json are two formats; give one of them")
    single = [one_run(path) for path in paths]
    if len(paths) == 2 and all(single):
        first, second = (read_run(path) for path in single if path)
        _print_comparison(first, second, options)
        _write_figures(options, group_runs([first, second]))
        return 0
    runs = [run for path in paths or ["outputs"] for run in find_runs(path)]
    runs = list({run.path.resolve(): run for run in runs}.values())
    if not runs:
        raise DataError(f"no run is over in {', '.join(paths) or 'outputs'}; name other folders")
    form = "json" if options.as_json else "csv" if options.csv else "table"
    _write_figures(options, print_leaderboards(runs, options.sort, options.top, form))
    return 0


def _write_figures(options: ReportOptions, ranked: list[list[Run]]) -> None:
    if options.figures is None:
        return
    from deep_cnn.report.figures import write_figures  # matplotlib takes a while.

    names = write_figures(ranked, Path(options.figures).expanduser())
    if not names:
        print("no figure: the runs have no epoch, no prediction and no parameter", file=sys.stderr)
        return
    count = f"{len(names)} figure{'s' if len(names) > 1 else ''}"
    text = f"{count} in {options.figures}, each as SVG, PNG and CSV"
    print(f"{text}: {', '.join(names)}", file=sys.stderr)


def _print_comparison(first: Run, second: Run, options: ReportOptions) -> None:
    both = (first.result, second.result)
    # A and B as rows, and then as columns.
    table = leaderboard([first, second]).T
    config = varied(both)
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
        print(csv_of(table.set_axis(["a", "b"], axis=1).reset_index(names="name")), end="")
        return
    print(f"A: {printable(first.result.run_name)}\nB: {printable(second.result.run_name)}\n")
    table["B - A"] = [_difference(a, b) for a, b in zip(table["A"], table["B"], strict=True)]
    print_table(table.reset_index(names=""))
    print(f"\n{format_comparison(compared)}")


def _difference(a: Any, b: Any) -> str:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    try:
        return f"{b - a:+.4g}" if numbers else ""
    except OverflowError:  # A whole number that is too large for a float.
        return ""

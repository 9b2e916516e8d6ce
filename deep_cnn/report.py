"""The verb report: a leaderboard of runs, or two of them side by side."""

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_cnn.argv import parse_verb
from deep_cnn.config import all_options
from deep_cnn.errors import ConfigError, DataError, choose_from
from deep_cnn.options import OptionModel, Switch, Text, WholeNumber, option
from deep_cnn.pairs import paired, predictions, told
from deep_cnn.runs import Metric, RunFiles, RunResult


class ReportOptions(OptionModel):
    """Options of the verb report."""

    sort: Text = option("best", "column to sort by")
    top: WholeNumber | None = option(None, "how many runs, else 20, or all as CSV or JSON", low=1)
    csv: Switch = option(False, "every column as CSV")
    as_json: Switch = option(False, "everything as JSON", alias="json")


OPTIONS: Mapping[str, type[OptionModel]] = {"report": ReportOptions}
_SHOWN = 20
_WIDEST = 44
_FLAGS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over, and the file that says so."""

    path: Path
    result: RunResult

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.result.run_name

    def row(self) -> dict[str, Any]:
        """Every column of the leaderboard."""
        result, best = self.result, self.result.best
        sweep = result.sweep or {}
        return {
            "run_name": self.name,
            "state": str(result.state),
            "metric": best.metric if best else None,
            "best": best.value if best else None,
            "epoch": best.epoch if best else None,
            "seconds": result.seconds,
            "sweep": sweep.get("name"),
            "trial": sweep.get("trial"),
            **result.metrics,
            **(result.test or {}),
            **{k: v for k, v in result.config.items() if k not in ("run_name", "epoch")},
        }


def report(argv: list[str]) -> int:
    """A leaderboard of the runs in PATH ... (outputs), or of two runs A B what differs."""
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
    column = _sort_column(options.sort, runs)
    _print_leaderboard(_sorted(runs, column), column, options)
    return 0


def _one_run(text: str) -> Path | None:
    """The result of the one run that `text` names: a file of it, or its name in outputs."""
    path = Path(text)
    if path.suffix == ".json" and path.is_file():
        return path
    if path.suffix == ".pt" and path.parent.name == "models":
        stem = path.name.removesuffix(".pt").removesuffix(".best")
        found = RunFiles(path.parent.parent, stem).result
        return found if found.is_file() else None
    named = RunFiles(Path("outputs"), text).result
    return named if "/" not in text and not path.is_dir() and named.is_file() else None


def _runs(text: str) -> list[Run]:
    one = _one_run(text)
    if one:
        return [_read(one)]
    folder = Path(text)
    if not folder.is_dir():
        raise DataError(f"{text} is no folder, no result and no run in outputs; name one")
    places = folder / "results"
    found = []
    for path in sorted(places.glob("*.json") if places.is_dir() else folder.rglob("*.json")):
        if path.name.endswith(".args.json"):
            continue
        try:
            found.append(_read(path))
        except DataError as error:
            if _looks_like_ours(path):
                print(f"left out: {error}", file=sys.stderr)
    return found


def _looks_like_ours(path: Path) -> bool:
    """Only what lies where results lie is worth a word when it cannot be read."""
    return path.parent.name == "results"


def _read(path: Path) -> Run:
    try:
        return Run(path, RunResult.from_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        text = " ".join(str(error).split())
        raise DataError(f"{path} is no result of a run ({text}); leave it out") from None


def _sort_column(text: str, runs: Sequence[Run]) -> str:
    """The column of `Run.row` that --sort names, as there or in the titles of the table."""
    column = text.replace("-", "_")
    columns = {name for run in runs for name in run.row()}
    titles = {title: name for name, title in _titles(runs).items()}
    found = titles.get(column, column)
    if found not in columns:
        raise ConfigError(f"--sort={text} is no column; {choose_from(column, columns)}")
    return found


def _titles(runs: Sequence[Run]) -> dict[str, str]:
    """W&B's names of what is the best epoch's, beside metrics that are the last epoch's."""
    metrics = {run.result.best.metric for run in runs if run.result.best}
    one = {"best": f"best_{metrics.pop()}"} if len(metrics) == 1 else {}
    return {**one, "epoch": "best_epoch"}


def _sorted(runs: Sequence[Run], column: str) -> list[Run]:
    metric = column
    if column == "best":
        metric = next((run.result.best.metric for run in runs if run.result.best), "loss_val")
    sign = Metric.named(metric).sign

    def key(run: Run) -> tuple[int, float, str]:
        value = run.row().get(column)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return (2, 0.0, "") if value is None else (1, 0.0, str(value))
        return (0, sign * value, "") if math.isfinite(value) else (2, 0.0, "")

    return sorted(runs, key=key)


def _print_leaderboard(runs: Sequence[Run], column: str, options: ReportOptions) -> None:
    whole = options.csv or options.as_json
    top = options.top or (len(runs) if whole else _SHOWN)
    shown = runs[:top]
    if options.as_json:
        print(json.dumps([json.loads(run.result.to_json()) for run in shown], indent=2))
        return
    rows = [run.row() for run in shown]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if options.csv:
        _print_csv(columns, [[row.get(name) for name in columns] for row in rows])
        return
    varied = _varied([run.result for run in runs])[:_FLAGS_SHOWN]
    tests = [name for name in columns if name.endswith("_test")][:2]
    titles = _titles(runs)
    head = ["run_name", "state", *([] if "best" in titles else ["metric"]), "best", "epoch"]
    if column not in (*head, *varied, *tests, "seconds"):
        head.append(column)
    names = [*head, *tests, *varied, "seconds"]
    _print_table(
        [titles.get(name, name) for name in names],
        [[_cell(row.get(name)) for name in names] for row in rows],
    )
    if len(runs) > len(shown):
        print(f"and {len(runs) - len(shown)} more; --top={len(runs)} lists them all")


def _varied(results: Sequence[RunResult]) -> list[str]:
    """The flags that are not the same in all runs, without those that only say where things go."""
    known = all_options()
    names = dict.fromkeys(name for result in results for name in result.config)
    return [
        name
        for name in names
        if not (name in known and not known[name].affects_result)
        and len({repr(result.config.get(name)) for result in results}) > 1
    ]


def _print_comparison(first: Run, second: Run, options: ReportOptions) -> None:
    one, two = first.row(), second.row()
    both = (first.result, second.result)
    config = {name: (one.get(name), two.get(name)) for name in _varied(both)}
    measured = ("state", "metric", "best", "epoch", "seconds")
    metrics = [name for r in both for name in (*r.metrics, *(r.test or {}))]
    results = {
        name: (one.get(name), two.get(name)) for name in dict.fromkeys((*measured, *metrics))
    }
    tables = [predictions(run.path, run.result) for run in (first, second)]
    compared = paired(both, tables)
    if options.as_json:
        found = {"a": first.name, "b": second.name, "config": config, "results": results}
        print(json.dumps(_finite({**found, "paired": compared}), indent=2))
        return
    rows = [(name, *pair) for name, pair in {**config, **results}.items()]
    if options.csv:
        _print_csv(["name", "a", "b"], rows)
        return
    print(f"A: {first.name}\nB: {second.name}\n")
    titles = ["", "A", "B", "B - A"]
    _print_table(titles, [[n, _cell(a), _cell(b), _difference(a, b)] for n, a, b in rows])
    print(f"\n{told(compared)}")


def _difference(a: Any, b: Any) -> str:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    return f"{b - a:+.4g}" if numbers else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)


def _finite(value: Any) -> Any:
    """JSON has no infinities: the interval of one picture alone."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

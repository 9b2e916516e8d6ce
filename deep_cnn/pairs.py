"""Whether two runs differ by more than chance, over the test pictures that both have predicted."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deep_cnn.errors import DataError
from deep_cnn.names import TASKS
from deep_cnn.runs import RunResult

# Truth and prediction by picture.
Predictions = Mapping[str, tuple[str, str]]


def paired(runs: Sequence[RunResult], tables: Sequence[Predictions]) -> dict[str, Any]:
    """The difference of the errors over the pictures that both have predicted, with its interval.

    For classes the error of a picture is 0 or 1. ConfigError never: what is missing is said.
    """
    missing = [run.run_name for run, table in zip(runs, tables, strict=True) if not table]
    if missing:
        return {"pictures": 0, "missing": missing}
    one, two = tables
    names = sorted(n for n in one.keys() & two.keys() if one[n][0] == two[n][0])
    if not names:
        return {"pictures": 0, "missing": []}
    task = str(runs[0].config.get("task"))
    scores = task in TASKS and "mae" in TASKS[task].metrics
    error = _absolute if scores else _wrong
    errors = [[error(*table[name]) for name in names] for table in (one, two)]
    differences = [b - a for a, b in zip(*errors, strict=True)]
    from deep_cnn.sweep.trust import bootstrap  # SciPy takes a while.

    interval = bootstrap(differences)
    return {
        "pictures": len(names),
        "error": "mean absolute error" if scores else "error rate",
        "a": math.fsum(errors[0]) / len(names),
        "b": math.fsum(errors[1]) / len(names),
        "difference": interval.mean,
        "interval": [interval.low, interval.high],
        "distinguishable": interval.distinguishable,
    }


def _absolute(truth: str, prediction: str) -> float:
    return abs(float(truth) - float(prediction))


def _wrong(truth: str, prediction: str) -> float:
    return float(truth != prediction)


def predictions(result: Path, run: RunResult) -> Predictions:
    """Truth and prediction by picture, from the one look at the test split.

    `result` is the file of the `run`. None of a run that went on after it: they are of a
    checkpoint that it has no more. DataError.
    """
    if run.test is None:
        return {}
    path = result.with_name(f"{result.name.removesuffix('.json')}.test.csv")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {r["image"]: (r["truth"], r["prediction"]) for r in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DataError(f"{path} holds no predictions ({error}); repeat --test_net") from None


def told(paired: Mapping[str, Any]) -> str:
    """What `paired` found, in a line or two."""
    if not paired["pictures"]:
        missing = " and ".join(paired["missing"])
        return (
            f"No predictions of {missing}: --test_net=CHECKPOINT makes them"
            if missing
            else "The two have no predicted picture in common."
        )
    low, high = paired["interval"]
    text = (
        f"Over {paired['pictures']} pictures of test, {paired['error']}: A {paired['a']:.4g},"
        f" B {paired['b']:.4g}; B - A {paired['difference']:+.4g}, 95 % interval {low:.4g} to"
        f" {high:.4g} (bootstrap over pictures)"
    )
    return text if paired["distinguishable"] else f"{text}\nA and B are not distinguishable."

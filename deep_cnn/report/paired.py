"""Compare two runs on the test pictures that both have predicted."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from deep_cnn.errors import DataError
from deep_cnn.files import read_text
from deep_cnn.names import TASKS
from deep_cnn.results import RunResult
from deep_cnn.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

# Scores beyond this limit are scaled down: their differences would be infinite.
_LARGE = 1e150


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The mean errors of two runs A and B over the same pictures, with their difference B - A."""

    pictures: int
    error: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    distinguishable: bool


@dataclass(frozen=True, slots=True)
class NoComparison:
    """Two runs without a common predicted picture; `missing` are those without predictions."""

    pictures: int = 0
    missing: tuple[str, ...] = ()


def compare_predictions(
    runs: Sequence[RunResult], tables: Sequence["DataFrame"]
) -> PairedComparison | NoComparison:
    """Compare the errors on the pictures that both runs have predicted, with an interval.

    For classes the error of a picture is 0 or 1. `tables` are from `read_predictions`.
    """
    missing = [run.run_name for run, table in zip(runs, tables, strict=True) if table.empty]
    both = tables[0].merge(tables[1], on="image", suffixes=("_a", "_b")).sort_index()
    both = both[both["truth_a"] == both["truth_b"]]
    if both.empty:
        return NoComparison(missing=tuple(missing))
    is_score = all(map(_has_scores, runs))
    # Differences of huge scores overflow.
    scale = max(1.0, float(both.abs().max(axis=None)) / _LARGE) if is_score else 1.0
    both = both / scale if scale > 1 else both
    truth, predictions = both["truth_a"], (both["prediction_a"], both["prediction_b"])
    errors = [(truth - p).abs() if is_score else (truth != p).astype(float) for p in predictions]
    from deep_cnn.sweep.repeats import bootstrap  # SciPy takes a while.

    interval = bootstrap((errors[1] - errors[0]).to_list())
    return PairedComparison(
        pictures=len(both),
        error="mean absolute error" if is_score else "error rate",
        a=scale * (math.fsum(errors[0]) / len(both)),
        b=scale * (math.fsum(errors[1]) / len(both)),
        difference=scale * interval.mean,
        interval=(scale * interval.low, scale * interval.high),
        distinguishable=interval.distinguishable,
    )


def read_predictions(result: Path, run: RunResult) -> "DataFrame":
    """Return truth and prediction by picture, from the run's test: scores, or classes as text.

    `result` is the file of the `run`. If the run has continued after the test, it has none, because
    the predictions are those of an old checkpoint. Raises DataError.
    """
    import pandas as pd

    columns, test = ["image", "truth", "prediction"], run.valid_test
    name = f"{result.name.removesuffix('.json')}.test.csv"
    path = result.with_name(Path(test.file).name if test and test.file else name)
    table = pd.DataFrame(columns=columns)
    try:
        if test is not None and os.path.exists(path):  # noqa: PTH110 - the name may be too long.
            text = StringIO(read_text(path))
            table = pd.read_csv(
                text, usecols=columns, dtype=object, na_filter=False, index_col=False
            )
        if _has_scores(run):
            table[columns[1:]] = table[columns[1:]].map(_finite)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} holds no predictions ({reason}); repeat --test_net") from None
    return table.drop_duplicates("image", keep="last").set_index("image")[columns[1:]]


def _has_scores(run: RunResult) -> bool:
    task = TASKS.get(str(run.config.get("task")))
    return task is not None and "mae" in task.metrics


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def format_comparison(comparison: PairedComparison | NoComparison) -> str:
    """Return a comparison as one or two lines of text."""
    if isinstance(comparison, NoComparison):
        if not comparison.missing:
            return "The two have no predicted picture in common."
        missing = " and ".join(map(printable, comparison.missing))
        return f"No predictions of {missing}: --test_net=CHECKPOINT makes them"
    low, high = comparison.interval
    text = (
        f"Over {comparison.pictures} pictures of test, {comparison.error}: A {comparison.a:.4g},"
        f" B {comparison.b:.4g}; B - A {comparison.difference:+.4g}, 95 % interval {low:.4g} to"
        f" {high:.4g} (bootstrap over pictures)"
    )
    return text if comparison.distinguishable else f"{text}\nA and B are not distinguishable."

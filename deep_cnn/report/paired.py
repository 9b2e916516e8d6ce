"""Compare two runs on the test pictures that both have predicted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_cnn.errors import DataError
from deep_cnn.names import TASKS
from deep_cnn.results import RunResult

if TYPE_CHECKING:
    from pandas import DataFrame


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

    def to_jsonable(self) -> dict[str, Any]:
        """Return the comparison as `report --json` has it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class NoComparison:
    """Two runs that share no predicted picture; those without any predictions are `missing`."""

    missing: Sequence[str] = ()

    def to_jsonable(self) -> dict[str, Any]:
        """Return what `report --json` has where nothing can be compared."""
        return {"pictures": 0, "missing": list(self.missing)}


def compare_predictions(
    runs: Sequence[RunResult], tables: Sequence["DataFrame"]
) -> PairedComparison | NoComparison:
    """Compare the errors over the pictures that both runs have predicted, with their interval.

    For classes the error of a picture is 0 or 1. `tables` are from `read_predictions`.
    """
    missing = [run.run_name for run, table in zip(runs, tables, strict=True) if table.empty]
    if missing:
        return NoComparison(missing)
    both = tables[0].add_suffix("_a").join(tables[1].add_suffix("_b"), how="inner").sort_index()
    both = both[both["truth_a"] == both["truth_b"]]
    if both.empty:
        return NoComparison()
    task = str(runs[0].config.get("task"))
    is_score = task in TASKS and "mae" in TASKS[task].metrics
    if is_score:
        both = both.map(float)
        errors = [(both["truth_a"] - both[f"prediction_{run}"]).abs() for run in "ab"]
    else:
        errors = [(both["truth_a"] != both[f"prediction_{run}"]).astype(float) for run in "ab"]
    from deep_cnn.sweep.repeats import bootstrap  # SciPy takes a while.

    interval = bootstrap((errors[1] - errors[0]).to_list())
    return PairedComparison(
        pictures=len(both),
        error="mean absolute error" if is_score else "error rate",
        a=math.fsum(errors[0]) / len(both),
        b=math.fsum(errors[1]) / len(both),
        difference=interval.mean,
        interval=(interval.low, interval.high),
        distinguishable=interval.distinguishable,
    )


def read_predictions(result: Path, run: RunResult) -> "DataFrame":
    """Return truth and prediction as text, by picture, from the first look at the test split.

    `result` is the file of the `run`. A run that went on after the look has none: they are of a
    checkpoint that it has no more. Raises DataError.
    """
    import pandas as pd

    columns = ["image", "truth", "prediction"]
    path = result.with_name(f"{result.name.removesuffix('.json')}.test.csv")
    table = pd.DataFrame(columns=columns)
    try:
        if run.test is not None:
            table = pd.read_csv(
                path, usecols=columns, dtype=object, na_filter=False, index_col=False
            )
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise DataError(f"{path} holds no predictions ({text}); repeat --test_net") from None
    return table.drop_duplicates("image", keep="last").set_index("image")[columns[1:]]


def format_comparison(comparison: PairedComparison | NoComparison) -> str:
    """Return a comparison as a line or two."""
    if isinstance(comparison, NoComparison):
        missing = " and ".join(comparison.missing)
        return (
            f"No predictions of {missing}: --test_net=CHECKPOINT makes them"
            if missing
            else "The two have no predicted picture in common."
        )
    low, high = comparison.interval
    text = (
        f"Over {comparison.pictures} pictures of test, {comparison.error}: A {comparison.a:.4g},"
        f" B {comparison.b:.4g}; B - A {comparison.difference:+.4g}, 95 % interval {low:.4g} to"
        f" {high:.4g} (bootstrap over pictures)"
    )
    return text if comparison.distinguishable else f"{text}\nA and B are not distinguishable."

"""W&B's early termination: its documented cases, and why each run was stopped."""

import csv
import json
import math
from pathlib import Path

import pytest

from deep_cnn.results import Metric, StopReason
from deep_cnn.sweep.search.early_stopping import costs_of, should_stop
from deep_cnn.sweep.spec.schema import Hyperband
from tests.conftest import Command

LOW, HIGH = Metric(name="loss_val"), Metric(name="pearson_val", goal="maximize")
FIVE = [[10, 9], [10, 10], [10, 8, 8], [10, 7, 7], [10, 6, 6]]


def rule(strict: bool = True, eta: float = 2, band: int | None = None) -> Hyperband:
    """The rule with one band, or with those of max_iter 5 and s 2."""
    bands = {"max_iter": 5, "s": 2} if band is None else {"max_iter": band * eta, "s": 1}
    return Hyperband.model_validate({"type": "hyperband", "eta": eta, "strict": strict, **bands})


def stopped(runs: list[list[float]], how: Hyperband, metric: Metric = LOW) -> list[int]:
    return [i for i in range(len(runs)) if reason(runs, i, how, metric)]


def reason(
    runs: list[list[float]], i: int, how: Hyperband, metric: Metric = LOW
) -> StopReason | None:
    costs = [costs_of(run, metric) for run in runs]
    return should_stop(how, metric, costs[i], costs[:i] + costs[i + 1 :])


def test_the_example_of_w_and_bs_own_documentation() -> None:
    """Bands 1 and 2; at band 2 the values are 6, 7, 8, 9, 10 and the threshold is the third."""
    runs = [[float(v) for v in run] for run in FIVE]
    assert stopped(runs, rule(strict=False)) == [0, 1]
    assert reason(runs, 1, rule(strict=False)) == StopReason("hyperband", 2, 10.0, 8.0)


def test_one_run_is_never_stopped_and_ties_survive() -> None:
    assert stopped([[5.0, 9.0, 9.0]], rule()) == []
    assert stopped([[1.0, 1.0]] * 4, rule()) == []


def test_of_two_runs_the_worse_one_is_stopped_with_eta_3() -> None:
    assert stopped([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]], rule(True, 3, 3)) == [1]


def test_strict_looks_at_the_band_and_the_other_at_the_best_so_far() -> None:
    runs = [[5.0, 5.0, 5.0, 1.0], [3.0, 3.0, 3.0], [4.0, 4.0, 4.0]]
    assert stopped(runs, rule(True, 2, 3)) == [0]
    assert stopped(runs, rule(False, 2, 3)) == []


def test_a_run_is_judged_again_when_others_come() -> None:
    good = [3.0, 3.0, 0.1, 0.1]
    assert stopped([good, [4.0, 4.0]], rule(True, 3, 2)) == [1]
    assert 0 in stopped([good, [4.0, 4.0], [1.0, 1.0], [1.0, 1.0]], rule(True, 3, 2))


def test_maximize_and_values_that_are_not_finite() -> None:
    runs = [[0.1, 0.2], [0.3, 0.4]]
    assert stopped(runs, rule(True, 3, 2), HIGH) == [0]
    assert reason(runs, 0, rule(True, 3, 2), HIGH) == StopReason("hyperband", 2, 0.2, 0.4)
    holes = [[math.nan, 0.1, math.inf, 0.2], [0.3, 0.4]]
    assert stopped(holes, rule(True, 3, 2), HIGH) == [0]
    assert stopped([[math.nan, 0.1], [0.3, 0.4]], rule(True, 3, 2), HIGH) == []


@pytest.mark.slow
def test_a_sweep_stops_hopeless_runs_and_says_why(tmp_path: Path, here: Command) -> None:
    (tmp_path / "s.yaml").write_text(
        "method: grid\nmetric: {name: loss_val, goal: minimize}\n"
        "parameters: {lr: {values: [0.02, 1.0e-7]}, epochs: {value: 5}, batch_size: {value: 20}}\n"
        "early_terminate: {type: hyperband, min_iter: 3}\n"
        'command: [python, -m, deep_cnn, --task=digits, --train_samples=400, "${args}"]\n'
    )
    done = here("sweep", "s.yaml", "--workers=1")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "outputs/sweeps/s/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished", "stopped"]
    reason = json.loads(rows[1]["stop_reason"])
    assert (reason["rule"], reason["band"], rows[1]["epochs_run"]) == ("hyperband", 3, "3")
    assert reason["value"] > reason["threshold"]
    run = rows[1]["run_name"]
    result = json.loads((tmp_path / f"outputs/results/{run}.json").read_text())
    assert (result["state"], result["stop_reason"]) == ("stopped", reason)
    log = (tmp_path / f"outputs/logger/{run}.log").read_text()
    assert "Stopped early by hyperband band=3 value=" in log

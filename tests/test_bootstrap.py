"""Intervals of metrics over resampled pictures."""

import numpy as np
import pytest

from deep_cnn.bootstrap import bootstrap_intervals, mean_of, statistics_of
from deep_cnn.metrics import CLASSIFICATION, REGRESSION, Array


def resampled(random: np.random.Generator, pictures: int, count: int) -> tuple[Array, Array]:
    drawn = random.integers(pictures, size=(count, pictures))
    return drawn, np.stack([np.bincount(row, minlength=pictures) for row in drawn], 1).astype(float)


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("pictures", [2, 3, 7, 64, 65, 300])
@pytest.mark.parametrize("name", REGRESSION)
def test_a_metric_of_counts_is_that_of_the_drawn_pictures(
    name: str, pictures: int, *, has_ties: bool
) -> None:
    random = np.random.default_rng(pictures)
    targets = random.normal(size=pictures)
    predictions = targets + random.normal(size=pictures)
    if has_ties:
        targets, predictions = targets.round(), predictions.round(1)
    drawn, counts = resampled(random, pictures, 30)
    with np.errstate(all="ignore"):
        found = statistics_of({name: REGRESSION[name]}, predictions, targets)[name](counts)
        expected = [REGRESSION[name](predictions[rows], targets[rows]) for rows in drawn]
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_precision_of_counts_is_that_of_the_drawn_pictures(name: str) -> None:
    random = np.random.default_rng(0)
    scores, classes = random.normal(size=(50, 9)), random.integers(9, size=50)
    drawn, counts = resampled(random, 50, 30)
    found = statistics_of({name: CLASSIFICATION[name]}, scores, classes)[name](counts)
    expected = [CLASSIFICATION[name](scores[rows], classes[rows]) for rows in drawn]
    assert found == pytest.approx(expected)


def test_a_metric_of_a_new_task_has_an_interval() -> None:
    random = np.random.default_rng(0)
    targets = random.normal(size=100)
    metrics = {"worst": lambda predictions, truths: float(np.abs(predictions - truths).max())}
    ((low, high),) = [
        bootstrap_intervals(statistics_of(metrics, targets + 1, targets), 100)["worst"]
    ]
    assert (low, high) == (pytest.approx(1), pytest.approx(1))


def test_the_interval_of_a_mean_is_about_four_standard_errors_and_repeats() -> None:
    values = np.random.default_rng(0).normal(3, 2, 2_500)
    interval = bootstrap_intervals({"mean": mean_of(values)}, len(values))["mean"]
    assert interval is not None
    error = values.std() / 50
    assert interval == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.01
    )
    assert interval == bootstrap_intervals({"mean": mean_of(values)}, len(values))["mean"]


def test_weights_count_in_the_mean() -> None:
    counts = np.array([[1.0, 0.0], [1.0, 2.0]])
    statistic = mean_of(np.array([1.0, 4.0]), np.array([3.0, 1.0]))
    assert statistic(counts).tolist() == [7 / 4, 4.0]


@pytest.mark.parametrize("pictures", [0, 1])
def test_a_single_picture_has_no_interval(pictures: int) -> None:
    assert bootstrap_intervals({"mae": mean_of(np.ones(pictures))}, pictures) == {"mae": None}


def test_a_correlation_with_constant_predictions_has_no_interval() -> None:
    targets = np.arange(20.0)
    found = bootstrap_intervals(statistics_of(REGRESSION, np.full(20, 0.1), targets), 20)
    assert [found[name] for name in ("pearson", "spearman", "kendall")] == [None] * 3
    assert found["mae"] is not None

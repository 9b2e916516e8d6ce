"""Compute metrics over a whole split; all functions are pure."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64] | NDArray[np.int64]
Metric = Callable[[Array, Array], float]
# The squares of numbers beyond these limits are 0 or infinite.
TINY, HUGE = 1e-150, 1e150


def mean_and_std(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard deviation of (N,) values, also where their squares overflow."""
    largest = float(np.abs(values).max())
    if not 0 < largest < TINY and not largest > HUGE:
        return float(values.mean()), float(values.std())
    mean, std = mean_and_std(values / largest)
    return largest * mean, largest * std


def mae(predictions: Array, targets: Array) -> float:
    """Return the mean absolute error, (N,) against (N,), in the unit of the targets."""
    return float(np.abs(predictions - targets).mean())


def rmse(predictions: Array, targets: Array) -> float:
    """Return the root of the mean squared error, (N,) against (N,), in the unit of the targets."""
    return float(np.sqrt(np.square(predictions - targets).mean()))


def r2(predictions: Array, targets: Array) -> float:
    """Return the coefficient of determination, (N,) against (N,).

    It is 0 if every prediction is the mean of `targets`, and nan if all targets are equal.
    """
    if np.ptp(targets) == 0:
        return float("nan")
    variance = np.square(targets - targets.mean()).sum()
    return float(1 - np.square(predictions - targets).sum() / variance)


def correlation(a: Array, b: Array, *, name: str) -> float:
    """Return a correlation that scipy.stats computes, (N,) against (N,).

    `name` is pearsonr, spearmanr (ties by mean rank) or kendalltau (tau-b). The result is nan if
    either side is constant or shorter than 2.
    """
    from scipy import stats  # Half a second, which classes need not wait for.

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Nearly constant predictions are worth no warning.
        return float(getattr(stats, name)(a, b)[0])


def precision(scores: Array, classes: Array, k: int) -> float:
    """Return the fraction of pictures whose class has one of the k highest scores.

    `scores` is (N, C), `classes` (N,).
    """
    return float(hits(scores, classes, k).mean())


def hits(scores: Array, classes: Array, k: int) -> NDArray[np.bool_]:
    """Return whether the class of each picture has one of its k highest scores, (N,)."""
    truth = scores[np.arange(len(scores)), classes.astype(np.int64)][:, None]
    # As in argmax, the first of equal scores counts as higher, and nan as the highest.
    first = (scores == truth) & (np.arange(scores.shape[1]) < classes[:, None])
    rank = (~(scores <= truth) | first).sum(axis=1)
    is_hit: NDArray[np.bool_] = rank < k
    return is_hit


def confusion(scores: Array, classes: Array) -> NDArray[np.int64]:
    """Return (C, C) counts, with a row per true class and a column per predicted class.

    `scores` is (N, C), `classes` (N,).
    """
    count = scores.shape[1]
    pairs = np.bincount(classes * count + scores.argmax(axis=1), minlength=count**2)
    return pairs.reshape(count, count)


def pairwise_accuracy(left: Array, right: Array, choices: Array) -> float:
    """Return the fraction of votes for the picture with the higher score; all arrays are (V,).

    `left` and `right` are the scores of the two pictures, `choices` 1 for left, -1 for right and 0
    for a tie. Ties are left out, as in Dubey et al. 2016 (arXiv:1608.01769); equal scores count
    half. The result is nan if there are only ties.
    """
    agreement = (np.sign(left - right) * choices)[choices != 0]
    return float((agreement.mean() + 1) / 2) if len(agreement) else float("nan")


REGRESSION: Mapping[str, Metric] = {
    "mae": mae,
    "rmse": rmse,
    "r2": r2,
    "pearson": partial(correlation, name="pearsonr"),
    "spearman": partial(correlation, name="spearmanr"),
    "kendall": partial(correlation, name="kendalltau"),
}
CLASSIFICATION: Mapping[str, Metric] = {
    "accuracy": partial(precision, k=1),
    "precision@1": partial(precision, k=1),
    "precision@5": partial(precision, k=5),
}

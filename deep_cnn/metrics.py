"""Score a whole split at once: pure functions of outputs and targets."""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64] | NDArray[np.int64]
Metric = Callable[[Array, Array], float]


def mae(predictions: Array, targets: Array) -> float:
    """Mean absolute error, (N,) against (N,), in the targets' unit."""
    return float(np.abs(predictions - targets).mean())


def rmse(predictions: Array, targets: Array) -> float:
    """Root of the mean squared error, (N,) against (N,), in the targets' unit."""
    return float(np.sqrt(np.square(predictions - targets).mean()))


def r2(predictions: Array, targets: Array) -> float:
    """Coefficient of determination; 0 for predicting the mean of `targets`, nan if they are all
    equal."""
    if np.ptp(targets) == 0:
        return float("nan")
    variance = np.square(targets - targets.mean()).sum()
    return float(1 - np.square(predictions - targets).sum() / variance)


def pearson(predictions: Array, targets: Array) -> float:
    """Return Pearson's correlation; nan if either side is constant or shorter than 2."""
    return _correlation("pearsonr", predictions, targets)


def spearman(predictions: Array, targets: Array) -> float:
    """Return Spearman's rank correlation, ties by mean rank; nan as for `pearson`."""
    return _correlation("spearmanr", predictions, targets)


def kendall(predictions: Array, targets: Array) -> float:
    """Return Kendall's tau-b; nan as for `pearson`."""
    return _correlation("kendalltau", predictions, targets)


def _correlation(name: str, a: Array, b: Array) -> float:
    from scipy import stats  # Half a second, which classes need not wait for.

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Nearly constant predictions are worth no warning.
        return float(getattr(stats, name)(a, b)[0])


def precision(scores: Array, classes: Array, k: int) -> float:
    """Part of pictures, in [0, 1], whose class is among the k best scores; (N, C) against (N,)."""
    truth = scores[np.arange(len(scores)), classes.astype(np.int64)][:, None]
    # Of equal scores the first is the better one; a score that is no number beats all.
    first = (scores == truth) & (np.arange(scores.shape[1]) < classes[:, None])
    rank = (~(scores <= truth) | first).sum(axis=1)
    return float((rank < k).mean())


def confusion(scores: Array, classes: Array) -> NDArray[np.int64]:
    """(C, C) counts: a row for each true class, a column for the best score; (N, C), (N,)."""
    count = scores.shape[1]
    found = np.bincount(classes * count + scores.argmax(axis=1), minlength=count**2)
    return found.reshape(count, count)


def pairwise_accuracy(left: Array, right: Array, choices: Array) -> float:
    """Part of votes, in [0, 1], that went to the picture with the higher score; (V,) each.

    `left` and `right` are the scores of the two pictures, `choices` 1 for left, -1 for right and 0
    for a tie. Ties are left out, as by Dubey et al. 2016 (arXiv:1608.01769); equal scores count
    half. nan if there are only ties.
    """
    agreement = (np.sign(left - right) * choices)[choices != 0]
    return float((agreement.mean() + 1) / 2) if len(agreement) else float("nan")


REGRESSION: Mapping[str, Metric] = {
    "mae": mae,
    "rmse": rmse,
    "r2": r2,
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
}
CLASSIFICATION: Mapping[str, Metric] = {
    "precision@1": lambda scores, classes: precision(scores, classes, 1),
    "precision@5": lambda scores, classes: precision(scores, classes, 5),
}

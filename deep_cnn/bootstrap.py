"""Compute 95 % bootstrap intervals of metrics over the pictures of a split.

A resample is described by how often it draws each picture, a column of `counts`, (N, R). So nothing
is sorted again in each of the R resamples, which makes rank correlations quick.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deep_cnn.metrics import Array, Metric, hits

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]
# From counts, (N, R), to the value of a metric in each resample, (R,).
Statistic = Callable[[Numbers], Numbers]
Interval = tuple[float, float]

_RESAMPLES = 1_000
# As many resamples at once as fit the caches of a processor, with 10,000 pictures.
_AT_ONCE = 25
_QUANTILES = (0.025, 0.975)
# A smaller variance, relative to that of all pictures, is a rounding error of equal values.
_NO_VARIANCE = 1e-12


def bootstrap_intervals(
    statistics: Mapping[str, Statistic], pictures: int
) -> dict[str, Interval | None]:
    """Return the percentile interval of each statistic over resampled pictures.

    The same data give the same interval. It is None if a statistic has no finite value in most
    resamples, or if there are fewer than 2 pictures.
    """
    if pictures < 2:
        return dict.fromkeys(statistics)
    rng = np.random.default_rng(0)
    values: dict[str, list[Numbers]] = {name: [] for name in statistics}
    with np.errstate(all="ignore"):  # Resamples of equal targets, and scores of 1e200.
        for _ in range(_RESAMPLES // _AT_ONCE):
            drawn = rng.integers(pictures, size=(_AT_ONCE, pictures))
            counts = np.stack([np.bincount(row, minlength=pictures) for row in drawn], axis=1)
            for name, statistic in statistics.items():
                values[name].append(statistic(counts.astype(np.float64)))
    return {name: _interval(np.concatenate(parts)) for name, parts in values.items()}


def _interval(values: Numbers) -> Interval | None:
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return None
    low, high = np.quantile(finite, _QUANTILES)
    return float(low), float(high)


def statistics_of(
    metrics: Mapping[str, Metric], predictions: Array, targets: Array
) -> dict[str, Statistic]:
    """Return the metrics of N predictions, (N,) or (N, C), against (N,) as statistics."""
    every: dict[str, Statistic] = {}
    for name, metric in metrics.items():
        if predictions.ndim == 2 and name.startswith("precision@"):
            each = hits(predictions, targets, int(name.partition("@")[2]))
            every[name] = mean_of(each.astype(np.float64))
        elif predictions.ndim == 1 and name in _REGRESSION:
            every[name] = _REGRESSION[name](predictions.astype(float), targets.astype(float))
        else:
            every[name] = partial(_one_by_one, metric, predictions, targets)
    return every


def mean_of(values: Numbers, weights: Numbers | None = None) -> Statistic:
    """Return the statistic of a mean of values, (N,), with optional weights, (N,)."""
    if weights is None:
        return lambda counts: values @ counts / counts.sum(axis=0)
    return lambda counts: (weights * values) @ counts / (weights @ counts)


def _one_by_one(metric: Metric, predictions: Array, targets: Array, counts: Numbers) -> Numbers:
    """Compute any metric, one resample after the other."""
    drawn = (np.repeat(np.arange(len(row)), row.astype(np.int64)) for row in counts.T)
    return np.array([metric(predictions[rows], targets[rows]) for rows in drawn])


def _rmse(predictions: Numbers, targets: Numbers) -> Statistic:
    mean = mean_of(np.square(predictions - targets))
    return lambda counts: np.sqrt(mean(counts))


def _r2(predictions: Numbers, targets: Numbers) -> Statistic:
    errors, centred = np.square(predictions - targets), (targets - targets.mean())[:, None]

    def statistic(counts: Numbers) -> Numbers:
        variance = _covariance(counts, centred, centred)
        variance[variance <= _NO_VARIANCE * centred.var()] = np.nan
        return 1 - mean_of(errors)(counts) / variance

    return statistic


def _covariance(counts: Numbers, a: Numbers, b: Numbers) -> Numbers:
    """Return the covariance in each resample, (R,); `a` and `b` are (N, 1) or (N, R)."""
    products, means = counts * a * b, [(counts * x).sum(axis=0) for x in (a, b)]
    n = counts.sum(axis=0)
    covariance: Numbers = products.sum(axis=0) / n - means[0] / n * means[1] / n
    return covariance


def _pearson(a: Numbers, b: Numbers) -> Statistic:
    a, b = ((x - x.mean())[:, None] for x in (a, b))
    return lambda counts: _correlation(counts, a, b)


def _correlation(counts: Numbers, a: Numbers, b: Numbers) -> Numbers:
    variances = [_covariance(counts, x, x) for x in (a, b)]
    for x, variance in zip((a, b), variances, strict=True):
        variance[variance <= _NO_VARIANCE * x.var()] = np.nan
    return _covariance(counts, a, b) / np.sqrt(variances[0] * variances[1])


def _spearman(a: Numbers, b: Numbers) -> Statistic:
    groups = [_Groups(a), _Groups(b)]
    return lambda counts: _correlation(counts, *(group.ranks(counts) for group in groups))


class _Groups:
    """The groups of equal values among N, in the order of the values."""

    def __init__(self, values: Array) -> None:
        unique, self.group = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.group, kind="stable")
        self.starts = np.searchsorted(self.group[self.order], np.arange(len(unique)))

    def sizes(self, counts: Numbers) -> Numbers:
        """Return how many pictures each resample has in each group, (groups, R)."""
        sizes: Numbers = np.add.reduceat(counts[self.order], self.starts, axis=0)
        return sizes

    def pairs(self, counts: Numbers) -> Numbers:
        """Return the number of pairs of equal values in each resample, (R,)."""
        pairs: Numbers = _pairs(self.sizes(counts)).sum(axis=0)
        return pairs

    def ranks(self, counts: Numbers) -> Numbers:
        """Return the mean rank of each picture in each resample, (N, R), centred."""
        sizes = self.sizes(counts)
        ranks: Numbers = (np.cumsum(sizes, axis=0) - sizes / 2)[self.group]
        return ranks - len(counts) / 2


def _pairs(count: Numbers) -> Numbers:
    return count * (count - 1) / 2


def _kendall(a: Numbers, b: Numbers) -> Statistic:
    """Return the statistic of Kendall's tau-b."""
    order = np.lexsort((-b, a))
    levels = _merge_levels(b[order])
    both = np.unique(np.stack([a, b]), axis=1, return_inverse=True)[1].ravel()
    groups = [_Groups(a), _Groups(b), _Groups(both)]

    def statistic(counts: Numbers) -> Numbers:
        ordered = counts[order]
        concordant = np.sum([level.smaller_pairs(ordered) for level in levels], axis=0)
        all_pairs = _pairs(counts.sum(axis=0))
        tied_a, tied_b, tied_both = (group.pairs(counts) for group in groups)
        untied = all_pairs - tied_a - tied_b + tied_both
        tau: Numbers = (2 * concordant - untied) / np.sqrt(
            (all_pairs - tied_a) * (all_pairs - tied_b)
        )
        return tau

    return statistic


@dataclass(frozen=True, slots=True)
class _MergeLevel:
    """One level of a merge sort, whose blocks consist of a left and a right half.

    Attributes:
        left, right: The positions in left and in right halves, sorted by block and value.
        before: For each of `right`, how many of `left` are in earlier blocks or smaller.
        first: For each of `right`, how many of `left` are in earlier blocks.
    """

    left: Indices
    right: Indices
    before: Indices
    first: Indices

    def smaller_pairs(self, weights: Numbers) -> Numbers:
        """Return the weight, (R,), of pairs in a block whose left value is the smaller one."""
        sums = np.cumsum(weights[self.left], axis=0)
        sums = np.concatenate([np.zeros((1, weights.shape[1])), sums])
        smaller = sums[self.before] - sums[self.first]
        pairs: Numbers = np.einsum("ij,ij->j", weights[self.right], smaller)
        return pairs


def _merge_levels(values: Numbers) -> list[_MergeLevel]:
    """Return the levels; each pair of positions is in the two halves of one block, at one level."""
    position, levels, half = np.arange(len(values)), [], 1
    while half < len(values):
        block, is_left = position // (2 * half), (position // half) % 2 == 0
        order = np.lexsort((is_left, values, block))  # Of equal values, the right one comes first.
        is_left = is_left[order]
        before = np.cumsum(is_left)[~is_left]
        first = half * block[order][~is_left]  # All blocks with a right half have a whole left one.
        levels.append(_MergeLevel(order[is_left], order[~is_left], before, first))
        half *= 2
    return levels


_REGRESSION: Mapping[str, Callable[[Numbers, Numbers], Statistic]] = {
    "mae": lambda predictions, targets: mean_of(np.abs(predictions - targets)),
    "rmse": _rmse,
    "r2": _r2,
    "pearson": _pearson,
    "spearman": _spearman,
    "kendall": _kendall,
}

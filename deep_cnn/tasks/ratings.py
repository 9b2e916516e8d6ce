"""Combine the ratings of several people into scores, and measure how far they agree."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of raters: a one-way random effects model (Shrout & Fleiss 1979, case 1).

    Attributes:
        ratings, pictures: How many there are.
        least, most: The smallest and largest number of ratings of a picture.
        n0: The mean number of ratings of a picture, corrected for unequal numbers.
        single: ICC(1,1), the reliability of one rating.
        mean: ICC(1,k), the reliability of the mean of n0 ratings.
    """

    ratings: int
    pictures: int
    least: int
    most: int
    n0: float
    single: float
    mean: float

    @property
    def ceiling(self) -> float:
        """The Pearson correlation with the means that a perfect prediction can expect."""
        return math.sqrt(max(self.mean, 0.0))

    def __str__(self) -> str:
        each = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        text = f"{self.ratings} ratings of {self.pictures} pictures, {each} each"
        if math.isnan(self.mean):
            return f"Agreement of raters: {text}; too few or too equal to measure it"
        return (
            f"Agreement of raters: {text} (n0={self.n0:.4g}); ICC(1,1)={self.single:.4f},"
            f" ICC(1,k)={self.mean:.4f}, so that Pearson can reach about {self.ceiling:.4f}"
        )


def agreement(pictures: ArrayLike, ratings: ArrayLike) -> Agreement:
    """Return the agreement of ratings, (N,), of the pictures with these numbers, (N,) int.

    The intraclass correlations are nan if no picture has two ratings, or all ratings are equal.
    """
    _, codes = np.unique(np.asarray(pictures), return_inverse=True)
    values: NDArray[np.float64] = np.asarray(ratings, dtype=np.float64)
    counts = np.bincount(codes)
    total, groups = len(values), len(counts)
    values = values - values.mean()  # Squares of large numbers would lose digits.
    means = np.bincount(codes, values) / counts
    n0 = (total - (counts**2).sum() / total) / (groups - 1) if groups > 1 else math.nan
    single = mean = math.nan
    if 1 < groups < total:
        between = float((counts * means**2).sum()) / (groups - 1)
        within = float(((values - means[codes]) ** 2).sum()) / (total - groups)
        if between > 0:
            mean = (between - within) / between
        if between + (n0 - 1) * within > 0:
            single = (between - within) / (between + (n0 - 1) * within)
    return Agreement(total, groups, int(counts.min()), int(counts.max()), float(n0), single, mean)


def mean_ratings(table: "DataFrame") -> "DataFrame":
    """Return one row per picture, in the order in which the pictures first appear.

    Args:
        table: one row per rating, with the columns image, rater, score, weight; other columns must
            have one value per picture.

    Returns:
        The mean of the scores and of the weights, the first line as the index, and the column
        `votes`, the number of ratings.
    """
    lines = table.index.to_series().groupby(table["image"], sort=False).first()
    groups = table.groupby("image", sort=False)
    means = groups.first()
    means["score"], means["weight"] = groups["score"].mean(), groups["weight"].mean()
    means["votes"] = groups.size()
    return means.reset_index().set_index(lines.to_numpy())


def one_rating_each(table: "DataFrame") -> "tuple[DataFrame, int]":
    """Return the table with one row for each picture and rater, and how many rows that removes.

    If a person has rated a picture several times, the mean of these ratings is used.
    """
    keys = [table["image"], table["rater"]]
    repeated = table.duplicated(["image", "rater"])
    if not repeated.any():
        return table, 0
    means = table["score"].groupby(keys, sort=False).transform("mean")
    return table.assign(score=means)[~repeated], int(repeated.sum())

"""Enumerate the configurations of a sweep, or draw them at random."""

import itertools
import math
import random
from collections.abc import Mapping, Set
from dataclasses import dataclass

from deep_cnn.sweep.spec.distributions import Distribution
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key

# This many draws find one of the unused points, unless few are left.
_TRIES = 200
# The points of a larger space are too many to list; a repetition is unlikely there.
_LARGEST_LISTED = 200_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration, and the `u` in [0, 1] that its values were drawn with, by parameter.

    `u` is None for configurations that were chosen from a list, such as a grid.
    """

    point: Point
    u: Mapping[str, float] | None = None


def first_points(spec: SweepSpec, seed: int, count: int) -> list[Point]:
    """Return the configurations of the first `count` trials, or fewer if the space is smaller.

    They are those of the search itself, except for bayes after its random trials.
    """
    points: list[Point] = []
    used: set[str] = set()
    while len(points) < count and (proposal := next_point(spec, seed, len(points), used)):
        points.append(proposal.point)
        used.add(canonical_key(proposal.point))
    return points


def next_point(spec: SweepSpec, seed: int, number: int, used: Set[str]) -> Proposal | None:
    """Return trial `number` of a grid or random search, or None if the space is exhausted.

    A random one depends on `seed`, `number` and `used`, the canonical keys of earlier ones.
    """
    if spec.method == "grid":
        return _grid_point(spec, number)
    return _random_point(spec, seed, number, used)


def all_points(space: Mapping[str, Distribution]) -> list[Point]:
    """Return every configuration of a finite space."""
    lists = [distribution.values for distribution in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def _grid_point(spec: SweepSpec, index: int) -> Proposal | None:
    """Return a point of W&B's grid, where the last parameter changes fastest.

    The points of earlier spaces keep their numbers, and new ones follow.
    """
    first, *later = (*spec.earlier, spec.space)
    size = math.prod(len(one.grid or ()) for one in first.values())
    if index >= size and later:
        added = spec.added_points
        return Proposal(added[index - size]) if index - size < len(added) else None
    point = {}
    for name in reversed(tuple(first)):
        values = first[name].grid
        assert values is not None, "the rules refuse a grid over it"
        index, digit = divmod(index, len(values))
        point[name] = values[digit]
    return None if index else Proposal({name: point[name] for name in first})


def _random_point(spec: SweepSpec, seed: int, number: int, used: Set[str]) -> Proposal | None:
    """Draw by inverse CDF, without repetition while a finite space has unused configurations."""
    # One generator per trial, so that it does not matter which worker draws it, or when.
    generator = random.Random(f"{seed}/{number}")
    size = spec.points
    proposal = None
    for _ in range(_TRIES if size is None or size > len(used) else 0):
        u = {name: generator.random() for name in sorted(spec.space)}
        point = {name: spec.space[name].ppf(u[name]) for name in u}
        proposal = Proposal(point, u)
        if canonical_key(point) not in used:
            return proposal
    if size is None or size > _LARGEST_LISTED:
        return proposal
    unused = [point for point in all_points(spec.space) if canonical_key(point) not in used]
    return Proposal(generator.choice(unused)) if unused else None

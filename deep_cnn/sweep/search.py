"""Say which configuration comes next: a pure function of the space, the seed and what was tried."""

import itertools
import random
from collections.abc import Mapping, Sequence, Set

from deep_cnn.sweep.space import Domain, Point, Seen, identity
from deep_cnn.sweep.spec import Metric, SweepSpec

# The Gaussian process takes over from random draws after so many trials.
STARTUP = 10
_TRIES = 200
_LARGEST_LISTED = 200_000
# As many configurations a Gaussian process weighs in a blink.
_LARGEST_WEIGHED = 20_000


def propose(spec: SweepSpec, seed: int, earlier: Sequence[Seen]) -> Point | None:
    """The configuration of trial number len(earlier), or None where none is left.

    In a grid or at random, trial n depends on `seed` and on the configurations before it alone, so
    that it does not matter which worker asks, nor when; bayes learns from the values as well.
    """
    if spec.method == "grid":
        return _grid_point(spec.space, len(earlier))
    used = {identity(seen.point) for seen in earlier}
    valued = sum(seen.value is not None for seen in earlier)
    if spec.method == "bayes" and len(earlier) >= STARTUP and valued:
        return _bayes_point(spec, seed, earlier, used)
    return _random_point(spec, seed, len(earlier), used)


def _bayes_point(
    spec: SweepSpec, seed: int, earlier: Sequence[Seen], used: Set[str]
) -> Point | None:
    """What the Gaussian process wants, among the unused ones where they can be listed."""
    size = spec.points
    if size is not None and len(used) >= size:
        return None
    from deep_cnn.sweep import bayes

    metric = spec.metric or Metric("loss")
    unused = None
    if size is not None and size <= _LARGEST_WEIGHED:
        unused = [p for p in _all_points(spec.space) if identity(p) not in used]
    point = bayes.suggest(spec.space, metric, seed, earlier, unused)
    return _random_point(spec, seed, len(earlier), used) if identity(point) in used else point


def first_points(spec: SweepSpec, seed: int, count: int) -> list[Point]:
    """What `propose` gives for the first `count` trials, fewer where the space is exhausted."""
    points: list[Point] = []
    used: set[str] = set()
    while len(points) < count:
        grid = spec.method == "grid"
        number = len(points)
        point = _grid_point(spec.space, number) if grid else _random_point(spec, seed, number, used)
        if point is None:
            break
        points.append(point)
        used.add(identity(point))
    return points


def _grid_point(space: Mapping[str, Domain], index: int) -> Point | None:
    """W&B's order: names sorted, the last one fastest."""
    point = {}
    for name in sorted(space, reverse=True):
        values = space[name].grid
        assert values is not None, "a grid was checked"
        index, digit = divmod(index, len(values))
        point[name] = values[digit]
    return None if index else dict(sorted(point.items()))


def _random_point(spec: SweepSpec, seed: int, number: int, used: Set[str]) -> Point | None:
    """Independent draws by inverse CDF; none twice while a finite space has unused ones."""
    generator = random.Random(f"{seed}/{number}")
    size = spec.points
    for _ in range(_TRIES if size is None or size > len(used) else 0):
        point = {name: spec.space[name].at(generator.random()) for name in sorted(spec.space)}
        if identity(point) not in used:
            return point
    if size is None or size > _LARGEST_LISTED:
        return None if size is not None and size <= len(used) else point
    unused = [point for point in _all_points(spec.space) if identity(point) not in used]
    return generator.choice(unused) if unused else None


def _all_points(space: Mapping[str, Domain]) -> list[Point]:
    lists = []
    for name in sorted(space):
        values = space[name].values
        assert values is not None, "the space is finite"
        lists.append(values())
    return [dict(zip(sorted(space), chosen, strict=True)) for chosen in itertools.product(*lists)]

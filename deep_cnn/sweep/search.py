"""Say which configuration comes next: a pure function of the space, the seed and what was tried."""

import itertools
import random
from collections.abc import Mapping, Sequence, Set

from deep_cnn.sweep.space import Domain, Point, identity
from deep_cnn.sweep.spec import SweepSpec

_TRIES = 200
_LARGEST_LISTED = 200_000


def propose(spec: SweepSpec, seed: int, earlier: Sequence[Point]) -> Point | None:
    """The configuration of trial number len(earlier), or None where none is left.

    Trial n depends on `seed` and on the configurations before it alone, so that it does not matter
    which worker asks, nor when.
    """
    if spec.method == "grid":
        return _grid_point(spec.space, len(earlier))
    return _random_point(spec, seed, len(earlier), {identity(point) for point in earlier})


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

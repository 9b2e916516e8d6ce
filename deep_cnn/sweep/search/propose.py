"""Choose the next configuration as a function of the space, the seed and earlier trials."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from deep_cnn.sweep.spec.points import Proposal, all_points, next_point
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key

# After this many trials, the Gaussian process replaces random draws.
STARTUP = 10
# A Gaussian process evaluates this many configurations in a moment.
_LARGEST_WEIGHED = 20_000


@dataclass(frozen=True, slots=True)
class Observation:
    """A trial as the search sees it; `value` is None while it runs, or if it `failed`.

    `own` is what metric.impute takes of the values of a failed trial. For `u`, see Proposal.
    """

    point: Point
    value: float | None = None
    failed: bool = False
    own: float | None = None
    u: Mapping[str, float] | None = None


def propose(spec: SweepSpec, seed: int, earlier: Sequence[Observation]) -> Proposal | None:
    """Return the configuration of trial number len(earlier), or None if none is left.

    In a grid or random search, trial n depends only on `seed` and on earlier configurations, so it
    does not matter which worker asks, or when. Bayes also depends on the values.
    """
    used = {canonical_key(one.point) for one in earlier} if spec.method != "grid" else set()
    valued = sum(one.value is not None for one in earlier)
    if spec.method == "bayes" and len(earlier) >= STARTUP and valued:
        return _bayes_point(spec, seed, earlier, used)
    return next_point(spec, seed, len(earlier), used)


def _bayes_point(
    spec: SweepSpec, seed: int, earlier: Sequence[Observation], used: Set[str]
) -> Proposal | None:
    """Return the choice of the Gaussian process, among the unused ones if the space is finite."""
    size = spec.points
    if size is not None and len(used) >= size:
        return None
    from deep_cnn.sweep.search import bayes  # Optuna takes a while.

    unused = None
    if size is not None and size <= _LARGEST_WEIGHED:
        unused = [p for p in all_points(spec.space) if canonical_key(p) not in used]
    proposal = bayes.suggest(spec, seed, earlier, unused)
    if canonical_key(proposal.point) in used:
        return next_point(spec, seed, len(earlier), used)
    return proposal

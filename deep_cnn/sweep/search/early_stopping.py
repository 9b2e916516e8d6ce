"""Decide whether a run is stopped early: W&B's rule, a function of what all runs logged.

After wandb/sweeps, `hyperband_stopping.py`. There are no brackets: at the latest band that a run
has reached it goes on if it is among the best 1/eta of all runs that have reached that band.
"""

import math
from collections.abc import Iterable, Sequence

from deep_cnn.results import Metric, StopReason
from deep_cnn.sweep.spec.schema import Hyperband


def should_stop(
    rule: Hyperband, metric: Metric, mine: Sequence[float], all_runs: Iterable[Sequence[float]]
) -> StopReason | None:
    """Return why the run that has logged `mine` is stopped, or None.

    `all_runs` are the values of every run of the sweep, whatever its state, this one among them.
    Values that are not finite do not count. A band is a number of logged values.
    """
    costs = _costs(mine, metric)
    reached = [band for band in rule.bands if band <= len(costs)]
    if not reached:
        return None
    band = reached[-1]
    # At the band, whatever `strict` says, as W&B has it; and its very arithmetic, 1/eta first.
    at_band = sorted(c[band - 1] for run in all_runs if len(c := _costs(run, metric)) >= band)
    if not at_band:
        return None
    threshold = at_band[int((1.0 / rule.eta) * len(at_band))]
    cost = costs[band - 1] if rule.strict else min(costs)
    if cost <= threshold:
        return None
    return StopReason("hyperband", band, metric.sign * cost, metric.sign * threshold)


def _costs(values: Sequence[float], metric: Metric) -> list[float]:
    return [metric.sign * value for value in values if math.isfinite(value)]

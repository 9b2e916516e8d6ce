"""Decide whether to stop a run early by W&B's rule, from the values of all runs.

After wandb/sweeps, `hyperband_stopping.py`. There are no brackets. A run is judged at the
latest band that it has reached. It continues if it is among the best 1/eta of all runs there.
"""

import math
from collections.abc import Iterable, Sequence

from deep_cnn.results import Metric, StopReason
from deep_cnn.sweep.spec.schema import Hyperband


def should_stop(
    rule: Hyperband, metric: Metric, mine: Sequence[float], all_runs: Iterable[Sequence[float]]
) -> StopReason | None:
    """Return the reason to stop the run that has logged `mine`, or None.

    `all_runs` are the values of every run of the sweep in any state, including this one.
    Values that are not finite do not count. A band is a number of logged values.
    """
    costs = _costs(mine, metric)
    reached = [band for band in rule.bands if band <= len(costs)]
    if not reached:
        return None
    band = reached[-1]
    # As in W&B, values at the band count even without `strict`, and 1/eta is computed first.
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

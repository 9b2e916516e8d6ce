"""Decide whether to stop a run early by W&B's rule, from the values of all runs.

After wandb/sweeps, `hyperband_stopping.py`. There are no brackets. A run is judged at the
latest band that it has reached. It continues if it is among the best 1/eta of all runs there.
"""

import math
from collections.abc import Iterable, Sequence

from deep_cnn.results import Metric, StopReason
from deep_cnn.sweep.spec.schema import Hyperband


def should_stop(
    rule: Hyperband, metric: Metric, costs: Sequence[float], others: Iterable[Sequence[float]]
) -> StopReason | None:
    """Return the reason to stop the run whose values have these costs (see `costs_of`), or None.

    `others` are the costs of every other run of the sweep, whatever its state. A band is a number
    of logged values.
    """
    reached = [band for band in rule.bands if band <= len(costs)]
    if not reached:
        return None
    band = reached[-1]
    # As in W&B, values at the band count even without `strict`, and 1/eta is computed first.
    at_band = sorted(c[band - 1] for c in (costs, *others) if len(c) >= band)
    threshold = at_band[int((1.0 / rule.eta) * len(at_band))]
    cost = costs[band - 1] if rule.strict else min(costs)
    if cost <= threshold:
        return None
    return StopReason("hyperband", band, metric.sign * cost, metric.sign * threshold)


def costs_of(values: Sequence[float], metric: Metric) -> list[float]:
    """Return the finite values, in order, as costs: less is better."""
    return [metric.sign * value for value in values if math.isfinite(value)]

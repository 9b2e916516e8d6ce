"""Decide whether a run is stopped early: W&B's rule, a pure function of what all runs logged.

After wandb/sweeps, `hyperband_stopping.py`. There are no brackets: at the latest band that a run
has reached it goes on if it is among the best 1/eta of all runs that have reached that band.
"""

import math
from collections.abc import Iterable, Sequence

from deep_cnn.runs import StopReason
from deep_cnn.sweep.spec import Hyperband


def verdict(
    rule: Hyperband, goal: str, mine: Sequence[float], all_runs: Iterable[Sequence[float]]
) -> StopReason | None:
    """Why the run that has logged `mine` is stopped, or None.

    `all_runs` are the values of every run of the sweep, whatever its state, this one among them.
    Values that are not finite do not count. A band is a number of logged values.
    """
    sign = -1.0 if goal == "maximize" else 1.0
    ours = _finite(mine, sign)
    reached = [band for band in rule.bands if band <= len(ours)]
    if not reached:
        return None
    band = reached[-1]
    # At the band, whatever `strict` says, as W&B has it; and its very arithmetic, 1/eta first.
    there = sorted(v[band - 1] for run in all_runs if len(v := _finite(run, sign)) >= band)
    if not there:
        return None
    threshold = there[int((1.0 / rule.eta) * len(there))]
    value = ours[band - 1] if rule.strict else min(ours)
    if value <= threshold:
        return None
    return StopReason("hyperband", band, sign * value, sign * threshold)


def _finite(values: Sequence[float], sign: float) -> list[float]:
    return [sign * value for value in values if math.isfinite(value)]

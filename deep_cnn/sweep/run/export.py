"""Write a sweep as an Optuna study in SQLite, for optuna-dashboard and Optuna's own analyses."""

import json
import math
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from deep_cnn.files import write_whole
from deep_cnn.sweep.run.records import Trial, TrialOutcome
from deep_cnn.sweep.spec.distributions import Distribution
from deep_cnn.sweep.spec.numeric import Numeric
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, to_jsonable

# Each takes a row of the database, and a program may log a hundred thousand values.
_MOST_INTERMEDIATE = 1_000
_STATES = {
    "waiting": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "interrupted": TrialState.WAITING,
    "failed": TrialState.FAIL,
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
}


def export_study(spec: SweepSpec, trials: Sequence[Trial], path: Path) -> None:
    """Make the whole SQLite file `path` with one study, named as the sweep; OutputError.

    A value that was logged in epoch n is intermediate value n; stopped trials are pruned ones. Of
    more than 1,000 values, about as many are chosen.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = spec.leaves(dict(zip(spec.space, spec.space, strict=True)))
    leaves = [(trial, spec.leaves(trial.point)) for trial in trials if trial.point is not None]
    # A damaged file of a trial may hold something else.
    readable = [(trial, used) for trial, used in leaves if names.keys() <= used.keys()]
    distributions = {
        name: _distribution(spec.space[key], [used[name] for _, used in readable])
        for name, key in names.items()
    }

    def write(temporary: Path) -> None:
        storage = RDBStorage(f"sqlite:///{temporary.resolve()}")
        direction = spec.objective.goal
        study = optuna.create_study(storage=storage, study_name=spec.name, direction=direction)
        if spec.metric:
            study.set_metric_names([spec.metric.name])
        _insert(storage, study._study_id, [_frozen(t, used, distributions) for t, used in readable])
        storage.engine.dispose()  # An open database must not be renamed.

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Metric names are still called experimental.
        write_whole(path, write)


def _insert(storage: RDBStorage, study: int, trials: Sequence[FrozenTrial]) -> None:
    """Insert trials in one transaction; `Study.add_trials` has one for each, which takes 20 ms.

    The tables are Optuna's own, so its version is pinned, and a test reads the study back.
    """
    rows: list[Any] = []
    for key, trial in enumerate(trials, 1):
        row = models.TrialModel(trial_id=key, number=key - 1, study_id=study, state=trial.state)
        row.datetime_start, row.datetime_complete = trial.datetime_start, trial.datetime_complete
        rows.append(row)
        if trial.value is not None:
            finite = models.TrialValueModel.TrialValueType.FINITE
            rows.append(
                models.TrialValueModel(
                    trial_id=key, objective=0, value=trial.value, value_type=finite
                )
            )
        for name, distribution in trial.distributions.items():
            rows.append(
                models.TrialParamModel(
                    trial_id=key,
                    param_name=name,
                    param_value=distribution.to_internal_repr(trial.params[name]),
                    distribution_json=distribution_to_json(distribution),
                )
            )
        for name, text in trial.user_attrs.items():
            rows.append(
                models.TrialUserAttributeModel(trial_id=key, key=name, value_json=json.dumps(text))
            )
        for step, value in trial.intermediate_values.items():
            kind = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
            rows.append(
                models.TrialIntermediateValueModel(
                    trial_id=key,
                    step=step,
                    intermediate_value=value,
                    intermediate_value_type=kind,
                )
            )
    with storage.scoped_session() as session, session.begin():
        session.add_all(rows)


def _distribution(searched: Distribution, used: Sequence[Any]) -> BaseDistribution:
    if not isinstance(searched, Numeric):
        choices = map(_legal, [*searched.values, *used])
        # True is 1 to Python, but another choice.
        return CategoricalDistribution(list({(type(c), c): c for c in choices}.values()))
    values = [v for v in (*used, searched.ppf(0.0), searched.ppf(1.0)) if _is_finite(v)]
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log="log" in searched.distribution and low > 0)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _legal(value: Any) -> Any:
    """Return a value as Optuna stores it, which has no lists and no mappings."""
    simple = value is None or isinstance(value, bool | int | float | str)
    return value if simple else json.dumps(to_jsonable(value))


def _frozen(trial: Trial, leaves: Point, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    outcome = trial.outcome or TrialOutcome("stopped")
    state = _STATES[trial.state]
    if state is TrialState.COMPLETE and outcome.value is None:
        state = TrialState.FAIL
    ended = datetime.now()
    begun = ended - timedelta(seconds=outcome.seconds or 0.0)
    params = {}
    for name in leaves.keys() & distributions.keys():
        if isinstance(distributions[name], CategoricalDistribution):
            params[name] = _legal(leaves[name])
        elif _is_finite(leaves[name]):  # A refit may have set a number to None.
            params[name] = leaves[name]
    notes = {"run_name": trial.run_name, "error": trial.error}
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=state,
        value=outcome.value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        datetime_start=None if state is TrialState.WAITING else begun,
        datetime_complete=ended if state.is_finished() else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={key: text for key, text in notes.items() if text},
        system_attrs={},
        intermediate_values=_intermediate(outcome.values),
    )


def _intermediate(values: Sequence[float]) -> dict[int, float]:
    """Return the finite values by step, of many steps an even choice with the last one."""
    stride = -(-len(values) // _MOST_INTERMEDIATE) or 1
    chosen = {*range(0, len(values), stride), len(values) - 1} if values else set()
    return {i: values[i] for i in sorted(chosen) if math.isfinite(values[i])}

"""Say what the trials of a sweep mean for its next ones, and for the one that runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deep_cnn.results import StopReason
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.store import FolderStore
from deep_cnn.sweep.run.trial import logged_values
from deep_cnn.sweep.run.work import WorkFolders
from deep_cnn.sweep.search.early_stopping import costs_of, should_stop
from deep_cnn.sweep.search.propose import Observation, propose
from deep_cnn.sweep.spec.equal_runs import EqualRuns
from deep_cnn.sweep.spec.points import Proposal, next_point
from deep_cnn.sweep.spec.schema import SweepMetric, SweepSpec
from deep_cnn.sweep.spec.values import canonical_key


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """How to open a store, and how to fill it.

    Attributes:
        spec: The sweep.
        folder: The folder of the store.
        out: Where the results of runs go.
        seed: The seed of the search.
        retries: How often a failed trial is tried again.
        limit: The number of trials at which no more are proposed.
        lease: The seconds after which a silent owner on another host counts as dead.
        code: Digests of the user's networks and schedules that the sweep names.
    """

    spec: SweepSpec
    folder: Path
    out: Path
    seed: int
    retries: int
    limit: int | None
    lease: float
    code: Mapping[str, str] = field(default_factory=dict)

    def open_store(self) -> FolderStore:
        """Return the store."""
        return FolderStore(self.folder, retries=self.retries, lease=self.lease)


class TrialSearch:
    """What the trials so far mean for the next ones and for the running one."""

    def __init__(self, config: StoreConfig, store: FolderStore, work: WorkFolders) -> None:
        self.config, self.spec, self.store, self.work = config, config.spec, store, work
        self.next_number = 0
        self.is_target_reached = False
        # Of the logged values of the trials that are over.
        self.costs: dict[int, list[float]] = {}
        self._keys: dict[int, str] = {}
        # The first trial of each run, if trials with different configurations can be equal.
        self._equal = EqualRuns(config.spec)
        self._first: dict[str, int] = {}
        self._used: set[str] = set()

    def look(self) -> None:
        """Look at the store, and take in the trials that have changed."""
        self.store.look()
        self.take_in()

    def take_in(self) -> None:
        """Take in the trials that have changed as of the last look."""
        for trial in self.store.changes():
            if trial.point is not None and trial.number not in self._keys:
                point = self.spec.current(trial.point)
                key = self._keys[trial.number] = canonical_key(point)
                self._used.add(key)
                run_key = self._equal.key(point)
                if run_key is not None:
                    number = self._first.get(run_key, trial.number)
                    self._first[run_key] = min(number, trial.number)
            if trial.outcome is not None:
                self.costs[trial.number] = costs_of(trial.outcome.values, self.spec.objective)
            if self.spec.metric is not None and trial.value is not None:
                self.is_target_reached |= self.spec.metric.reached(trial.value)
        while self.next_number in self._keys:
            self.next_number += 1

    def earlier_twin(self, trial: Trial) -> Trial | None:
        """Return an earlier trial that is the same run; if that one is given up, so is this."""
        run_key = self._equal.key(self.spec.current(trial.point or {}))
        number = trial.number if run_key is None else self._first.get(run_key, trial.number)
        return self.store.trial(number) if number < trial.number else None

    def propose(self) -> Proposal | None:
        """Return the configuration of trial `next_number`, or None if there is none to make."""
        number, limit = self.next_number, self.config.limit
        if (limit is not None and number >= limit) or self.is_target_reached:
            return None
        if self.spec.method == "bayes":
            return propose(self.spec, self.config.seed, self._observations()[:number])
        whole = len(self._keys) == number  # Otherwise a damaged trial is made again.
        used = self._used if whole else {self._keys[n] for n in range(number)}
        return next_point(self.spec, self.config.seed, number, used)

    def _observations(self) -> list[Observation]:
        return [
            self._observation(trial) for trial in self.store.trials() if trial.point is not None
        ]

    def _observation(self, trial: Trial) -> Observation:
        metric, value = self.spec.metric, trial.value
        failed = trial.state == "failed" or (trial.over and value is None)
        own = None
        if metric is not None and failed and metric.impute != "worst":
            own = self._logged(trial, metric, latest=metric.impute == "latest")
        elif metric is not None and trial.state == "running" and metric.imputes_running:
            value = self._logged(trial, metric, latest=False)
            failed = value is None and metric.impute_while_running == "worst"
        return Observation(trial.point or {}, value, failed, own, trial.u)

    def _logged(self, trial: Trial, metric: SweepMetric, *, latest: bool) -> float | None:
        """Return the latest or the best finite value that a trial has logged, or None."""
        logged = logged_values(self.work.table(trial), metric) if trial.run_name else ()
        finite = [value for value in logged if math.isfinite(value)]
        return next(reversed(finite), None) if latest else metric.best(finite)

    def stop_reason(self, number: int, values: Sequence[float]) -> StopReason | None:
        """Apply W&B's rule to all runs of the sweep as they stand on disk, and to this one.

        `values` are those of the sweep's metric that trial `number` has logged.
        """
        rule, metric = self.spec.early_terminate, self.spec.metric
        if rule is None or metric is None:
            return None
        costs = costs_of(values, metric)
        if len(costs) < rule.bands[0]:
            return None
        self.look()
        unfinished = (t for t in self.store.unfinished() if t.number != number and t.claim >= 0)
        tables = [costs_of(logged_values(self.work.table(t), metric), metric) for t in unfinished]
        return should_stop(rule, metric, costs, [*self.costs.values(), *tables])

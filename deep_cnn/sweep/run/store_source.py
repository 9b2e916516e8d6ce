"""Take trials from the store that the workers of a sweep share."""

import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deep_cnn.errors import OutputError
from deep_cnn.files import RunFiles
from deep_cnn.results import EpochRecord, RunResult, State, StopReason, SweepTrial
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.store import FolderStore, TrialStore
from deep_cnn.sweep.run.trial import (
    TrialRun,
    logged_values,
    outcome_of,
    run_trial,
    trial_config,
    values_of,
)
from deep_cnn.sweep.run.worker import TrialSource, one_line
from deep_cnn.sweep.search.early_stopping import should_stop
from deep_cnn.sweep.search.propose import Observation, propose
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.training.stop import StopRequest, StopToken

_PAUSE = 0.1


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
    """

    spec: SweepSpec
    folder: Path
    out: Path
    seed: int
    retries: int
    limit: int | None
    lease: float

    def open_store(self) -> FolderStore:
        """Return the store."""
        return FolderStore(self.folder, retries=self.retries, lease=self.lease)


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this worker has claimed, and the number of the claim."""

    trial: Trial
    number: int


class StoreSource(TrialSource[Claim]):
    """Claims trials and proposes new ones; SIGTERM asks to hand the current one back."""

    def __init__(self, config: StoreConfig) -> None:
        self.config, self.spec = config, config.spec
        self.store: TrialStore = config.open_store()
        self.stop = StopToken()
        signal.signal(signal.SIGTERM, lambda number, frame: self.stop.set(StopRequest(number)))

    def take(self) -> Claim | None:
        """Claim a trial; return None when every one is over, or after SIGTERM."""
        while self.stop.reason is None:
            trials = self.store.trials()
            # What has failed before comes last, or it could keep the rest from ever being run.
            claim = self._claim(trial for trial in trials if not trial.tried)
            if claim is None and self._propose(trials):
                continue
            claim = claim or self._claim(trials)
            if claim is not None:
                return claim
            if not any(trial.state == "running" for trial in trials):
                return None
            time.sleep(_PAUSE)  # Their owner may die, and then the trial is ours to finish.
        return None

    def run(self, claim: Claim) -> RunResult:
        """Run the trial, and stop it early if W&B's rule says so."""
        trial, out = claim.trial, self.config.out
        assert trial.point is not None
        with self._renewed(claim) as stop:
            run = TrialRun(
                config=trial_config(self.spec, trial.point, out),
                sweep=SweepTrial(self.spec.name, trial.number),
                run_name=trial.run_name,
                set_run_name=lambda name: self.store.set_run(trial.number, name),
                stop=stop,
            )
            return run_trial(run, lambda history: self._stop_reason(trial.number, history))

    def finish(self, claim: Claim, result: RunResult) -> None:
        """Commit the result, or give the trial back if it has none."""
        number = claim.trial.number
        if result.state in (State.FINISHED, State.STOPPED):
            self.store.finish(number, claim.number, outcome_of(result, self.spec))
        else:
            self.store.give_back(number, claim.number, str(result.state), result.error)

    def fail(self, claim: Claim, error: BaseException) -> None:
        """Give the trial back as failed; an OutputError ends the worker instead."""
        if isinstance(error, OutputError):
            raise error  # The next trial would not be able to write, either.
        self.store.give_back(claim.trial.number, claim.number, "failed", one_line(error))

    def _claim(self, trials: Iterable[Trial]) -> Claim | None:
        """Claim the first of these trials that can be claimed."""
        for trial in trials:
            number = self.store.claim(trial)
            if number is not None:
                return Claim(trial, number)
        return None

    def _propose(self, trials: Sequence[Trial]) -> bool:
        """Make the next trial, or a damaged one again; return False if there is none to make."""
        whole = {t.number: self._observation(t) for t in trials if t.point is not None}
        number = next(n for n in range(len(whole) + 1) if n not in whole)
        limit = self.config.limit
        if (limit is not None and number >= limit) or self._target_reached(trials):
            return False
        proposal = propose(self.spec, self.config.seed, [whole[n] for n in range(number)])
        if proposal is None:
            return False
        self.store.propose(number, proposal)
        return True

    def _target_reached(self, trials: Sequence[Trial]) -> bool:
        """Return whether a trial is as good as the metric's target, so that no new one is made."""
        values = [trial.value for trial in trials if trial.value is not None]
        return self.spec.metric is not None and any(map(self.spec.metric.reached, values))

    def _observation(self, trial: Trial) -> Observation:
        failed = trial.state == "failed" or (trial.over and trial.value is None)
        metric, latest = self.spec.metric, None
        if failed and metric and metric.impute == "latest" and trial.run_name:
            logged = logged_values(RunFiles(self.config.out, trial.run_name).table, metric)
            latest = next((v for v in reversed(logged) if math.isfinite(v)), None)
        return Observation(trial.point or {}, trial.value, failed, latest, trial.u)

    def _stop_reason(self, number: int, history: Sequence[EpochRecord]) -> StopReason | None:
        """Apply W&B's rule to all runs of the sweep as they stand on disk, and to this one."""
        rule, metric = self.spec.early_terminate, self.spec.metric
        if rule is None or metric is None:
            return None
        mine = values_of(history, metric)
        others = [t.run_name for t in self.store.trials() if t.number != number and t.run_name]
        tables = (RunFiles(self.config.out, name).table for name in others)
        return should_stop(
            rule, metric, mine, [mine, *(logged_values(table, metric) for table in tables)]
        )

    @contextmanager
    def _renewed(self, claim: Claim) -> Iterator[StopToken]:
        """Renew the claim in a thread; the token is set by SIGTERM and if the claim is lost."""
        stop, done = StopToken(lambda: self.stop.reason), threading.Event()

        def renew() -> None:
            while not done.wait(self.config.lease / 4):
                if not self.store.renew(claim.trial.number, claim.number):
                    stop.set(StopRequest(signal.SIGTERM))

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield stop
        finally:
            done.set()
            thread.join()

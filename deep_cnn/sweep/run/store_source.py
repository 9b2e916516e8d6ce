"""Take trials from the store that the workers of a sweep share."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deep_cnn.errors import OutputError
from deep_cnn.files import RunFiles
from deep_cnn.results import EpochRecord, RunResult, State, StopReason, SweepTrial
from deep_cnn.sweep.run.identity import check_code
from deep_cnn.sweep.run.pool import ASKED_TO_END, LOST_CLAIM
from deep_cnn.sweep.run.records import Trial, TrialOutcome
from deep_cnn.sweep.run.trial import (
    TrialRun,
    outcome_of,
    run_trial,
    trial_config,
    trial_title,
    values_of,
)
from deep_cnn.sweep.run.trial_search import StoreConfig, TrialSearch
from deep_cnn.sweep.run.work import WorkFolders
from deep_cnn.sweep.run.worker import TrialSource, one_line
from deep_cnn.training.stop import StopRequest, StopToken

# Workers that wait for the trials of others look so often, in seconds.
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this worker has claimed, and the number of the claim."""

    trial: Trial
    number: int


class StoreSource(TrialSource[Claim]):
    """Claims and proposes trials, which subclasses run; SIGTERM hands the current one back."""

    def __init__(self, config: StoreConfig) -> None:
        self.config, self.spec = config, config.spec
        self.store = config.open_store()
        self.work = WorkFolders(self.store.io, config.folder, config.out)
        self.search = TrialSearch(config, self.store, self.work)
        self.stop = StopToken()
        self._listen()

    def _listen(self) -> None:
        """Let SIGTERM end this process once its trial is handed back."""
        signal.signal(signal.SIGTERM, lambda number, frame: self.stop.set(StopRequest(number)))

    def take(self) -> Claim | None:
        """Claim a trial; return None when every one is over, and end this process after SIGTERM."""
        while self.stop.reason is None:
            self.search.look()
            trials = self.store.unfinished()
            # What has failed before comes last, or it could keep the rest from ever being run.
            claim = self._claim(trial for trial in trials if not trial.tried)
            if claim is None:
                proposed = self._propose()
                if proposed is not None:
                    claim = self._claim([proposed])
                    if claim is None:
                        continue  # Another worker was quicker.
            claim = claim or self._claim(trials)
            if claim is not None:
                return claim
            if not any(trial.state == "running" for trial in trials):
                return None
            time.sleep(_PAUSE)  # Their owner may die, and then the trial is ours to finish.
        # The pool replaces this worker, unless it was the pool that asked.
        raise SystemExit(ASKED_TO_END)

    def run(self, claim: Claim) -> RunResult:
        """Run the trial, and stop it early if W&B's rule says so."""
        with self._renewed(claim) as stop:
            return self._run(claim, stop)

    def _run(self, claim: Claim, stop: StopToken) -> RunResult:
        raise NotImplementedError

    def finish(self, claim: Claim, result: RunResult) -> None:
        """Commit the result, or give the trial back if it has none."""
        if result.state not in (State.FINISHED, State.STOPPED):
            self._give_back(claim, str(result.state), result.error)
            return
        number, run_name = claim.trial.number, result.run_name
        self._slim(self.work.files(number, claim.number, run_name))
        if self.store.finish(number, claim.number, self._outcome(claim, result)):
            self.work.publish(number, claim.number, run_name)
        else:
            self.work.discard(number)

    def _slim(self, files: RunFiles) -> None:
        """Make the files of a trial that is over smaller."""

    def _outcome(self, claim: Claim, result: RunResult) -> TrialOutcome:
        return outcome_of(result, self.spec, claim.number)

    def fail(self, claim: Claim, error: BaseException) -> None:
        """Give the trial back as failed; an OutputError ends the worker instead."""
        self._check_claim(claim)  # What was taken over cannot be written, but by its new owner.
        if isinstance(error, OutputError):
            raise error  # The next trial would not be able to write, either.
        self._give_back(claim, "failed", one_line(error))

    def _give_back(self, claim: Claim, state: str, error: str | None) -> None:
        number = claim.trial.number
        self.store.give_back(number, claim.number, state, error)
        self.search.look()
        trial = self.store.trial(number)
        if trial is not None and trial.state == "failed" and trial.run_name is not None:
            # For the claim after the sweep was started again, which finds the files there.
            self.store.set_run(number, trial.run_name)
            self.work.publish(number, claim.number, trial.run_name, keep_last=True)

    def _claim(self, trials: Iterable[Trial]) -> Claim | None:
        """Claim the first of these trials that can be claimed."""
        for trial in trials:
            twin = self.search.earlier_twin(trial)
            if twin is not None and not twin.over:
                continue  # Its result will be that of this trial, too.
            number = self.store.claim(trial)
            if number is not None and twin is not None and twin.outcome is not None:
                outcome = replace(twin.outcome, claim=None, same_as=twin.number)
                self.store.finish(trial.number, number, outcome)
            elif number is not None:
                return Claim(trial, number)
        return None

    def _propose(self) -> Trial | None:
        """Make the next trial, or a damaged one again; return None if there is none to make."""
        number = self.search.next_number
        proposal = self.search.propose()
        if proposal is None:
            return None
        if self.store.propose(number, proposal):
            self.search.take_in()
        else:
            # Another worker was quicker, and bayes may have proposed something else to it.
            self.search.look()
        return self.store.trial(number)

    def _open_files(self, claim: Claim) -> RunFiles:
        """Return the files of a claim, after its run has got a name that no other run has."""
        number, name = claim.trial.number, claim.trial.run_name
        if claim.number > 0:
            self.store.remove_leftovers()
        if name is None or not self.store.has_run(number):
            usual = self.store.usual_run_name(number)
            name = self.work.reserve(number, usual)
            if name != usual:
                self.store.set_run(number, name)
        return self.work.open(number, claim.number, name, self._is_whole)

    def _is_whole(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint can be resumed."""
        return False

    def _check_claim(self, claim: Claim) -> None:
        """Renew the claim; end this process at once if another one has taken the trial over.

        A regular end would mark W&B's run of the trial as finished.
        """
        if not self.store.renew(claim.trial.number, claim.number):
            self._leave()

    def _leave(self) -> None:
        os._exit(LOST_CLAIM)

    @contextmanager
    def _renewed(self, claim: Claim) -> Iterator[StopToken]:
        """Renew the claim in a thread while the trial runs; the token is set by SIGTERM."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(self.config.lease / 4):
                self._check_claim(claim)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield StopToken(lambda: self.stop.reason)
        finally:
            done.set()
            thread.join()


class TrainingSource(StoreSource):
    """Trains the network of each trial in this process."""

    def _run(self, claim: Claim, stop: StopToken) -> RunResult:
        trial = claim.trial
        assert trial.point is not None
        config = trial_config(self.spec, trial.point, self.config.out)
        check_code(config, self.config.code)
        run = TrialRun(
            config=config,
            sweep=SweepTrial(self.spec.name, trial.number),
            files=self._open_files(claim),
            stop=stop,
            title=trial_title(self.spec, trial.point),
            before_row=lambda: self._check_claim(claim),
        )

        def should_stop(history: Sequence[EpochRecord]) -> StopReason | None:
            values = values_of(history, self.spec.objective)
            return self.search.stop_reason(trial.number, values)

        return run_trial(run, should_stop)

    def _slim(self, files: RunFiles) -> None:
        from deep_cnn.training.checkpoint import drop_optimizer

        drop_optimizer(files.best)

    def _is_whole(self, checkpoint: Path) -> bool:
        from deep_cnn.training.checkpoint import is_whole

        return is_whole(checkpoint)

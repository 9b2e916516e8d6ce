"""A warm process that takes trials from the store until none is left."""

import logging
import math
import signal
import threading
import time
from collections.abc import Iterable, Sequence

from deep_cnn.errors import DeepCnnError, OutputError
from deep_cnn.runs import EpochRecord, RunFiles, State, StopReason
from deep_cnn.sweep.job import NO_ROOM, Job
from deep_cnn.sweep.objective import Objective, logged_values, outcome, target_reached, values_of
from deep_cnn.sweep.process import settle
from deep_cnn.sweep.search.early_stopping import should_stop
from deep_cnn.sweep.search.propose import Observation, propose
from deep_cnn.sweep.store import FolderStore, Trial, TrialStore

_LOGGER = logging.getLogger("deep_cnn")
_PAUSE = 0.1


def work(job: Job, slot: int) -> None:
    """Run trials until every one is over, or SIGTERM asks to hand the current one back."""
    settle(slot, job.threads)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        _Worker(job, asked).run()
    except OutputError:
        raise SystemExit(NO_ROOM) from None


class _Worker:
    def __init__(self, job: Job, asked: list[int]) -> None:
        self.job, self.asked = job, asked
        self.spec = job.spec
        self.store: TrialStore = FolderStore(job.folder, retries=job.retries, lease=job.lease)
        self.objective = Objective(self.spec, job.out)

    def run(self) -> None:
        while not self.asked:
            trials = self.store.trials()
            # What has failed before comes last, or it could keep the rest from ever being run.
            if self._take(t for t in trials if not t.tried) or self._propose(trials):
                continue
            if self._take(trials):
                continue
            if not any(trial.state == "running" for trial in trials):
                return
            time.sleep(_PAUSE)  # Their owner may die, and then the trial is ours to finish.

    def _take(self, trials: Iterable[Trial]) -> bool:
        """Claim one of these and run it; False where none can be claimed."""
        for trial in trials:
            claim = self.store.claim(trial)
            if claim is not None:
                self._trial(trial, claim)
                return True
        return False

    def _propose(self, trials: Sequence[Trial]) -> bool:
        """Make the next trial, or a damaged one again; False where there is none to make."""
        whole = {t.number: self._observation(t) for t in trials if t.point is not None}
        number = next(n for n in range(len(whole) + 1) if n not in whole)
        over = self.job.limit is not None and number >= self.job.limit
        if over or target_reached(self.spec, trials):
            return False
        proposal = propose(self.spec, self.job.seed, [whole[n] for n in range(number)])
        if proposal is None:
            return False
        self.store.propose(number, proposal)
        return True

    def _observation(self, trial: Trial) -> Observation:
        value = trial.outcome["value"] if trial.outcome else None
        failed = trial.state == "failed" or (trial.over and value is None)
        metric, latest = self.spec.metric, None
        if failed and metric and metric.impute == "latest" and trial.run_name:
            logged = logged_values(RunFiles(self.job.out, trial.run_name).table, metric)
            latest = next((v for v in reversed(logged) if math.isfinite(v)), None)
        return Observation(trial.point or {}, value, failed, latest, trial.u)

    def _trial(self, trial: Trial, claim: int) -> None:
        number = trial.number
        assert trial.point is not None
        lost = threading.Event()
        done = threading.Event()
        beat = threading.Thread(target=self._beat, args=(number, claim, lost, done), daemon=True)
        beat.start()
        state, error = "failed", None
        try:
            result = self.objective(
                trial.point,
                number,
                trial.run_name,
                lambda name: self.store.set_run(number, name),
                lambda: signal.SIGTERM if self.asked or lost.is_set() else None,
                lambda history: self._stop_reason(number, history),
            )
            if result.state in (State.FINISHED, State.STOPPED):
                self.store.finish(number, claim, outcome(result, self.spec))
                return
            state, error = str(result.state), result.error
        except OutputError:
            raise SystemExit(NO_ROOM) from None  # The next trial would fare no better.
        except DeepCnnError as fault:
            error = str(fault)
        except Exception as fault:  # Whatever it is costs this trial, not the sweep.
            error = f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
            _LOGGER.exception("Trial %d failed", number)
        finally:
            done.set()
            beat.join()
        self.store.give_back(number, claim, state, error)

    def _stop_reason(self, number: int, history: Sequence[EpochRecord]) -> StopReason | None:
        """Apply W&B's rule to all runs of the sweep as they stand on disk, and to this one."""
        rule, metric = self.spec.early_terminate, self.spec.metric
        if rule is None or metric is None:
            return None
        mine = values_of(history, metric)
        others = [t for t in self.store.trials() if t.number != number and t.run_name]
        tables = (RunFiles(self.job.out, str(trial.run_name)).table for trial in others)
        return should_stop(
            rule, metric, mine, [mine, *(logged_values(table, metric) for table in tables)]
        )

    def _beat(self, number: int, claim: int, lost: threading.Event, done: threading.Event) -> None:
        while not done.wait(self.job.lease / 4):
            if not self.store.renew(number, claim):
                lost.set()

"""Run a sweep with local workers: start them, watch over them, show how far they are."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from deep_cnn.errors import OutputError, SpecError
from deep_cnn.files import safe_name
from deep_cnn.progress import ProgressBar, progress_bar
from deep_cnn.resolve import resolve
from deep_cnn.sweep.run.pool import WorkerPool
from deep_cnn.sweep.run.process import default_workers, threads_each
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.store import LEASE, FolderStore
from deep_cnn.sweep.run.store_source import StoreConfig, StoreSource
from deep_cnn.sweep.run.table import best_trials, write_table
from deep_cnn.sweep.run.worker import WorkerConfig, start_worker
from deep_cnn.sweep.spec.command import DEEP_CNN_COMMAND
from deep_cnn.sweep.spec.points import Proposal, first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key, to_jsonable
from deep_cnn.training.stop import StopToken

_PAUSE = 0.2
_GRACE = 25.0


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """The trials of a sweep when the engine ends, and the signal or error that ended it."""

    trials: tuple[Trial, ...]
    signal: int | None = None
    error: str | None = None

    @property
    def failed(self) -> list[Trial]:
        """The trials that were given up."""
        return [trial for trial in self.trials if trial.state == "failed"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How trials are run here.

    Attributes:
        workers: How many run at once, or None for `default_workers`.
        seed: The seed of the search.
        retries: How often a failed trial is tried again.
        stop: Ends the sweep when it is set.
    """

    workers: int | None = None
    seed: int = 0
    retries: int = 1
    stop: StopToken = field(default_factory=StopToken)


def run_sweep(
    spec: SweepSpec, out: Path, options: EngineOptions, count: int | None = None
) -> SweepSummary:
    """Run every trial of a sweep that is not over yet; see also `check_runnable`.

    Args:
        spec: The sweep.
        out: The folder for results.
        options: How trials are run.
        count: The number of trials at most, beside the sweep's run_cap.

    Raises:
        SpecError: The folder has another sweep of this name.
    """
    resolve(spec.config(first_points(spec, options.seed, 1)[0]))  # What is wrong in all of them.
    limit = min((n for n in (spec.run_cap, count) if n is not None), default=None)
    config = _store_config(spec, out, options, limit)
    store = _open(config)
    total = min((n for n in (spec.points, limit) if n is not None), default=None)
    return _Engine(config, store, options, total).run()


def run_points(
    spec: SweepSpec, suffix: str, points: Sequence[Point], out: Path, options: EngineOptions
) -> SweepSummary:
    """Run these configurations of a sweep to their end, as trials of a sweep `<name><suffix>`."""
    # Nothing is proposed beyond a limit of 0.
    config = _store_config(_without_search(spec, suffix), out, options, limit=0)
    store = _open(config)
    known = {canonical_key(trial.point) for trial in store.trials()}
    for point in points:
        if canonical_key(point) not in known:
            known.add(canonical_key(point))
            store.propose(len(store.trials()), Proposal(point))
    return _Engine(config, store, options, total=len(store.trials())).run()


def _without_search(spec: SweepSpec, suffix: str) -> SweepSpec:
    """Return the sweep `<name><suffix>`, in which every trial runs to its end."""
    name = f"{spec.name}{suffix}"
    content = {k: v for k, v in spec.content.items() if k not in ("early_terminate", "run_cap")}
    content = {**to_jsonable(content), "name": name}
    return replace(spec, name=name, content=content, early_terminate=None, run_cap=None)


def _store_config(
    spec: SweepSpec, out: Path, options: EngineOptions, limit: int | None
) -> StoreConfig:
    return StoreConfig(
        spec=spec,
        folder=out / "sweeps" / safe_name(spec.name),
        out=out,
        seed=options.seed,
        retries=options.retries,
        limit=limit,
        lease=float(os.environ.get("DEEP_CNN_LEASE", LEASE)),
    )


def _open(config: StoreConfig) -> FolderStore:
    """Begin the sweep or go on with it; trials that were given up are tried again."""
    store = config.open_store()
    store.open(config.spec.content, config.seed)
    store.reopen()
    return store


def check_runnable(spec: SweepSpec, file: Path, count: int | None) -> None:
    """Raise SpecError if the sweep of a `file` cannot run here, or would never end."""
    if not spec.runs_deep_cnn:
        raise SpecError(
            f"{file}: the command does not run deep_cnn; write {DEEP_CNN_COMMAND} (the search of"
            " other programs is planned by check and sample, but not run)"
        )
    if spec.method == "custom":
        raise SpecError(
            f"{file}: method custom runs on W&B's scheduler only; use grid, random or bayes"
        )
    if spec.points is None and spec.run_cap is None and count is None:
        raise SpecError(
            f"{file}: this search has no end; add run_cap: 20 to the file, or --count=20"
        )


class _Engine:
    """Watches over the workers, and keeps trials.csv and the display current."""

    def __init__(
        self, config: StoreConfig, store: FolderStore, options: EngineOptions, total: int | None
    ) -> None:
        self.spec, self.store, self.stop, self.total = config.spec, store, options.stop, total
        workers = options.workers or default_workers(self.spec.method, total)
        worker = WorkerConfig(threads_each(workers), partial(StoreSource, config))
        self.pool = WorkerPool(partial(start_worker, worker), workers, _GRACE, config.out)
        self.written: list[Trial] = []
        self.claims = -1
        self.counted: dict[int, tuple[bool, int]] = {}
        self.last_status: tuple[int, list[str]] = (-1, [])

    def run(self) -> SweepSummary:
        """Run the sweep; its files are complete afterwards, however it ended."""
        with progress_bar(self.spec.name, self.total, "trial") as bar:
            try:
                return self._watch(bar)
            finally:
                self.pool.stop()
                with suppress(OutputError):
                    trials = self.store.trials()
                    self._write(trials)
                    self._export(trials)

    def _watch(self, bar: ProgressBar) -> SweepSummary:
        self.pool.start()
        while True:
            trials = self.store.trials()
            self._write(trials)
            self._display(bar, trials)
            signum = self.stop.signum
            if signum is not None:
                return self._stopped(signal=signum)
            self._count(trials)
            if self.pool.error:
                return self._stopped(error=self.pool.error)
            self.pool.replace_dead()
            if self.pool.done:
                return SweepSummary(tuple(self.store.trials()))
            time.sleep(_PAUSE)

    def _stopped(self, signal: int | None = None, error: str | None = None) -> SweepSummary:
        self.pool.stop()
        return SweepSummary(tuple(self.store.trials()), signal, error)

    def _count(self, trials: Sequence[Trial]) -> None:
        """Report to the pool what has begun, succeeded and failed since the last look."""
        claims = sum(trial.claim + 1 for trial in trials)
        if claims != self.claims:
            self.claims = claims
            self.pool.record_begin()
        for trial in trials:
            was_over, failures = self.counted.get(trial.number, (False, 0))
            if trial.over and not was_over:
                self.pool.record_success()
            elif trial.failures > failures:
                self.pool.record_failure(trial.number, trial.error)
                if self.pool.error:
                    return
            self.counted[trial.number] = (trial.over, trial.failures)

    def _display(self, bar: ProgressBar, trials: Sequence[Trial]) -> None:
        """Update the progress bar, or print a line where there is no terminal."""
        states = [trial.state for trial in trials]
        over = sum(trial.over for trial in trials)
        best = best_trials(self.spec, trials)
        parts = [f"{states.count(state)} {state}" for state in ("running", "failed")]
        if best:
            parts.append(f"best {best[0].value:.4g}")
        bar.n = over
        bar.set_postfix_str(", ".join(parts), refresh=True)
        if bar.disable and (over, parts) != self.last_status:
            total = "" if bar.total is None else f" of {bar.total}"
            print(f"{self.spec.name}: {over}{total} over, {', '.join(parts)}", file=sys.stderr)
        self.last_status = (over, parts)

    def _write(self, trials: list[Trial]) -> None:
        """Keep trials.csv current."""
        if trials != self.written:
            self.written = trials
            write_table(self.store.folder / "trials.csv", self.spec, trials)

    def _export(self, trials: Sequence[Trial]) -> None:
        """Write the study, a copy for other programs: without it nothing is lost."""
        from deep_cnn.sweep.run.export import export_study  # Optuna takes a while.

        path = self.store.folder / "optuna.db"
        try:
            export_study(self.spec, trials, path)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"{path} could not be written ({text[:200]})", file=sys.stderr)

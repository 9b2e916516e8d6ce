"""Run a sweep with local workers: start them and watch over them."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from deep_cnn.errors import OutputError
from deep_cnn.files import RunFiles, safe_name
from deep_cnn.progress import progress_bar
from deep_cnn.sweep.run.data_check import check_data
from deep_cnn.sweep.run.display import SweepDisplay
from deep_cnn.sweep.run.identity import SweepRecord, continue_sweep
from deep_cnn.sweep.run.pool import WorkerPool
from deep_cnn.sweep.run.process import default_workers, init_worker, threads_each
from deep_cnn.sweep.run.program.environment import ProgramOptions
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.store import FolderStore, lease_seconds
from deep_cnn.sweep.run.store_source import TrainingSource
from deep_cnn.sweep.run.table import best_trials, write_table
from deep_cnn.sweep.run.trial_search import StoreConfig
from deep_cnn.sweep.run.work import WorkFolders
from deep_cnn.sweep.run.worker import WorkerConfig, start_worker
from deep_cnn.sweep.run.writer import Writer
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.text import printable
from deep_cnn.training.stop import StopToken

_PAUSE = 0.5
_GRACE = 25.0
# How far trials.csv may be behind, in seconds.
_TABLE_PAUSE = 4.0


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
        is_pilot: Join a sweep that others run, too: do not try its failed trials again.
        keep: How many of the best trials keep their checkpoint, or None for all.
        program: How the program is run, if that is not deep_cnn.
    """

    workers: int | None = None
    seed: int = 0
    retries: int = 1
    stop: StopToken = field(default_factory=StopToken)
    is_pilot: bool = False
    keep: int | None = None
    program: ProgramOptions = field(default_factory=ProgramOptions)


class LocalSweep:
    """A sweep in its folder, to be run here.

    Args:
        spec: The sweep.
        out: The folder for results.
        options: How trials are run.
        limit: The number of trials at most.

    Raises:
        SpecError: The folder has another sweep of this name, or other data.
        ConfigError: DEEP_CNN_LEASE is not a positive number.
        Interrupted: The sweep was asked to end while the data were read.
    """

    def __init__(
        self,
        spec: SweepSpec,
        out: Path,
        options: EngineOptions,
        limit: int | None,
        *,
        reads_data: bool = False,
    ) -> None:
        folder = out / "sweeps" / safe_name(spec.name)
        path = folder / "sweep.json"
        self.options, self.spec = options, spec
        self.is_of_earlier_version = False

        def update(known: SweepRecord | None) -> SweepRecord:
            self.spec, record = continue_sweep(path, known, spec, options.seed)
            self.code = record.code or {}
            self.is_of_earlier_version |= known is not None and known.code is None
            if not reads_data:
                return record
            self.spec, record = check_data(
                path, record, self.spec, options.stop, is_new=known is None
            )
            return record

        self.store = FolderStore(folder, retries=options.retries, lease=lease_seconds())
        self.store.open(update)
        self.config = StoreConfig(
            spec=self.spec,
            folder=folder,
            out=out,
            seed=options.seed,
            retries=options.retries,
            limit=limit,
            lease=self.store.owners.lease,
            code=self.code,
        )
        self.work = WorkFolders(self.store.io, folder, out)
        self.work.make_folders()
        self.work.publish_rest(self.store.trial)
        self.writer = Writer(self.store.io, folder, self.store.owners, is_pilot=options.is_pilot)
        if not options.is_pilot:
            self.store.reopen()

    def run(self, total: int | None) -> SweepSummary:
        """Run every trial that is not over; `total` is how many there will be, if that is known."""
        return _Engine(self, total).run()

    def close(self, trials: Sequence[Trial], *, export: bool) -> None:
        """Write the study for Optuna if `export`, unless another process is to write it."""
        try:
            if export and (self.writer.take() or self.writer.is_held_by_pilot):
                self._export(trials)
        finally:
            self.writer.release()

    def _export(self, trials: Sequence[Trial]) -> None:
        """Write the study, a copy for other programs: without it nothing is lost."""
        path = self.config.folder / "optuna.db"
        try:
            from deep_cnn.sweep.run.export import export_study  # Optuna takes a while.

            export_study(self.config.spec, trials, path)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(printable(f"{path} could not be written ({text[:200]})"), file=sys.stderr)


def open_sweep(
    spec: SweepSpec, out: Path, options: EngineOptions, count: int | None = None
) -> tuple[LocalSweep, int | None]:
    """Return a sweep that is to be run here, and how many trials there will be if that is known.

    Its `spec` has what the sweep on disk adds to the file. The data are read, so that what is
    wrong in all trials ends the sweep before it begins.

    Args:
        spec: The sweep.
        out: The folder for results.
        options: How trials are run.
        count: The number of trials at most, beside the sweep's run_cap.
    """
    limit = min((n for n in (spec.run_cap, count) if n is not None), default=None)
    total = min((n for n in (spec.points, limit) if n is not None), default=None)
    return LocalSweep(spec, out, options, limit, reads_data=spec.runs_deep_cnn), total


class _Engine:
    """Watches over the workers, and keeps trials.csv and the display current."""

    def __init__(self, sweep: LocalSweep, total: int | None) -> None:
        config, options = sweep.config, sweep.options
        self.sweep, self.spec, self.store = sweep, config.spec, sweep.store
        self.stop, self.total = options.stop, total
        trains = self.spec.runs_deep_cnn
        workers = options.workers or default_workers(self.spec.method, total, trains=trains)
        worker = _worker(config, workers, options.program)
        self.pool = WorkerPool(partial(start_worker, worker), workers, _GRACE, config.out)
        self.seen: dict[int, Trial] = {}
        self.states: Counter[str] = Counter()
        self.best: float | None = None
        self.pruned: set[int] = set()
        self.is_table_current = False
        self.table_due = 0.0

    def run(self) -> SweepSummary:
        """Run the sweep; its files are complete afterwards, however it ended."""
        with progress_bar(printable(self.spec.name), self.total, "trial") as bar:
            try:
                config = self.sweep.config
                display = SweepDisplay(self.spec, config.out, self.sweep.work, bar)
                return self._watch(display)
            finally:
                self.pool.stop()
                with suppress(OutputError):
                    self.store.look()
                    self._count()
                    self.sweep.work.publish_rest(self.store.trial)
                    self._write_table()

    def _watch(self, display: SweepDisplay) -> SweepSummary:
        self._count(is_new=False)  # What failed before this start does not count against it.
        if self.stop.signum is None:
            self.pool.start()
        while True:
            self.store.look()
            self._count()
            running = [trial for trial in self.store.unfinished() if trial.state == "running"]
            display.show(self.states, self.best, running)
            if time.monotonic() >= self.table_due:
                self.sweep.work.publish_rest(self.store.trial)
                self._write_table()
            signum = self.stop.signum
            if signum is not None or self.pool.error:
                self.pool.stop()
                error = None if signum is not None else self.pool.error
                return SweepSummary(tuple(self.store.trials()), signum, error)
            self.pool.replace_dead()
            if self.pool.done:
                self.sweep.writer.take_at_the_end()
                return SweepSummary(tuple(self.store.trials()))
            time.sleep(_PAUSE)

    def _count(self, *, is_new: bool = True) -> None:
        """Count the trials that have changed, and report what is new to the pool."""
        for trial in self.store.changes():
            before = self.seen.get(trial.number, Trial(trial.number, None, state=""))
            self.seen[trial.number] = trial
            self.is_table_current = False
            self.states[before.state] -= 1
            self.states[trial.state] += 1
            if trial.value is not None:
                values = [value for value in (self.best, trial.value) if value is not None]
                self.best = self.spec.objective.best(values)
            if not is_new:
                continue
            if trial.claim > before.claim:
                self.pool.record_begin()
            if trial.over and not before.over:
                self.pool.record_success()
            elif trial.failures > before.failures and not self.pool.error:
                self.pool.record_failure(trial.number, trial.error)

    def _prune(self) -> None:
        """Remove the checkpoints of trials that are over and not among the best to keep."""
        keep, over = self.sweep.options.keep, [t for t in self.seen.values() if t.over]
        if keep is None:
            return
        best = {trial.run_name for trial in best_trials(self.spec, over)[:keep]}
        for trial in over:
            if trial.run_name not in best and trial.number not in self.pruned and trial.run_name:
                checkpoint = RunFiles(self.sweep.config.out, trial.run_name).best
                if self.store.io.exists(checkpoint):  # Otherwise it is not published yet.
                    self.pruned.add(trial.number)
                    self.store.io.remove(checkpoint)

    def _write_table(self) -> None:
        """Write trials.csv if it is not current and no other process does."""
        self.table_due = time.monotonic() + _TABLE_PAUSE
        if self.sweep.writer.take() and not self.is_table_current:
            self._prune()
            path = self.sweep.config.folder / "trials.csv"
            write_table(path, self.spec, [self.seen[number] for number in sorted(self.seen)])
            self.is_table_current = True


def _worker(config: StoreConfig, workers: int, program: ProgramOptions) -> WorkerConfig:
    """Return how each of so many workers is started."""
    threads = threads_each(workers)
    if config.spec.runs_deep_cnn:
        return WorkerConfig(partial(init_worker, threads=threads), partial(TrainingSource, config))
    from deep_cnn.sweep.run.program.source import ProgramSource, begin_program_worker

    return WorkerConfig(
        partial(begin_program_worker, threads=threads if workers > 1 else None),
        partial(ProgramSource, config, program),
        preload="deep_cnn.sweep.run.program.preload",
    )

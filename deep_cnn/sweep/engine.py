"""Run a sweep with local workers: start them, watch over them, show how far they are."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deep_cnn.errors import OutputError, SpecError
from deep_cnn.resolve import resolve
from deep_cnn.runs import safe_name
from deep_cnn.sweep.job import NO_ROOM, Job
from deep_cnn.sweep.process import default_workers, threads_each, warm_context
from deep_cnn.sweep.spec.command import DEEP_CNN_COMMAND
from deep_cnn.sweep.spec.points import Proposal, first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key, to_jsonable
from deep_cnn.sweep.store import LEASE, FolderStore, Trial
from deep_cnn.sweep.table import best_trials, write_table

_PAUSE = 0.2
_MOST_IN_A_ROW = 5
_GRACE = 25.0


@dataclass(frozen=True, slots=True)
class Swept:
    """How a sweep stands when the engine leaves it."""

    trials: tuple[Trial, ...]
    signal: int | None = None
    error: str | None = None

    @property
    def failed(self) -> list[Trial]:
        """The trials that were given up."""
        return [trial for trial in self.trials if trial.state == "failed"]


def run_sweep(
    spec: SweepSpec,
    out: Path,
    *,
    workers: int | None = None,
    seed: int = 0,
    retries: int = 1,
    count: int | None = None,
    signalled: Callable[[], int | None] = lambda: None,
) -> Swept:
    """Run every trial of a sweep that is not over yet; results go to `out`.

    `workers` is how many run at once, None for `default_workers`; see also `check_runnable`.
    SpecError for a sweep that is another one than on disk.
    """
    resolve(spec.config(first_points(spec, seed, 1)[0]))  # An error in all, such as no data.
    store = _store(out, spec.name, retries)
    store.open(spec.content, seed)
    store.reopen()
    limit = min((n for n in (spec.run_cap, count) if n is not None), default=None)
    ends = [n for n in (spec.points, limit) if n is not None]
    total = min(ends) if ends else None
    return _Engine(spec, out, store, workers, seed, limit, total, signalled).run()


def run_points(
    spec: SweepSpec,
    suffix: str,
    points: Sequence[Point],
    out: Path,
    *,
    workers: int | None = None,
    seed: int = 0,
    retries: int = 1,
    signalled: Callable[[], int | None] = lambda: None,
) -> Swept:
    """Run these configurations of a sweep to their end, as trials of a sweep `<name><suffix>`."""
    derived = _without_search(spec, suffix)
    store = _store(out, derived.name, retries)
    store.open(derived.content, seed)
    store.reopen()
    known = {canonical_key(trial.point) for trial in store.trials()}
    for point in points:
        if canonical_key(point) not in known:
            known.add(canonical_key(point))
            store.propose(len(store.trials()), Proposal(point))
    total = len(store.trials())
    # Nothing is proposed beyond a limit of 0.
    return _Engine(derived, out, store, workers, seed, 0, total, signalled).run()


def _without_search(spec: SweepSpec, suffix: str) -> SweepSpec:
    """Return the sweep `<name><suffix>`, in which every trial runs to its end."""
    name = f"{spec.name}{suffix}"
    content = {k: v for k, v in spec.content.items() if k not in ("early_terminate", "run_cap")}
    content = {**to_jsonable(content), "name": name}
    return replace(spec, name=name, content=content, early_terminate=None, run_cap=None)


def _store(out: Path, name: str, retries: int) -> FolderStore:
    lease = float(os.environ.get("DEEP_CNN_LEASE", LEASE))
    return FolderStore(out / "sweeps" / safe_name(name), retries=retries, lease=lease)


def check_runnable(spec: SweepSpec, file: Path, count: int | None) -> None:
    """Raise SpecError for the sweep of a `file` that cannot run here, or would never end."""
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
    def __init__(
        self,
        spec: SweepSpec,
        out: Path,
        store: FolderStore,
        workers: int | None,
        seed: int,
        limit: int | None,
        total: int | None,
        signalled: Callable[[], int | None],
    ) -> None:
        self.spec, self.store, self.out = spec, store, out
        self.workers = workers or default_workers(spec.method, total)
        self.total, self.signalled = total, signalled
        self.job = Job(
            spec=spec,
            folder=store.folder,
            out=out,
            seed=seed,
            retries=store.retries,
            limit=limit,
            lease=store.lease,
            threads=threads_each(self.workers),
        )
        self.context = warm_context()
        self.processes: dict[int, BaseProcess] = {}
        self.written: Sequence[Trial] = ()
        self.ends: dict[int, tuple[str, int]] = {}
        self.deaths = 0
        self.in_a_row: set[int] = set()
        self.claims = -1
        self.shown: tuple[int, list[str]] = (-1, [])

    def run(self) -> Swept:
        quiet = not sys.stderr.isatty()
        with tqdm(
            total=self.total, desc=self.spec.name, unit="trial", file=sys.stderr, disable=quiet
        ) as bar:
            try:
                return self._watch(bar)
            finally:
                self._stop_workers()
                with suppress(OutputError):
                    trials = self.store.trials()
                    self._write(trials)
                    self._export(trials)

    def _export(self, trials: Sequence[Trial]) -> None:
        """The study is a copy for other programs: without it nothing is lost."""
        from deep_cnn.sweep.export import export_study  # Optuna takes a while.

        path = self.store.folder / "optuna.db"
        try:
            export_study(self.spec, trials, path)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"{path} could not be written ({text[:200]})", file=sys.stderr)

    def _watch(self, bar: "tqdm[Any]") -> Swept:
        for slot in range(self.workers):
            self._start(slot)
        while True:
            trials = self.store.trials()
            self._write(trials)
            self._show(bar, trials)
            signum = self.signalled()
            if signum is not None:
                return Swept(self._after_stop(), signal=signum)
            error = self._five_in_a_row(trials) or self._dying(trials)
            if error:
                return Swept(self._after_stop(), error=error)
            if not self._keep_workers():
                return Swept(tuple(self.store.trials()))
            time.sleep(_PAUSE)

    def _after_stop(self) -> tuple[Trial, ...]:
        self._stop_workers()
        return tuple(self.store.trials())

    def _start(self, slot: int) -> None:
        process = self.context.Process(
            target=_work, args=(self.job, slot), name=f"worker {slot}", daemon=False
        )
        process.start()
        self.processes[slot] = process

    def _keep_workers(self) -> bool:
        """Put a new worker in the place of one that died; False when all have done their part."""
        for slot, process in list(self.processes.items()):
            if process.exitcode is None:
                continue
            del self.processes[slot]
            if process.exitcode == NO_ROOM:
                raise OutputError(
                    f"{self.out}: a worker could not write there; make room or permission, and"
                    " give the same command again: nothing that was finished is lost"
                )
            if process.exitcode != 0:
                self.deaths += 1
                self._start(slot)
        return bool(self.processes)

    def _stop_workers(self) -> None:
        for process in self.processes.values():
            process.terminate()
        end = time.monotonic() + _GRACE
        for process in self.processes.values():
            process.join(max(0.1, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        self.processes.clear()

    def _dying(self, trials: Sequence[Trial]) -> str | None:
        """What to say when workers die before they come to claim a trial."""
        claims = sum(trial.claim + 1 for trial in trials)
        if claims != self.claims:
            self.claims, self.deaths = claims, 0
        if self.deaths >= _MOST_IN_A_ROW:
            return f"{self.deaths} workers died before they began a trial; is there memory enough?"
        return None

    def _five_in_a_row(self, trials: Sequence[Trial]) -> str | None:
        """The last error, after five trials failed without a success in between."""
        for trial in trials:
            now = ("over", 0) if trial.over else (trial.state, trial.failures)
            before = self.ends.get(trial.number, ("", 0))
            if trial.over and before[0] != "over":
                self.in_a_row.clear()
            elif trial.failures > before[1]:
                self.in_a_row.add(trial.number)  # Its second failure tells nothing about others.
                if len(self.in_a_row) >= _MOST_IN_A_ROW:
                    return f"{len(self.in_a_row)} failures in a row, the last one: {trial.error}"
            self.ends[trial.number] = now
        return None

    def _show(self, bar: "tqdm[Any]", trials: Sequence[Trial]) -> None:
        states = [trial.state for trial in trials]
        over = sum(trial.over for trial in trials)
        best = best_trials(self.spec, trials)
        shown = [f"{states.count(state)} {state}" for state in ("running", "failed")]
        if best and best[0].outcome:
            shown.append(f"best {best[0].outcome['value']:.4g}")
        bar.n = over
        bar.set_postfix_str(", ".join(shown), refresh=True)
        if bar.disable and (over, shown) != self.shown:
            total = "" if bar.total is None else f" of {bar.total}"
            print(f"{self.spec.name}: {over}{total} over, {', '.join(shown)}", file=sys.stderr)
        self.shown = (over, shown)

    def _write(self, trials: Sequence[Trial]) -> None:
        """Keep trials.csv current."""
        if list(trials) != list(self.written):
            self.written = list(trials)
            write_table(self.store.folder / "trials.csv", self.spec, trials)


def _work(job: Job, slot: int) -> None:
    from deep_cnn.sweep.worker import work

    work(job, slot)

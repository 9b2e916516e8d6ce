"""Run the trials of a sweep as programs of their own."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

from deep_cnn.files import RunFiles, numbered_names
from deep_cnn.results import RunResult, StopReason, SweepTrial
from deep_cnn.streams import write_at_once
from deep_cnn.sweep.run.pool import LOST_CLAIM
from deep_cnn.sweep.run.process import begin_worker, gpus
from deep_cnn.sweep.run.program.attempt import Program, run_attempt
from deep_cnn.sweep.run.program.descendants import (
    become_subreaper,
    end,
    end_descendants,
    with_variable,
)
from deep_cnn.sweep.run.program.environment import (
    COOKIE,
    Attempt,
    ProgramOptions,
    program_command,
    program_environment,
    sweep_id,
    write_parameters,
)
from deep_cnn.sweep.run.program.program import Watch
from deep_cnn.sweep.run.program.values import Output, run_folders
from deep_cnn.sweep.run.records import TrialOutcome
from deep_cnn.sweep.run.store_source import Claim, StoreSource
from deep_cnn.sweep.run.trial import outcome_of
from deep_cnn.sweep.run.trial_search import StoreConfig
from deep_cnn.sweep.spec.values import Point, to_jsonable
from deep_cnn.text import printable
from deep_cnn.training.stop import StopToken


class ProgramSource(StoreSource):
    """Claims trials as any worker does, and runs the program of the sweep for each."""

    def __init__(self, config: StoreConfig, options: ProgramOptions) -> None:
        super().__init__(config)
        self.options = options
        self.sweep_id = sweep_id(self.store.io, config.folder)

    def _run(self, claim: Claim, stop: StopToken) -> RunResult:
        number, point = claim.trial.number, claim.trial.point
        assert point is not None
        attempt = self._attempt(claim)
        # Before its files are opened: what survived an earlier attempt might write to them.
        if claim.number > 0:
            end(lambda: with_variable(COOKIE, attempt.cookie))
            self._set_aside(claim, attempt)
        files = self._open_files(claim)
        write_parameters(self.spec, point, attempt)
        environment = program_environment(self.spec, attempt, self.options, os.environ)
        program = Program(
            command=program_command(self.spec, point, attempt),
            environment=environment,
            arguments=to_jsonable(self.spec.leaves(point)),
            files=files,
            trial=SweepTrial(self.spec.name, number),
            metric=self.spec.metric,
            run_id=attempt.run_id,
            shown=self._shown(point, attempt),
            metric_file=self.options.metric_path(environment),
            say=self._say_once,
        )

        return self._execute(program, number, stop)

    def _shown(self, point: Point, attempt: Attempt) -> str:
        return shlex.join(program_command(self.spec, point, attempt, hides_variables=True))

    def _execute(self, program: Program, number: int, stop: StopToken) -> RunResult:
        """Run the program of a trial to its end."""

        def judge(values: Sequence[float]) -> StopReason | None:
            return self.search.stop_reason(number, values)

        return run_attempt(program, lambda values: Watch(program, values, judge, stop).run())

    def _say_once(self, kind: str, text: str) -> None:
        """Show the user a text of a kind; all workers together do it once for a sweep."""
        if kind == "client" and self.spec.early_terminate is None:
            return
        if self.store.io.create(self.config.folder / f"said.{kind}", text):
            write_at_once(printable(f"{self.spec.name}: {text}"))

    def _attempt(self, claim: Claim) -> Attempt:
        config = self.config
        work = config.folder / "work" / f"{claim.trial.number:05d}.{claim.number}"
        return Attempt(
            claim.trial.number, claim.number, self.sweep_id, config.folder, config.out, work
        )

    def _set_aside(self, claim: Claim, attempt: Attempt) -> None:
        """Move what W&B's client kept of earlier attempts, which must not be uploaded."""
        name, number = claim.trial.run_name or "", claim.trial.number
        earlier = [self.work.files(number, k, name) for k in range(claim.number)]
        folders = run_folders(self.config.out / "wandb", attempt.run_id)
        for files in (*earlier, RunFiles(self.config.out, name)):
            output = Output(files.log, 0)  # A program may keep its run elsewhere, and says so.
            output.read()
            folders += [path for path in output.saved_in if path.name.endswith(attempt.run_id)]
        for folder in {path.resolve(): None for path in folders if path.is_dir()}:
            if folder.name.startswith("offline-run-"):
                target = folder.parent / "superseded"
                self.store.io.make_folders(target)
                names = numbered_names(folder.name)  # Two may have begun in the same second.
                free = next(name for name in names if not self.store.io.exists(target / name))
                self.store.io.move(folder, target / free)

    def _outcome(self, claim: Claim, result: RunResult) -> TrialOutcome:
        outcome = outcome_of(result, self.spec, claim.number)
        return replace(outcome, value=result.best.value if result.best else None)

    def _leave(self) -> None:
        end_descendants()
        os._exit(LOST_CLAIM)


def begin_program_worker(slot: int, *, threads: int | None) -> None:
    """Make this process a worker for programs, which end with it.

    Args:
        slot: The number of the worker, by which it takes a GPU.
        threads: The number of cores for each program, or None if there is but one.
    """
    become_subreaper()
    begin_worker(end_descendants, handler=_ignore)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = named.split(",") if named else [str(i) for i in range(gpus())]
    if there:
        os.environ["CUDA_VISIBLE_DEVICES"] = there[slot % len(there)]
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN, this is not inherited by programs."""

"""Take trials from W&B's server, which the agent passes on through a pipe."""

import logging
import os
import queue
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from deep_cnn.argv import parse_run
from deep_cnn.config import TrainConfig
from deep_cnn.errors import DeepCnnError
from deep_cnn.resolve import resolve
from deep_cnn.results import RunResult, SweepTrial
from deep_cnn.sweep.run.worker import TrialSource, one_line
from deep_cnn.sweep.spec.command import expand, program_end
from deep_cnn.sweep.wandb_agent.messages import (
    Assignment,
    EndWorker,
    Notice,
    ReportDeath,
    RunEnded,
    StopRun,
    ToAgent,
    ToWorker,
)
from deep_cnn.sweep.wandb_agent.wandb_trial import report_death, report_failure, run_assigned
from deep_cnn.tracking import RemoteRun
from deep_cnn.training.stop import StopRequest, StopToken

# A run that is handed back ends as one that a scheduler preempts.
_PREEMPTED = getattr(signal, "SIGUSR1", signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class WandbConfig:
    """The settings of a sweep on W&B's server that a worker needs.

    Attributes:
        entity: The user or team that owns the sweep.
        project: Its project.
        sweep_id: Its id.
        command: Its command, with macros.
        program: Its program.
        searched: The options that it searches.
    """

    entity: str | None
    project: str
    sweep_id: str
    command: tuple[str, ...]
    program: str
    searched: tuple[str, ...] = ()


class WandbSource(TrialSource[Assignment]):
    """A source of the runs that the agent sends and stops; it ignores SIGTERM."""

    def __init__(self, config: WandbConfig, connection: Connection) -> None:
        self.config, self.connection = config, connection
        self.waiting: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        # Requests to stop a run, which may arrive before it begins or after it is over.
        self.stops: dict[str, StopRequest] = {}
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The agent's own connection to W&B would keep a run that its worker can no longer end.
        os.environ.pop("WANDB_SERVICE", None)
        os.environ.pop("WANDB_MODE", None)
        os.environ["WB_PROJECT"] = config.project  # The agent's, whatever the environment had.
        if config.entity:
            os.environ["WB_USER"] = config.entity
        logging.getLogger("deep_cnn").addHandler(_Notices(self))
        threading.Thread(target=self._receive, daemon=True).start()

    def take(self) -> Assignment | None:
        """Wait for an assignment; return None when the agent asks to end."""
        while True:
            message = self.waiting.get()
            if isinstance(message, Assignment):
                return message
            if isinstance(message, EndWorker):
                return None
            if isinstance(message, ReportDeath):
                assignment = message.assignment
                with suppress(DeepCnnError):
                    config = self._run_config(assignment)
                    sweep, remote = self._ids(assignment)
                    report_death(config, sweep, message.error, remote)

    def run(self, assignment: Assignment) -> RunResult:
        """Run an assignment."""
        config = self._run_config(assignment)
        sweep, remote = self._ids(assignment)
        stop = StopToken(lambda: self.stops.get(assignment.run_id))
        return run_assigned(config, sweep, stop, remote, self.config.searched)

    def finish(self, assignment: Assignment, result: RunResult) -> None:
        """Report to the agent how the run ended."""
        best = result.best
        text = f"best {best.metric}={best.value:.6g}" if best else result.error or ""
        self._end(assignment, RunEnded(str(result.state), f"{result.run_name} {text}"))

    def fail(self, assignment: Assignment, error: BaseException) -> None:
        """Report to the agent that the run failed; the next run may write to another folder."""
        self._end(assignment, RunEnded("failed", one_line(error)))

    def send(self, message: ToAgent) -> None:
        """Send a message to the agent."""
        self.connection.send(message)

    def _end(self, assignment: Assignment, message: RunEnded) -> None:
        self.stops.pop(assignment.run_id, None)
        self.send(message)

    def _receive(self) -> None:
        """Receive messages, also during a run; a late stop must not end the next run."""
        while True:
            try:
                message: ToWorker = self.connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            if isinstance(message, StopRun):
                signum = _PREEMPTED if message.preempt else signal.SIGTERM
                self.stops[message.run_id] = StopRequest(signum)
            else:
                self.waiting.put(message)

    def _ids(self, assignment: Assignment) -> tuple[SweepTrial, RemoteRun]:
        """Return the trial for the result file, and the run for W&B's client."""
        config, run_id = self.config, assignment.run_id
        remote = RemoteRun(
            config.sweep_id, run_id, config.entity, config.project, assignment.arguments
        )
        return SweepTrial(config.sweep_id, run_id), remote

    def _run_config(self, assignment: Assignment) -> TrainConfig:
        """Return the configuration of an assignment, which is reported as failed if it has none."""
        options = assignment.arguments
        try:
            argv = expand(self.config.command, self.config.program, options)
            options = parse_run(argv[program_end(argv) :], from_agent=True)
            return resolve(TrainConfig.parse({"wandb": True, **options}))
        except DeepCnnError as error:
            sweep, remote = self._ids(assignment)
            report_failure(options, sweep, str(error), remote)
            raise


class _Notices(logging.Handler):
    """A log handler that passes on the records that are marked for the user."""

    def __init__(self, source: WandbSource) -> None:
        super().__init__()
        self.source = source

    def emit(self, record: logging.LogRecord) -> None:
        """Send the text of a marked record to the agent."""
        if getattr(record, "for_user", False):
            with suppress(OSError):
                self.source.send(Notice(record.getMessage()))

"""Run a W&B agent whose processes stay alive between runs, for the verb agent.

The agent asks W&B's server for runs and passes them to workers, which have imported everything
already. If a worker dies, only its run is lost, and the worker is replaced.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deep_cnn.sweep.run.pool import Death, WorkerPool
from deep_cnn.sweep.run.process import init_worker, threads_each
from deep_cnn.sweep.run.worker import WorkerConfig, start_worker
from deep_cnn.sweep.wandb_agent.api import AWAY_AFTER, WandbSweep
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
from deep_cnn.sweep.wandb_agent.wandb_source import WandbSource
from deep_cnn.text import printable
from deep_cnn.training.stop import StopToken

# W&B's own agent polls every 5 seconds; the server is asked at once when a run has ended.
_POLL_IDLE = 0.5
_POLL_BUSY = 2.0
_TICK = 0.02
# After this time without a server, an agent has nothing to run.
_GIVE_UP = 600.0
# The time that W&B's own agent gives a run to end.
_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class AgentSummary:
    """How many runs of an agent ended and failed, and the signal or error that ended it."""

    ended: int
    failed: int
    signal: int | None = None
    error: str | None = None


class _Poll:
    """A request to the server, in a thread.

    The request may hang for a minute, while signals must be handled and other runs watched.
    """

    def __init__(self, sweep: WandbSweep, agent: str, run_id: str | None) -> None:
        self.commands: list[dict[str, Any]] | None = []
        self.has_failed = False

        def ask() -> None:
            try:
                self.commands = sweep.poll(agent, run_id)
            except Exception:  # The client's are many kinds; the next poll tries again.
                self.has_failed = True

        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the server has answered, or the request failed."""
        return not self._thread.is_alive()


@dataclass(slots=True)
class _Slot:
    """A worker, its agent on the server, and its current run."""

    number: int
    agent: str
    connection: Connection | None = None
    assignment: Assignment | None = None
    stop_since: float | None = None
    poll: _Poll | None = None
    next_poll: float = 0.0
    unanswered_since: float | None = None
    is_over: bool = False

    @property
    def run_id(self) -> str | None:
        return self.assignment.run_id if self.assignment else None

    def send(self, message: ToWorker) -> None:
        """Send a message to the worker; if it has died, the next check notices."""
        with suppress(OSError):
            if self.connection is not None:
                self.connection.send(message)

    def stop_run(self) -> None:
        """Ask the worker to stop its run."""
        if self.run_id is not None and self.stop_since is None:
            self.stop_since = time.monotonic()
            self.send(StopRun(self.run_id))


class _ServerWatch:
    """Watches whether the server answers."""

    is_away = False

    def watch(self, slots: Sequence[_Slot]) -> str | None:
        """Print when the server is away and when it is back; return the reason to give up.

        A run that has begun is not given up: what W&B lacks of it can be uploaded.
        """
        since = [slot.unanswered_since for slot in slots if slot.unanswered_since is not None]
        silent = time.monotonic() - min(since) if since else 0.0
        is_away = silent > AWAY_AFTER
        if is_away != self.is_away:
            text = "W&B does not answer; runs go on, and the agent keeps asking"
            print(text if is_away else "W&B answers again", file=sys.stderr)
        self.is_away = is_away
        if silent > _GIVE_UP and not any(slot.run_id for slot in slots):
            return f"W&B has not answered for {_GIVE_UP / 60:g} minutes"
        return None


def run_agent(
    sweep: WandbSweep,
    *,
    workers: int = 1,
    count: int | None = None,
    stop: StopToken | None = None,
) -> AgentSummary:
    """Run what the server assigns, until it has no more runs or `count` runs have begun."""
    return _Agent(sweep, workers, count, stop or StopToken()).run()


class _Agent:
    """An agent that polls the server for each worker and passes on its commands."""

    def __init__(self, sweep: WandbSweep, workers: int, count: int | None, stop: StopToken) -> None:
        self.sweep, self.count, self.stop = sweep, count, stop
        self.config = sweep.config()
        self.init = partial(init_worker, threads=threads_each(workers))
        self.slots = [_Slot(number, sweep.register()) for number in range(workers)]
        self.pool = WorkerPool(self._start, workers, _GRACE, Path.cwd())
        self.begun = self.ended = self.failed = 0
        self.server = _ServerWatch()

    def run(self) -> AgentSummary:
        """Watch over the workers until there is nothing more to do."""
        error = None
        try:
            self.pool.start()
            print(f"Sweep: {self.sweep.url}", file=sys.stderr)
            while not all(slot.is_over and slot.run_id is None for slot in self.slots):
                if self.stop.signum is not None:
                    self._hand_back()
                    break
                self._watch_workers()
                for slot in self.slots:
                    self._poll(slot)
                error = self.pool.error or self.server.watch(self.slots)
                if error:
                    break
                time.sleep(_TICK)
        finally:
            self.pool.stop(self._ask_to_end)
        return AgentSummary(self.ended, self.failed, self.stop.signum, error)

    def _start(self, number: int) -> BaseProcess:
        slot = self.slots[number]
        if slot.connection is not None:
            self._receive(slot)  # The worker may have ended its run before it died.
        slot.connection, theirs = Pipe()
        source = partial(WandbSource, self.config, theirs)
        with closing(theirs):
            return start_worker(WorkerConfig(self.init, source), number)

    def _watch_workers(self) -> None:
        """Receive the workers' answers, and report the runs of workers that died."""
        for slot in self.slots:
            self._receive(slot)
        for death in self.pool.replace_dead():
            self._report_death(self.slots[death.slot], death)

    def _receive(self, slot: _Slot) -> None:
        with suppress(EOFError, OSError):
            while slot.connection is not None and slot.connection.poll():
                message: ToAgent = slot.connection.recv()
                if isinstance(message, Notice):
                    print(printable(f"{slot.run_id}: {message.text}"), file=sys.stderr)
                else:
                    self._end_run(slot, message)

    def _report_death(self, slot: _Slot, death: Death) -> None:
        """Let the new worker report the run of its predecessor."""
        if slot.assignment is not None:
            text = f"its process died ({death.reason}); was it out of memory?"
            slot.send(ReportDeath(slot.assignment, text))
            self._end_run(slot, RunEnded("failed", text))

    def _end_run(self, slot: _Slot, end: RunEnded) -> None:
        text = f"{slot.run_id}: {end.state}{', ' if end.text else ''}{end.text}"
        print(printable(text), file=sys.stderr)
        self.pool.record_begin()
        self.ended += 1
        if end.state == "failed":
            self.failed += 1
            self.pool.record_failure(slot.run_id, end.text)
        else:
            self.pool.record_success()
        slot.assignment = slot.stop_since = None
        slot.next_poll = 0.0

    def _poll(self, slot: _Slot) -> None:
        """Ask the server for a worker's commands, and follow them when they arrive."""
        now = time.monotonic()
        if slot.stop_since is not None and now > slot.stop_since + _GRACE:
            self.pool.kill(slot.number)
        if now < slot.next_poll or slot.is_over:
            return
        if slot.run_id is None and self.count is not None:
            slot.is_over = self.begun >= self.count
            asking = sum(other.poll is not None and not other.run_id for other in self.slots)
            if slot.is_over or (slot.poll is None and self.begun + asking >= self.count):
                return  # Each of those that ask may be given the last run.
        if slot.poll is None:
            slot.poll = _Poll(self.sweep, slot.agent, slot.run_id)
            slot.unanswered_since = slot.unanswered_since or now
        if not slot.poll.is_over:
            return
        commands, has_failed, slot.poll = slot.poll.commands, slot.poll.has_failed, None
        if has_failed:
            slot.next_poll = time.monotonic() + _POLL_BUSY
            return
        slot.unanswered_since = None
        if commands is None:
            print(f"{self.sweep.path}: the sweep is gone", file=sys.stderr)
            slot.is_over = True
            return
        slot.next_poll = time.monotonic() + (_POLL_BUSY if slot.run_id else _POLL_IDLE)
        for command in commands:
            self._obey(slot, command)

    def _obey(self, slot: _Slot, command: Mapping[str, Any]) -> None:
        kind = command.get("type")
        if kind in ("run", "resume") and slot.run_id is None:
            arguments = {k: v["value"] for k, v in (command.get("args") or {}).items()}
            slot.assignment = Assignment(str(command["run_id"]), arguments)
            self.begun += 1
            text = json.dumps(arguments, default=str)
            print(f"{slot.run_id}: begins, {text}", file=sys.stderr)
            slot.send(slot.assignment)
        elif kind == "exit":
            slot.is_over = True
            slot.stop_run()
        elif kind == "stop" and command.get("run_id") == slot.run_id:
            slot.stop_run()

    def _hand_back(self) -> None:
        """Let every run save and end as preempted, so that another agent can continue it."""
        for slot in self.slots:
            if slot.run_id is not None:
                slot.send(StopRun(slot.run_id, preempt=True))
        end = time.monotonic() + _GRACE
        while any(slot.run_id for slot in self.slots) and time.monotonic() < end:
            for slot in self.slots:
                self._receive(slot)
                if not self.pool.is_alive(slot.number):
                    slot.assignment = None
            time.sleep(_TICK)

    def _ask_to_end(self, number: int) -> None:
        self.slots[number].stop_run()
        self.slots[number].send(EndWorker())

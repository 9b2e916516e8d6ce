"""A W&B agent whose processes stay warm: the verb agent.

A supervisor asks W&B's server what to run and hands it to a worker that has everything imported;
a worker that dies costs its run alone and is replaced.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from deep_cnn.sweep.process import warm_context
from deep_cnn.sweep.remote import ServedJob, SweepServer

# W&B's own agent polls every 5 seconds; the server is asked at once when a run has ended.
_POLL_IDLE = 0.5
_POLL_BUSY = 2.0
_TICK = 0.02
_MOST_IN_A_ROW = 5
# What W&B's own agent gives a run to end.
_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class Agented:
    """How an agent left: how many runs ended and failed, the signal that ended it, or why."""

    ended: int
    failed: int
    signal: int | None = None
    error: str | None = None


class _Slot:
    """One worker, its agent on the server, and the run that it has."""

    def __init__(self, number: int, agent: str) -> None:
        self.number, self.agent = number, agent
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.order: dict[str, Any] | None = None
        self.stop_since: float | None = None
        self.next_poll = 0.0
        self.over = False
        # A request may hang for a minute, in which signals must be heard and other runs watched.
        self.asking: threading.Thread | None = None
        self.answer: list[dict[str, Any]] | None = None
        self.gone = False

    @property
    def run(self) -> str | None:
        return self.order["run_id"] if self.order else None


def run_agent(
    server: SweepServer,
    *,
    workers: int = 1,
    count: int | None = None,
    signalled: Callable[[], int | None] = lambda: None,
) -> Agented:
    """Run what the sweep's server asks for, until it has no more or `count` runs have begun."""
    return _Agent(server, workers, count, signalled).go()


class _Agent:
    def __init__(
        self,
        server: SweepServer,
        workers: int,
        count: int | None,
        signalled: Callable[[], int | None],
    ) -> None:
        self.server, self.count, self.signalled = server, count, signalled
        self.job = server.job(workers)
        self.context = warm_context()
        self.slots = [_Slot(i, server.register()) for i in range(workers)]
        self.begun = self.ended = self.failed = self.in_a_row = 0
        self.deaths = 0

    def go(self) -> Agented:
        """Watch over the workers until there is nothing more to do."""
        error = None
        try:
            for slot in self.slots:
                self._start(slot)
            while not all(slot.over and slot.run is None for slot in self.slots):
                if self.signalled() is not None:
                    self._hand_back()
                    break
                for slot in self.slots:
                    self._listen(slot)
                    self._poll(slot)
                error = self._broken()
                if error:
                    break
                time.sleep(_TICK)
        finally:
            self._end()
        return Agented(self.ended, self.failed, self.signalled(), error)

    def _start(self, slot: _Slot) -> None:
        slot.pipe, theirs = Pipe()
        slot.process = self.context.Process(
            target=_work, args=(theirs, self.job, slot.number), name=f"agent {slot.number}"
        )
        slot.process.start()
        theirs.close()

    def _listen(self, slot: _Slot) -> None:
        """Take a worker's answer; put another in the place of one that died."""
        assert slot.pipe is not None
        assert slot.process is not None
        with suppress(EOFError, OSError):
            while slot.pipe.poll():
                state, text = slot.pipe.recv()
                if state == "said":
                    print(f"{slot.run}: {text}", file=sys.stderr)
                else:
                    self._run_ended(slot, state, text)
        if slot.process.exitcode is None:
            return
        died, status = slot.order, slot.process.exitcode
        self.deaths += 1
        self._start(slot)
        if died is not None:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            text = f"its process died ({how}); was it out of memory?"
            self._send(slot, {"type": "died", "error": text, **died})
            self._run_ended(slot, "failed", text)

    def _send(self, slot: _Slot, message: Mapping[str, Any]) -> None:
        with suppress(OSError):  # Who died is seen by the next look.
            assert slot.pipe is not None
            slot.pipe.send(dict(message))

    def _run_ended(self, slot: _Slot, state: str, text: str) -> None:
        print(f"{slot.run}: {state}{', ' if text else ''}{text}", file=sys.stderr)
        slot.order = slot.stop_since = None
        slot.next_poll = 0.0
        self.ended += 1
        self.deaths = 0
        self.failed += state == "failed"
        self.in_a_row = self.in_a_row + 1 if state == "failed" else 0

    def _poll(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.stop_since is not None and now > slot.stop_since + _GRACE:
            assert slot.process is not None
            slot.process.kill()
        if now < slot.next_poll or slot.over:
            return
        if slot.run is None and self.count is not None and self.begun >= self.count:
            slot.over = True
            return
        if slot.asking is None:
            asked = sum(other.asking is not None and not other.run for other in self.slots)
            if slot.run is None and self.count is not None and self.begun + asked >= self.count:
                return  # Each of them may be given the last one.
            slot.asking = threading.Thread(target=self._ask, args=(slot, slot.run), daemon=True)
            slot.asking.start()
        if slot.asking.is_alive():
            return
        slot.asking = None
        if slot.gone:
            print(f"{self.server.path}: the sweep is gone", file=sys.stderr)
            slot.over = True
            return
        commands, slot.answer = slot.answer or [], None
        slot.next_poll = time.monotonic() + (_POLL_BUSY if slot.run else _POLL_IDLE)
        for command in commands:
            self._obey(slot, command)

    def _ask(self, slot: _Slot, run: str | None) -> None:
        slot.answer = self.server.ask(slot.agent, {run: True} if run else {})
        slot.gone = slot.answer is None

    def _obey(self, slot: _Slot, command: Mapping[str, Any]) -> None:
        kind = command.get("type")
        if kind in ("run", "resume") and slot.run is None:
            arguments = {k: v["value"] for k, v in (command.get("args") or {}).items()}
            slot.order = {"run_id": str(command["run_id"]), "arguments": arguments}
            self.begun += 1
            print(f"{slot.run}: begins, {json.dumps(arguments, default=str)}", file=sys.stderr)
            self._send(slot, {"type": "run", **slot.order})
        elif kind == "stop" and command.get("run_id") == slot.run:
            self._ask_to_stop(slot)
        elif kind == "exit":
            slot.over = True
            if slot.run is not None:
                self._ask_to_stop(slot)

    def _ask_to_stop(self, slot: _Slot) -> None:
        if slot.stop_since is None:
            slot.stop_since = time.monotonic()
            self._send(slot, {"type": "stop", "run_id": slot.run})

    def _broken(self) -> str | None:
        if self.in_a_row >= _MOST_IN_A_ROW:
            return f"{self.in_a_row} runs failed in a row"
        if self.deaths >= _MOST_IN_A_ROW:
            return f"{self.deaths} workers died before they began a run; is there memory enough?"
        return None

    def _hand_back(self) -> None:
        """Let every run save and end as preempted, so that another agent can go on with it."""
        for slot in self.slots:
            self._send(slot, {"type": "preempt", "run_id": slot.run})
        end = time.monotonic() + _GRACE
        while any(slot.run for slot in self.slots) and time.monotonic() < end:
            for slot in self.slots:
                assert slot.process is not None
                if slot.process.exitcode is not None:
                    slot.order = None
                elif slot.run:
                    self._listen(slot)
            time.sleep(_TICK)

    def _end(self) -> None:
        for slot in self.slots:
            if slot.run:
                self._ask_to_stop(slot)
            self._send(slot, {"type": "end"})
        end = time.monotonic() + _GRACE
        for slot in self.slots:
            if slot.process is None:
                continue
            slot.process.join(max(0.1, end - time.monotonic()))
            if slot.process.exitcode is None:
                slot.process.kill()
                slot.process.join()


def _work(orders: Connection, job: ServedJob, slot: int) -> None:
    # The agent's own connection to W&B, which would keep a run that its worker can no longer end.
    os.environ.pop("WANDB_SERVICE", None)
    from deep_cnn.sweep.agent_worker import work

    work(orders, job, slot)

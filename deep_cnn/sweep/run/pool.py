"""Keep a number of worker processes running: start, replace and stop them, and count failures."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deep_cnn.errors import OutputError

# The exit status of a worker that could not write.
CANNOT_WRITE = 2
# The exit status of a worker that was asked to end by SIGTERM, as the shell has it.
ASKED_TO_END = 143
# The exit status of a worker whose trial another process has taken over.
LOST_CLAIM = 70
_MOST_IN_A_ROW = 5


class WorkerProcess(Protocol):
    """What the pool needs of a process; `multiprocessing.Process` has it."""

    @property
    def exitcode(self) -> int | None:
        """The exit status, -N after signal N, or None while the process runs."""

    @property
    def pid(self) -> int | None:
        """The number of the process."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended."""


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that ended with an error status, and was replaced."""

    slot: int
    exitcode: int

    @property
    def reason(self) -> str:
        """The signal or the exit status, as a message says it."""
        if self.exitcode < 0:
            return f"signal {-self.exitcode}"
        return f"status {self.exitcode}"


class WorkerPool:
    """Worker processes in numbered slots.

    A worker that ends with status 0 is done, one that ends otherwise is replaced. The pool does not
    know what a trial is: its owner says when trials begin, succeed and fail.

    Args:
        start: Starts the worker of a slot.
        count: The number of slots.
        grace: The seconds that workers are given to end before they are killed.
        out: The folder that is named if a worker could not write.
    """

    def __init__(
        self, start: Callable[[int], WorkerProcess], count: int, grace: float, out: Path
    ) -> None:
        self._start, self._count, self._grace, self._out = start, count, grace, out
        self._processes: dict[int, WorkerProcess] = {}
        self._deaths = 0
        self._failed: set[Hashable] = set()
        self._last_error: str | None = None

    def start(self) -> None:
        """Start a worker in each slot."""
        for slot in range(self._count):
            self._processes[slot] = self._start(slot)

    @property
    def done(self) -> bool:
        """Whether every worker has ended with status 0."""
        return not self._processes

    def is_alive(self, slot: int) -> bool:
        """Return whether the worker of a slot runs."""
        return slot in self._processes and self._processes[slot].exitcode is None

    def kill(self, slot: int) -> None:
        """Kill the worker of a slot, so that it is replaced."""
        self._processes[slot].kill()

    def replace_dead(self) -> list[Death]:
        """Start new workers for those that died, and return these.

        Raises:
            OutputError: A worker could not write; the next one would not be able to, either.
        """
        deaths = []
        ended = [(slot, p.exitcode) for slot, p in self._processes.items()]
        for slot, exitcode in ended:
            if exitcode is None:
                continue
            del self._processes[slot]
            if exitcode == CANNOT_WRITE:
                raise OutputError(
                    f"{self._out}: a worker could not write there; make room or permission, and"
                    " give the same command again: nothing that was finished is lost"
                )
            if exitcode != 0:
                # A machine that was suspended loses all of its trials at once.
                self._deaths += exitcode != LOST_CLAIM
                self._processes[slot] = self._start(slot)
                deaths.append(Death(slot, exitcode))
        return deaths

    def record_begin(self) -> None:
        """Note that a trial has begun, so that workers do not die before they come to it."""
        self._deaths = 0

    def record_success(self) -> None:
        """Note that a trial did not fail."""
        self._failed.clear()

    def record_failure(self, trial: Hashable, error: str | None) -> None:
        """Note that a trial failed; if it fails again, that says nothing about the others."""
        self._failed.add(trial)
        self._last_error = error

    @property
    def error(self) -> str | None:
        """Why it is useless to go on, or None."""
        if len(self._failed) >= _MOST_IN_A_ROW:
            return f"{len(self._failed)} failures in a row, the last one: {self._last_error}"
        if self._deaths >= _MOST_IN_A_ROW:
            return f"{self._deaths} workers died before they began a trial; is there memory enough?"
        return None

    def stop(self, ask: Callable[[int], None] | None = None) -> None:
        """Ask every worker to end, give them time, and kill those that remain.

        Args:
            ask: Asks the worker of a slot; by default it is sent SIGTERM.
        """
        for slot, process in self._processes.items():
            if ask is None:
                process.terminate()
            else:
                ask(slot)
        end = time.monotonic() + self._grace
        for process in self._processes.values():
            process.join(max(0.1, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        self._processes.clear()

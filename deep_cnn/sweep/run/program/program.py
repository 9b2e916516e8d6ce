"""Run one program to its end, or until it is to be stopped."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from deep_cnn.results import StopReason
from deep_cnn.sweep.run.program.attempt import Ending, Program
from deep_cnn.sweep.run.program.descendants import descendants, end, end_group, with_variable
from deep_cnn.sweep.run.program.environment import COOKIE
from deep_cnn.sweep.run.program.table import LiveTable
from deep_cnn.sweep.run.program.values import Values
from deep_cnn.training.stop import StopToken

_PAUSE = 0.1
# All runs are judged again after so many seconds, and at most for one part in so many of the time.
_SECONDS_BETWEEN_JUDGEMENTS, _SHARE = 0.5, 20
# What a program leaves behind may end by itself in this time; W&B's client does.
_GRACE = 0.7
# The sweep is asked to end: its workers are killed after 25 seconds.
_INTERRUPT_GRACE = 15.0
Judge = Callable[[Sequence[float]], StopReason | None]


class Watch:
    """Starts a program, and watches it until it has ended, with all that it has started."""

    def __init__(self, program: Program, values: Values, judge: Judge, stop: StopToken) -> None:
        self.program, self.values, self.judge, self.stop = program, values, judge, stop
        self.delay = kill_delay(program.environment)
        self.table = LiveTable(program.files.table, values.metric)
        self.judged, self.due = 0, 0.0
        self.ending = Ending()

    def run(self) -> Ending:
        """Run the program to its end."""
        program, ending = self.program, self.ending
        with program.files.log.open("ab") as log:
            try:
                process = subprocess.Popen(
                    program.command,
                    env=program.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                ending.problem = f"{program.command[0]} cannot be started ({reason})"
                return ending
        try:
            while self._goes_on(process):
                pass
            ending.status = process.wait()
        finally:
            end_group(process)
            end(self._left, _GRACE if process.returncode is not None else 0.0)
        return ending

    def _left(self) -> set[int]:
        """Return the processes of the program, once it has ended."""
        cookie = self.program.environment.get(COOKIE, "")
        return descendants(os.getpid()) | with_variable(COOKIE, cookie)

    def _goes_on(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait a moment; return whether the program still runs, and may go on."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PAUSE)
            return False
        self.values.read()
        values = self.values.values()
        self.table.write(values)
        self.ending.is_interrupted = self.stop.reason is not None
        if not self.ending.is_interrupted:
            self.ending.reason = self._judge(values)
        if process.poll() is not None:  # It has ended by itself.
            self.ending.is_interrupted, self.ending.reason = False, None
            return False
        if self.ending.is_interrupted or self.ending.reason is not None:
            self._stop(process)
            return False
        return True

    def _judge(self, values: Sequence[float]) -> StopReason | None:
        if self.values.output.has_old_client:  # Its values arrive when it has ended.
            return None
        if len(values) == self.judged and time.monotonic() < self.due:
            return None
        begun = time.monotonic()
        reason = self.judge(values)
        took = time.monotonic() - begun
        self.judged, self.due = len(values), begun + max(_SECONDS_BETWEEN_JUDGEMENTS, _SHARE * took)
        return reason

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Ask a program to end, and kill it if it has not ended in time."""
        process.terminate()
        asked = time.monotonic()
        while process.poll() is None:
            is_hurried = self.stop.reason is not None
            delay = min(self.delay, _INTERRUPT_GRACE) if is_hurried else self.delay
            if time.monotonic() >= asked + delay:
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PAUSE)


def kill_delay(environ: Mapping[str, str]) -> float:
    """Return the seconds between SIGTERM and SIGKILL, as W&B's agent has them."""
    with suppress(ValueError):
        return max(0.0, float(environ.get("WANDB_AGENT_KILL_DELAY", "")))
    return 30.0

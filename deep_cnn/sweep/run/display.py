"""Show how far a sweep and its running trials are: a bar, or lines where there is no terminal."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deep_cnn.errors import DeepCnnError
from deep_cnn.progress import ProgressBar
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.trial import trial_config
from deep_cnn.sweep.run.work import WorkFolders
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.text import printable

# Tables of running trials are read again after so many seconds, for at most so many trials.
_SECONDS_BETWEEN_READS = 2.0
_MOST_SHOWN = 8
# Without a terminal, the running trials are listed after so many seconds without other news.
_SECONDS_BETWEEN_LINES = 300.0


class SweepDisplay:
    """The display of one sweep on stderr.

    Args:
        spec: The sweep.
        out: The folder for results.
        work: The files of running trials.
        bar: The progress bar, which displays nothing if there is no terminal.
    """

    def __init__(self, spec: SweepSpec, out: Path, work: WorkFolders, bar: ProgressBar) -> None:
        self.spec, self.out, self.work, self.bar = spec, out, work, bar
        self.status, self.printed = "", time.monotonic()
        self.running, self.read = "", 0.0
        self.epochs: dict[int, int | None] = {}

    def show(self, states: Mapping[str, int], best: float | None, running: Sequence[Trial]) -> None:
        """Update the bar, or print a line if it says something new.

        Args:
            states: The number of trials in each state.
            best: The best value so far.
            running: The trials that run, here or elsewhere.
        """
        over, total = states["finished"] + states["stopped"], self.bar.total
        parts = [f"{states[state]} {state}" for state in ("running", "failed")]
        if best is not None:
            parts.append(f"best {best:.4g}")
        text, now = ", ".join(parts), time.monotonic()
        if not self.bar.disable:
            if now - self.read >= _SECONDS_BETWEEN_READS:
                self.running, self.read = self._describe(running), now
            self.bar.n = over
            self.bar.set_postfix_str(text + self.running, refresh=True)
            return
        status = f"{self.spec.name}: {over}{'' if total is None else f' of {total}'} over, {text}"
        is_due = now - self.printed >= _SECONDS_BETWEEN_LINES
        if status != self.status or is_due:
            text = status + (self._describe(running) if is_due else "")
            print(printable(text), file=sys.stderr)
            self.status, self.printed = status, now

    def _describe(self, running: Sequence[Trial]) -> str:
        """Return how far these trials are, as `; trial 3 epoch 4/20, trial 5 epoch 0/20`."""
        texts = [self._describe_trial(trial) for trial in running[:_MOST_SHOWN]]
        if len(running) > len(texts):
            texts.append(f"and {len(running) - len(texts)} more")
        return f"; {', '.join(texts)}" if texts else ""

    def _describe_trial(self, trial: Trial) -> str:
        if trial.number not in self.epochs:
            self.epochs[trial.number] = None
            with suppress(DeepCnnError):
                if trial.point is not None and self.spec.runs_deep_cnn:
                    config = trial_config(self.spec, trial.point, self.out)
                    self.epochs[trial.number] = config.epochs
        table = self.work.files(trial.number, trial.claim, trial.run_name or "").table
        done = max(0, (self.work.io.read(table) or b"").count(b"\n") - 1)
        epochs = self.epochs[trial.number]
        return f"trial {trial.number} epoch {done}{'' if epochs is None else f'/{epochs}'}"

"""Read the state of a sweep's trials from the names and contents of their files.

Trials stand in folders of 1,000. A folder whose trials are all over is not listed again, and a file
that has been read is not read again, so that a look costs the same however many trials there are.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from deep_cnn.files import safe_name
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.owner import Owners
from deep_cnn.sweep.run.records import (
    ClaimEnd,
    Draw,
    Record,
    RunName,
    Trial,
    TrialOutcome,
    read_record,
)

# A trial whose owners vanish this often without a word takes them with it: give it up.
_MOST_VANISHED = 20
BLOCK = 1000
# Sync clients and people leave files such as "00000.claim.0 (conflicted copy)": none of ours.
_STATE_FILE = re.compile(r"(\d{5,})\.(trial|run|done|claim\.\d{1,6}|end\.\d{1,6}|again\.\d{1,6})")


@dataclass(slots=True)
class _Block:
    """The state files of up to 1,000 trials as they were last listed."""

    folder: Path
    names: set[str] = field(default_factory=set)
    kinds: dict[int, set[str]] = field(default_factory=dict)
    unsettled: set[int] = field(default_factory=set)
    unfinished: set[int] = field(default_factory=set)
    closed: bool = False

    def add(self, number: int, kind: str) -> None:
        """Take in a state file that is there."""
        self.kinds.setdefault(number, set()).add(kind)
        self.unsettled.add(number)


class TrialFiles:
    """The trials of a sweep as their files say, as of the last look.

    Args:
        folder: The folder of the sweep.
        retries: How often a failed trial is tried again.
        owners: Says whether the owners of claims are alive.
        io: Carries out the file operations.
    """

    def __init__(self, folder: Path, retries: int, owners: Owners, io: FolderIO) -> None:
        self.folder, self.retries, self.owners, self.io = folder, retries, owners, io
        self.blocks: list[_Block] = []
        self._trials: dict[int, Trial] = {}
        self._records: dict[tuple[int, str], object] = {}
        self._changed: dict[int, Trial] = {}

    def trials(self) -> list[Trial]:
        """Return every trial that was proposed, by number."""
        self.look()
        return [self._trials[number] for number in sorted(self._trials)]

    def trial(self, number: int) -> Trial | None:
        """Return a trial as of the last look, or None if there is none with this number."""
        return self._trials.get(number)

    def unfinished(self) -> list[Trial]:
        """Return the trials that had no result at the last look, by number."""
        return [self._trials[n] for block in self.blocks for n in sorted(block.unfinished)]

    def changes(self) -> list[Trial]:
        """Return the trials that have changed since the last call, as of the last look."""
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def usual_run_name(self, number: int) -> str:
        """Return the name of a trial's run: `<sweep>-<trial>`."""
        return safe_name(f"{self.folder.name}-{number:05d}")

    def kinds(self, number: int) -> set[str]:
        """Return the kinds of files that a trial had at the last look, such as claim.0."""
        index = number // BLOCK
        return self.blocks[index].kinds.get(number, set()) if index < len(self.blocks) else set()

    def path(self, number: int, kind: str) -> Path:
        """Return the path of a state file."""
        return self.block_folder(number // BLOCK) / f"{number:05d}.{kind}"

    def block_folder(self, index: int) -> Path:
        """Return the folder of the trials from 1,000 * index on."""
        return self.folder / "trials" / f"{index * BLOCK:05d}"

    def note(self, number: int, kind: str) -> None:
        """Take in a state file that this process has made, without a look."""
        for index in range(len(self.blocks), number // BLOCK + 1):
            self.blocks.append(_Block(self.block_folder(index)))
        self.blocks[number // BLOCK].add(number, kind)
        self._take_in(self.blocks[number // BLOCK])

    def look(self) -> None:
        """List what may have changed since the last look, and read what has."""
        for index in itertools.count():
            if index == len(self.blocks):
                if index and len(self.blocks[-1].kinds) < BLOCK:
                    return  # There is a next one only if this one is full.
                self.blocks.append(_Block(self.block_folder(index)))
            if not self.blocks[index].closed:
                self._look_at(self.blocks[index])

    def _look_at(self, block: _Block) -> None:
        names = set(self.io.names(block.folder))
        first = int(block.folder.name)
        for name in names - block.names:
            number = trial_number(name)
            if number is not None and first <= number < first + BLOCK:
                block.add(number, name.partition(".")[2])
        block.names = names
        self._take_in(block)

    def _take_in(self, block: _Block) -> None:
        for number in sorted(block.unsettled):
            trial = self._read(number, block.kinds[number])
            if trial != self._trials.get(number):
                self._trials[number] = self._changed[number] = trial
            if _is_settled(trial, block.kinds[number]):
                block.unsettled.remove(number)
            (block.unfinished.discard if trial.over else block.unfinished.add)(number)
        block.closed = len(block.kinds) == BLOCK and not block.unfinished

    def _read(self, number: int, kinds: set[str]) -> Trial:
        draw = self._record(Draw, number, "trial", kinds)
        run = self._record(RunName, number, "run", kinds)
        claims = sorted(int(kind[6:]) for kind in kinds if kind.startswith("claim."))
        trial = Trial(
            number,
            draw.point if draw else None,
            claim=claims[-1] if claims else -1,
            run_name=run.run_name if run else self.usual_run_name(number) if claims else None,
            u=draw.u if draw else None,
        )
        outcome = self._record(TrialOutcome, number, "done", kinds)
        if outcome is not None and draw is not None:
            for kind in kinds:  # It is in the Trial now.
                self._records.pop((number, kind), None)
            name = outcome.run_name or trial.run_name
            return replace(trial, state=outcome.state, run_name=name, outcome=outcome)
        past = self._past(number, claims, kinds)
        if past.failures > self.retries or past.vanished >= _MOST_VANISHED:
            error = past.error or f"its process vanished {past.vanished} times"
            past = replace(past, state="failed", error=error)
        return replace(
            trial,
            state=past.state,
            failures=past.failures,
            tried=past.error is not None,
            error=past.error,
        )

    def _past(self, number: int, claims: Sequence[int], kinds: set[str]) -> "_Past":
        """Return how the claims since the trial was last reopened have ended."""
        past = _Past()
        for claim in claims:
            end = self._record(ClaimEnd, number, f"end.{claim}", kinds)
            if end is None:
                path = self.path(number, f"claim.{claim}")
                alive = claim == claims[-1] and self.owners.is_alive(path)
                state = "running" if alive else "interrupted"
                past = replace(past, state=state, vanished=past.vanished + (not alive))
            elif end.state == "failed":
                failures = past.failures + 1
                past = _Past("interrupted", failures, error=end.error or "it does not say why")
            else:
                past = replace(past, state="interrupted")
            if f"again.{claim}" in kinds or (end and end.state == "reopened"):
                past = replace(past, state="interrupted", failures=0, vanished=0)
        return past

    def _record(
        self, record: type[Record], number: int, kind: str, kinds: set[str]
    ) -> Record | None:
        """Return the content of a state file; what is not damaged does not change any more."""
        if kind not in kinds:
            return None
        known = self._records.get((number, kind))
        if known is None:
            known = read_record(record, self.io.read(self.path(number, kind)))
            if known is not None:
                self._records[number, kind] = known
        return cast(Record | None, known)


@dataclass(frozen=True, slots=True)
class _Past:
    """What the claims of a trial have come to."""

    state: str = "waiting"
    failures: int = 0
    vanished: int = 0
    error: str | None = None


def _is_settled(trial: Trial, kinds: set[str]) -> bool:
    """Return whether a trial cannot change without a new file."""
    damaged = trial.point is None or ("done" in kinds and not trial.over)
    return trial.over or not (damaged or trial.state == "running")


def trial_number(name: str) -> int | None:
    """Return the trial that a state file belongs to, or None if it is another file."""
    match = _STATE_FILE.fullmatch(name)
    if match is None or f"{int(match[1]):05d}" != match[1]:
        return None
    return int(match[1])

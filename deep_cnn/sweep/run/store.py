"""Keep the trials of a sweep in a folder with a few small files a trial: the source of truth.

    sweep.json                      what the sweep is: the content of its YAML, and the seed
    trials/00000/00007.trial        the configuration of trial 7, and the u it was drawn with
    trials/00000/00007.claim.0      who runs it: host, process, start time of the process
    trials/00000/00007.run          the name of its run, if the usual one was taken
    trials/00000/00007.end.0        how claim 0 ended without a result: failed, interrupted
    trials/00000/00007.again.0      the sweep was started again after claim 0 had failed
    trials/00000/00007.done         its result and the claim that has the files: the trial is over
    work/00007.0/                   the files of its run while claim 0 has it

README.md beside this module draws the states, and says who writes which file. What must be made
once is created exclusively, which fails if it is there. A trial is claimed by making claim.k, one
above the last one that ended or whose owner is gone; of two processes that try, one succeeds. An
owner on this host is gone when no process has its number and start time; one on another host when
its claim was not touched for a lease, by the clock of the file system. An owner that was taken for
dead has written into its own work folder only; its `done` is refused, or it is the first, and there
is but one.
"""

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from deep_cnn.errors import ConfigError, SpecError
from deep_cnn.files import remove_leftovers, safe_name
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.owner import Owners, this_process
from deep_cnn.sweep.run.records import (
    ClaimEnd,
    Draw,
    Record,
    RunName,
    Trial,
    TrialOutcome,
    read_record,
)
from deep_cnn.sweep.spec.points import Proposal
from deep_cnn.sweep.spec.values import to_jsonable

LEASE = 60.0
# A trial whose owners vanish this often without a word takes them with it: give it up.
_MOST_VANISHED = 20
_BLOCK = 1000
# Sync clients and people leave files such as "00000.claim.0 (conflicted copy)": none of ours.
_STATE_FILE = re.compile(r"(\d{5,})\.(trial|run|done|claim\.\d+|end\.\d+|again\.\d+)")


def lease_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """Return the lease of claims from DEEP_CNN_LEASE, in seconds; ConfigError."""
    text = environ.get("DEEP_CNN_LEASE", "")
    try:
        seconds = float(text or LEASE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"DEEP_CNN_LEASE={text} is not a positive number of seconds; unset it")
    return seconds


@dataclass(frozen=True, slots=True)
class _SweepRecord:
    """What sweep.json holds."""

    content: dict[str, Any]
    seed: int


@dataclass(slots=True)
class _Block:
    """The state files of up to 1,000 trials as they were last listed."""

    folder: Path
    names: set[str] = field(default_factory=set)
    kinds: dict[int, set[str]] = field(default_factory=dict)
    unsettled: set[int] = field(default_factory=set)
    unfinished: set[int] = field(default_factory=set)
    closed: bool = False


class FolderStore:
    """The trials of one sweep; many processes, on many hosts, may call every method at once."""

    def __init__(
        self, folder: Path, *, retries: int = 1, lease: float = LEASE, io: FolderIO | None = None
    ) -> None:
        self.folder, self.retries, self.io = folder, retries, io or FolderIO()
        self.owners = Owners(self.io, folder, lease)
        self._blocks: list[_Block] = []
        self._trials: dict[int, Trial] = {}
        self._records: dict[tuple[int, str], object] = {}
        self._changed: dict[int, Trial] = {}

    def open(self, content: Mapping[str, Any], seed: int) -> None:
        """Begin the sweep or resume it; raise SpecError if the file or seed has changed."""
        for name in ("trials", "work"):
            self.io.make_folders(self.folder / name)
        self._adopt_flat_files()
        path = self.folder / "sweep.json"
        wanted = json.loads(json.dumps({"content": to_jsonable(content), "seed": seed}))
        text = json.dumps(wanted, indent=2, sort_keys=True)
        known = read_record(_SweepRecord, self.io.read(path))
        if known is None:
            self.io.remove(path)
            self.io.create(path, text)
            known = read_record(_SweepRecord, self.io.read(path)) or _SweepRecord(**wanted)
        if known.seed != seed:
            raise SpecError(
                f"{path}: this sweep has --seed={known.seed}, not {seed}; keep it, or begin a"
                " new one: another name: in the file"
            )
        changed = _changes(known.content, wanted["content"])
        if changed:
            raise SpecError(
                f"{path}: the sweep file has changed since the sweep began ({', '.join(changed)});"
                " change it back, or begin a new one: another name: in the file"
            )
        if known.content != wanted["content"]:
            self.io.replace(path, text)
        self.look()

        for folder in (self.folder, *(block.folder for block in self._blocks)):
            remove_leftovers(folder)

    def reopen(self) -> None:
        """Let trials that were given up be tried again."""
        for trial in self.trials():
            if trial.state == "failed":
                self.io.create(self._path(trial.number, f"again.{trial.claim}"), "{}")

    def trials(self) -> list[Trial]:
        """Return every trial that was proposed, by number."""
        self.look()
        return [self._trials[number] for number in sorted(self._trials)]

    def trial(self, number: int) -> Trial | None:
        """Return a trial as of the last look, or None if there is none with this number."""
        return self._trials.get(number)

    def unfinished(self) -> list[Trial]:
        """Return the trials that had no result at the last look, by number."""
        return [self._trials[n] for block in self._blocks for n in sorted(block.unfinished)]

    def changes(self) -> list[Trial]:
        """Return the trials that have changed since the last call, as of the last look."""
        changed, self._changed = self._changed, {}
        return list(changed.values())

    def propose(self, number: int, proposal: Proposal) -> bool:
        """Make trial `number`, or make its file again if that is damaged; False if it exists."""
        path = self._path(number, "trial")
        content = {"point": to_jsonable(proposal.point)}
        if proposal.u is not None:
            content["u"] = dict(proposal.u)
        text = json.dumps(content, sort_keys=True)
        if number % _BLOCK == 0:
            self.io.make_folder(path.parent)
        if self.io.create(path, text):
            return True
        if read_record(Draw, self.io.read(path)) is not None:
            return False
        self.io.replace(path, text)
        return True

    def claim(self, trial: Trial) -> int | None:
        """Take a trial that no process runs; return the number of the claim, or None."""
        if trial.state not in ("waiting", "interrupted") or trial.point is None:
            return None
        number = trial.claim + 1
        path = self._path(trial.number, f"claim.{number}")
        if not self.io.create(path, json.dumps(asdict(this_process()))):
            return None
        if "done" in self._kinds(trial.number):  # Damaged, or the trial would be over.
            self.io.remove(self._path(trial.number, "done"))
        return number

    def set_run(self, number: int, run_name: str) -> None:
        """Note the name of a trial's run where it is not the usual one."""
        self.io.replace(self._path(number, "run"), json.dumps({"run_name": run_name}))

    def has_run(self, number: int) -> bool:
        """Return whether the name of a trial's run was noted, as of the last look."""
        return "run" in self._kinds(number)

    def renew(self, number: int, claim: int) -> bool:
        """Renew the lease; return False if another process has claimed or finished the trial."""
        if any(map(self.io.exists, (self._next_claim(number, claim), self._path(number, "done")))):
            return False
        self.io.touch(self._path(number, f"claim.{claim}"))
        return True

    def _next_claim(self, number: int, claim: int) -> Path:
        return self._path(number, f"claim.{claim + 1}")

    def finish(self, number: int, claim: int, outcome: TrialOutcome) -> bool:
        """Commit a result; return False if the claim was lost or there is a result."""
        if self.io.exists(self._next_claim(number, claim)):
            return False
        path = self._path(number, "done")
        if self.io.create(path, outcome.to_json()):
            return True
        if read_record(TrialOutcome, self.io.read(path)) is not None:
            return False
        self.io.remove(path)
        return self.io.create(path, outcome.to_json())

    def give_back(self, number: int, claim: int, state: str, error: str | None = None) -> None:
        """End a claim without a result; `state` is failed or interrupted."""
        text = json.dumps({"state": state, "error": error})
        self.io.replace(self._path(number, f"end.{claim}"), text)

    def usual_run_name(self, number: int) -> str:
        """Return the name of a trial's run: `<sweep>-<trial>`."""
        return safe_name(f"{self.folder.name}-{number:05d}")

    def _kinds(self, number: int) -> set[str]:
        index = number // _BLOCK
        return self._blocks[index].kinds.get(number, set()) if index < len(self._blocks) else set()

    def _path(self, number: int, kind: str) -> Path:
        return self._block_folder(number // _BLOCK) / f"{number:05d}.{kind}"

    def _block_folder(self, index: int) -> Path:
        return self.folder / "trials" / f"{index * _BLOCK:05d}"

    def _adopt_flat_files(self) -> None:
        """Move the state files of an earlier version, which stood beside sweep.json."""
        for name in self.io.names(self.folder):
            number = _number(name)
            if number is not None:
                target = self._block_folder(number // _BLOCK) / name
                self.io.make_folder(target.parent)
                self.io.move(self.folder / name, target)

    def look(self) -> None:
        """List what may have changed since the last look, and read what has."""
        for index in itertools.count():
            if index == len(self._blocks):
                if index and len(self._blocks[-1].kinds) < _BLOCK:
                    return  # There is a next one only if this one is full.
                self._blocks.append(_Block(self._block_folder(index)))
            if not self._blocks[index].closed:
                self._look_at(self._blocks[index])

    def _look_at(self, block: _Block) -> None:
        names = set(self.io.names(block.folder))
        first = int(block.folder.name)
        for name in names - block.names:
            number = _number(name)
            if number is not None and first <= number < first + _BLOCK:
                block.kinds.setdefault(number, set()).add(name.partition(".")[2])
                block.unsettled.add(number)
        block.names = names
        for number in sorted(block.unsettled):
            trial = self._read(number, block.kinds[number])
            if trial != self._trials.get(number):
                self._trials[number] = self._changed[number] = trial
            if _is_settled(trial, block.kinds[number]):
                block.unsettled.remove(number)
            (block.unfinished.discard if trial.over else block.unfinished.add)(number)
        block.closed = len(block.kinds) == _BLOCK and not block.unfinished

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
                alive = claim == claims[-1] and self._alive(number, claim)
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

    def _alive(self, number: int, claim: int) -> bool:
        return self.owners.is_alive(self._path(number, f"claim.{claim}"))

    def _record(
        self, record: type[Record], number: int, kind: str, kinds: set[str]
    ) -> Record | None:
        """Return the content of a state file; what is not damaged does not change any more."""
        if kind not in kinds:
            return None
        known = self._records.get((number, kind))
        if known is None:
            known = read_record(record, self.io.read(self._path(number, kind)))
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


def _number(name: str) -> int | None:
    """Return the trial that a state file belongs to, or None if it is another file."""
    match = _STATE_FILE.fullmatch(name)
    if match is None or f"{int(match[1]):05d}" != match[1]:
        return None
    return int(match[1])


def _changes(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys that differ, except the description and a run_cap that has grown."""
    keys = sorted(known.keys() | wanted.keys() - {"description"})
    changed = [k for k in keys if known.get(k) != wanted.get(k) and k != "description"]
    old, new = known.get("run_cap"), wanted.get("run_cap")
    if "run_cap" in changed and (new is None or (isinstance(old, int) and new > old)):
        changed.remove("run_cap")
    return changed

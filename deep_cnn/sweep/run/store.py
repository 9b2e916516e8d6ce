"""Keep the trials of a sweep in a folder with a few small files a trial: the source of truth.

    sweep.json          what the sweep is: the content of its YAML, and the seed
    00007.trial         the configuration of trial 7, and the u it was drawn with; made once
    00007.claim.0       who runs it: host, process, start time of the process
    00007.run           the name of its run
    00007.end.0         how claim 0 ended without a result: failed, interrupted, reopened
    00007.done          its result, made once: the trial is over

README.md beside this module draws the states, and says who writes which file. A file is written
beside and linked or renamed into place. What must be made once is linked, which fails if it is
there. A trial is claimed by making claim.k, one above the last one that ended or whose owner is
gone; of two processes that try, one succeeds. An owner on this host is gone when no process has its
number and start time; one on another host when its claim was not touched for a lease, by the clock
of the file system. An owner that was taken for dead finds a higher claim and throws its work away;
if it comes too late for that, its `done` is refused or it is the first, and there is but one.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from deep_cnn.errors import SpecError
from deep_cnn.files import make_exclusively, unwritable, write_text
from deep_cnn.sweep.run.owner import host, start_time
from deep_cnn.sweep.run.records import Trial, TrialOutcome
from deep_cnn.sweep.spec.points import Proposal
from deep_cnn.sweep.spec.values import to_jsonable

LEASE = 60.0
# A trial whose owners vanish this often without a word takes them with it: give it up.
_MOST_VANISHED = 20


class TrialStore(Protocol):
    """The trials that workers share; many processes may call every method at once."""

    def trials(self) -> list[Trial]:
        """Return every trial that was proposed, by number."""

    def propose(self, number: int, proposal: Proposal) -> bool:
        """Make trial `number`; return False if another process did."""

    def claim(self, trial: Trial) -> int | None:
        """Take a trial that no process runs; return the number of the claim, or None."""

    def set_run(self, number: int, run_name: str) -> None:
        """Keep the name of the trial's run, so that a later owner goes on with it."""

    def renew(self, number: int, claim: int) -> bool:
        """Renew the lease; return False if the claim was lost to another process."""

    def finish(self, number: int, claim: int, outcome: TrialOutcome) -> bool:
        """Commit a result; return False if the claim was lost."""

    def give_back(self, number: int, claim: int, state: str, error: str | None = None) -> None:
        """End a claim without a result; `state` is failed or interrupted."""


class FolderStore(TrialStore):
    """A TrialStore in a folder that may be on a shared file system."""

    def __init__(self, folder: Path, *, retries: int = 1, lease: float = LEASE) -> None:
        self.folder, self.retries, self.lease = folder, retries, lease
        self._over: dict[int, Trial] = {}

    def open(self, content: Mapping[str, Any], seed: int) -> None:
        """Begin the sweep or go on with it; raise SpecError if the file or seed has changed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        path = self.folder / "sweep.json"
        wanted = json.loads(json.dumps({"content": to_jsonable(content), "seed": seed}))
        known = _read(path)
        if known is None or not {"seed", "content"} <= known.keys():
            path.unlink(missing_ok=True)
            make_exclusively(path, json.dumps(wanted, indent=2, sort_keys=True))
            known = _read(path) or wanted
        if known["seed"] != seed:
            raise SpecError(
                f"{path}: this sweep has --seed={known['seed']}, not {seed}; keep it, or begin a"
                " new one: another name: in the file"
            )
        changed = _changes(known["content"], wanted["content"])
        if changed:
            raise SpecError(
                f"{path}: the sweep file has changed since the sweep began ({', '.join(changed)});"
                " change it back, or begin a new one: another name: in the file"
            )
        write_text(path, json.dumps(wanted, indent=2, sort_keys=True))

    def reopen(self) -> None:
        """Let trials that were given up be tried again."""
        for trial in self.trials():
            if trial.state == "failed":
                self.give_back(trial.number, trial.claim, "reopened")

    def trials(self) -> list[Trial]:
        """Return every trial that was proposed, by number."""
        files = _by_trial(self.folder)
        return [self._over.get(n) or self._look(n, files[n]) for n in sorted(files)]

    def propose(self, number: int, proposal: Proposal) -> bool:
        """Make trial `number`, or make its file again if that is damaged."""
        path = self._path(number, "trial")
        content = {"point": to_jsonable(proposal.point)}
        if proposal.u is not None:
            content["u"] = dict(proposal.u)
        text = json.dumps(content, sort_keys=True)
        if path.exists() and "point" not in (_read(path) or {}):
            write_text(path, text)
            return True
        return make_exclusively(path, text)

    def claim(self, trial: Trial) -> int | None:
        """Take a trial that no process runs; return the number of the claim, or None."""
        if trial.state not in ("waiting", "interrupted") or trial.point is None:
            return None
        number = trial.claim + 1
        owner = json.dumps({"host": host(), "pid": os.getpid(), "start": start_time(os.getpid())})
        taken = make_exclusively(self._path(trial.number, f"claim.{number}"), owner)
        return number if taken else None

    def renew(self, number: int, claim: int) -> bool:
        """Renew the lease; the file system sets the time."""
        if self._path(number, f"claim.{claim + 1}").exists():
            return False
        with contextlib.suppress(OSError):
            os.utime(self._path(number, f"claim.{claim}"))
        return True

    def set_run(self, number: int, run_name: str) -> None:
        """Keep the name of the trial's run."""
        write_text(self._path(number, "run"), json.dumps({"run_name": run_name}))

    def finish(self, number: int, claim: int, outcome: TrialOutcome) -> bool:
        """Commit a result; return False if the claim was lost or there is a result."""
        if self._path(number, f"claim.{claim + 1}").exists():
            return False
        path = self._path(number, "done")
        if path.exists() and TrialOutcome.from_content(_read(path)) is None:
            path.unlink(missing_ok=True)
        return make_exclusively(path, outcome.to_json())

    def give_back(self, number: int, claim: int, state: str, error: str | None = None) -> None:
        """End a claim without a result."""
        text = json.dumps({"state": state, "error": error})
        write_text(self._path(number, f"end.{claim}"), text)

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:05d}.{kind}"

    def _look(self, number: int, kinds: set[str]) -> Trial:
        content = _read(self._path(number, "trial")) if "trial" in kinds else None
        point = content.get("point") if content else None
        u = content.get("u") if content else None
        u = u if isinstance(u, dict) else None
        run = _read(self._path(number, "run")) if "run" in kinds else None
        run_name = run.get("run_name") if run else None
        claims = sorted(int(k[6:]) for k in kinds if k.startswith("claim."))
        claim = claims[-1] if claims else -1
        done = _read(self._path(number, "done")) if "done" in kinds else None
        outcome = TrialOutcome.from_content(done)
        if outcome is not None and point is not None:
            self._over[number] = Trial(
                number, point, outcome.state, claim, run_name=run_name, outcome=outcome, u=u
            )
            return self._over[number]
        failures, vanished, state, error = self._past(number, claims, kinds)
        if failures > self.retries or vanished >= _MOST_VANISHED:
            state, error = "failed", error or f"its process vanished {vanished} times"
        tried = error is not None
        return Trial(number, point, state, claim, failures, tried, run_name, None, error, u)

    def _past(
        self, number: int, claims: Sequence[int], kinds: set[str]
    ) -> tuple[int, int, str, str | None]:
        """Return (failures, claims whose owner vanished, state, last error) since the reopening."""
        failures, vanished, state = 0, 0, "waiting"
        error: str | None = None
        for claim in claims:
            end = _read(self._path(number, f"end.{claim}")) if f"end.{claim}" in kinds else None
            if end is None:
                alive = claim == claims[-1] and self._alive(self._path(number, f"claim.{claim}"))
                state = "running" if alive else "interrupted"
                vanished += not alive
                continue
            state = "interrupted"
            if end.get("state") == "reopened":
                failures = vanished = 0
            if end.get("state") == "failed":
                failures, vanished, error = failures + 1, 0, end.get("error")
        return failures, vanished, state, error

    def _alive(self, path: Path) -> bool:
        owner = _read(path)
        if owner and owner.get("host") == host():
            return bool(owner.get("start") == start_time(int(owner.get("pid", 0))))
        try:
            return _file_system_time(self.folder) - path.stat().st_mtime < self.lease
        except OSError:
            return False


def _file_system_time(folder: Path) -> float:
    """Return the time by the file system's clock, which all hosts share, in seconds."""
    path = folder / f".now.{os.getpid()}"
    try:
        path.touch()
        return path.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _by_trial(folder: Path) -> dict[int, set[str]]:
    kinds: dict[int, set[str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            number, _, kind = entry.name.partition(".")
            if number.isdigit() and not kind.endswith(".part"):
                kinds.setdefault(int(number), set()).add(kind)
    return kinds


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a state file, or None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _changes(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys that differ, except the description and a run_cap that has grown."""
    keys = sorted(known.keys() | wanted.keys() - {"description"})
    changed = [k for k in keys if known.get(k) != wanted.get(k) and k != "description"]
    old, new = known.get("run_cap"), wanted.get("run_cap")
    if "run_cap" in changed and (new is None or (old is not None and new > old)):
        changed.remove("run_cap")
    return changed

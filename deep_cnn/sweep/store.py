"""The one source of truth of a sweep: a folder with a few small files a trial.

    sweep.json          what the sweep is: the content of its YAML, and the seed
    00007.trial         the configuration of trial 7, and the u it was drawn with; made once
    00007.claim.0       who runs it: host, process, start time of the process
    00007.run           the name of its run
    00007.end.0         how claim 0 ended without a result: failed, interrupted, reopened
    00007.done          its result, made once: the trial is over

A file is written beside and linked or renamed into place. What must be made once is linked, which
fails where it is there. A trial is claimed by making claim.k, one above the last one that ended or
whose owner is gone; of two who try, one succeeds. An owner on this host is gone when no process has
its number and start time; one on another host when its claim was not touched for a lease, by the
clock of the file system. An owner that was taken for dead finds a higher claim and throws its work
away; if it comes too late for that, its `done` is refused or it is the first, and there is but one.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deep_cnn.errors import SpecError
from deep_cnn.sweep.spec.points import Proposal
from deep_cnn.sweep.spec.values import Point, to_jsonable
from deep_cnn.writing import make_exclusively, unwritable, write_text

LEASE = 60.0
# A trial whose owners vanish this often without a word takes them with it: give it up.
_MOST_VANISHED = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as it stands; `state` is waiting, running, interrupted, failed, finished or stopped.

    `point` is None where its file is damaged, `u` where its values were not drawn, or by a version
    that did not keep it. `claim` is the number of its last claim, -1 for none.
    `failures` counts since it was last reopened; `tried` says whether it ever failed.
    """

    number: int
    point: Point | None
    state: str = "waiting"
    claim: int = -1
    failures: int = 0
    tried: bool = False
    run_name: str | None = None
    outcome: Mapping[str, Any] | None = None
    error: str | None = None
    u: Mapping[str, float] | None = None

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return self.outcome is not None


class TrialStore(Protocol):
    """What workers share; every method may be called by many processes at once."""

    def trials(self) -> list[Trial]:
        """Every trial that was proposed, by number."""

    def propose(self, number: int, proposal: Proposal) -> bool:
        """Make trial `number`; False where somebody else did."""

    def claim(self, trial: Trial) -> int | None:
        """Take a trial that nobody runs: the number of the claim, or None."""

    def set_run(self, number: int, run_name: str) -> None:
        """Keep the name of the trial's run, so that whoever takes over goes on with it."""

    def renew(self, number: int, claim: int) -> bool:
        """Say that the owner is alive; False where the claim was lost to another one."""

    def finish(self, number: int, claim: int, outcome: Mapping[str, Any]) -> bool:
        """Commit a result; False where the claim was lost."""

    def give_back(self, number: int, claim: int, state: str, error: str | None = None) -> None:
        """End a claim without a result: failed or interrupted."""


class FolderStore(TrialStore):
    """A TrialStore in a folder that may be on a shared file system."""

    def __init__(self, folder: Path, *, retries: int = 1, lease: float = LEASE) -> None:
        self.folder, self.retries, self.lease = folder, retries, lease
        self._over: dict[int, Trial] = {}

    def open(self, content: Mapping[str, Any], seed: int) -> None:
        """Begin the sweep, or go on with it; SpecError where it is another one by now."""
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
                self._end(trial.number, trial.claim, "reopened", None)

    def trials(self) -> list[Trial]:
        """Every trial that was proposed, by number."""
        files = _by_trial(self.folder)
        return [self._over.get(n) or self._look(n, files[n]) for n in sorted(files)]

    def propose(self, number: int, proposal: Proposal) -> bool:
        """Make trial `number`, or mend its file where that is damaged."""
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
        """Take a trial; see TrialStore."""
        if trial.state not in ("waiting", "interrupted") or trial.point is None:
            return None
        number = trial.claim + 1
        owner = json.dumps({"host": host(), "pid": os.getpid(), "start": start_time(os.getpid())})
        taken = make_exclusively(self._path(trial.number, f"claim.{number}"), owner)
        return number if taken else None

    def renew(self, number: int, claim: int) -> bool:
        """Say that the owner is alive; the file system sets the time."""
        if self._path(number, f"claim.{claim + 1}").exists():
            return False
        with contextlib.suppress(OSError):
            os.utime(self._path(number, f"claim.{claim}"))
        return True

    def set_run(self, number: int, run_name: str) -> None:
        """Keep the name of the trial's run, once it is known."""
        write_text(self._path(number, "run"), json.dumps({"run_name": run_name}))

    def finish(self, number: int, claim: int, outcome: Mapping[str, Any]) -> bool:
        """Commit a result, once."""
        if self._path(number, f"claim.{claim + 1}").exists():
            return False
        path = self._path(number, "done")
        if path.exists() and not _is_outcome(_read(path)):
            path.unlink(missing_ok=True)
        return make_exclusively(path, json.dumps(outcome, sort_keys=True))

    def give_back(self, number: int, claim: int, state: str, error: str | None = None) -> None:
        """End a claim without a result."""
        self._end(number, claim, state, error)

    def _end(self, number: int, claim: int, state: str, error: str | None) -> None:
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
        outcome = _read(self._path(number, "done")) if "done" in kinds else None
        if outcome and _is_outcome(outcome) and point is not None:
            trial = Trial(
                number, point, outcome["state"], claim, run_name=run_name, outcome=outcome, u=u
            )
            self._over[number] = trial
            return trial
        failures, vanished, state, error = self._past(number, claims, kinds)
        if failures > self.retries or vanished >= _MOST_VANISHED:
            state, error = "failed", error or f"its process vanished {vanished} times"
        tried = error is not None
        return Trial(number, point, state, claim, failures, tried, run_name, None, error, u)

    def _past(
        self, number: int, claims: Sequence[int], kinds: set[str]
    ) -> tuple[int, int, str, str | None]:
        """(failures, claims whose owner vanished, state, last error) since the last reopening."""
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
            return self._now() - path.stat().st_mtime < self.lease
        except OSError:
            return False

    def _now(self) -> float:
        """The time by the file system's clock, which all hosts share."""
        path = self.folder / f".now.{os.getpid()}"
        try:
            path.touch()
            return path.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _by_trial(folder: Path) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            number, _, kind = entry.name.partition(".")
            if number.isdigit() and not kind.endswith(".part"):
                found.setdefault(int(number), set()).add(kind)
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a state file, or None where it is not there, torn or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _changes(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys that differ, but for a run_cap that has grown and the description."""
    keys = sorted(known.keys() | wanted.keys() - {"description"})
    changed = [k for k in keys if known.get(k) != wanted.get(k) and k != "description"]
    old, new = known.get("run_cap"), wanted.get("run_cap")
    if "run_cap" in changed and (new is None or (old is not None and new > old)):
        changed.remove("run_cap")
    return changed


def _is_outcome(content: Mapping[str, Any] | None) -> bool:
    return content is not None and {"state", "value"} <= content.keys()


def host() -> str:
    """This host since its last start, and the process-number space we are in."""
    parts = [os.environ.get("DEEP_CNN_HOST", socket.gethostname())]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def start_time(pid: int) -> str | None:
    """When a process began, which tells it from a later one of its number; None if it is gone.

    Where there is no /proc, only whether it is there.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "alive"
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]

"""Keep the trials of a sweep in a folder with a few small files a trial: the source of truth.

    sweep.json                      what the sweep is: the content of its YAML, the seed, the data
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

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from deep_cnn.errors import ConfigError
from deep_cnn.files import remove_leftovers
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.identity import SweepRecord
from deep_cnn.sweep.run.owner import Owners, this_process
from deep_cnn.sweep.run.records import Draw, Trial, TrialOutcome, read_record
from deep_cnn.sweep.run.trial_files import BLOCK, TrialFiles, trial_number
from deep_cnn.sweep.spec.points import Proposal
from deep_cnn.sweep.spec.values import to_jsonable

LEASE = 60.0


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


class FolderStore(TrialFiles):
    """The trials of one sweep; many processes, on many hosts, may call every method at once."""

    def __init__(
        self, folder: Path, *, retries: int = 1, lease: float = LEASE, io: FolderIO | None = None
    ) -> None:
        io = io or FolderIO()
        super().__init__(folder, retries, Owners(io, folder, lease), io)

    def open(self, update: Callable[[SweepRecord | None], SweepRecord]) -> None:
        """Begin the sweep or resume it.

        Args:
            update: Returns the record of the sweep for what sweep.json holds, None at first. It
                raises SpecError if the folder has another sweep, and then nothing is changed.
        """
        path = self.folder / "sweep.json"
        known = read_record(SweepRecord, self.io.read(path))
        record = update(known)
        for name in ("trials", "work"):
            self.io.make_folders(self.folder / name)
        self._adopt_flat_files()
        if known is None:
            self.io.remove(path)
            if not self.io.create(path, _to_json(record)):  # Another process was quicker.
                known = read_record(SweepRecord, self.io.read(path))
                record = update(known)
        if known is not None and record != known:
            self.io.replace(path, _to_json(record))
        self.look()
        self.remove_leftovers()

    def reopen(self) -> None:
        """Let trials that were given up be tried again."""
        for trial in self.trials():
            if trial.state == "failed":
                self.io.create(self.path(trial.number, f"again.{trial.claim}"), "{}")

    def remove_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed."""
        for folder in (self.folder, *(block.folder for block in self.blocks if not block.closed)):
            remove_leftovers(folder)

    def propose(self, number: int, proposal: Proposal) -> bool:
        """Make trial `number`, or make its file again if that is damaged; False if it exists."""
        path = self.path(number, "trial")
        content = {"point": to_jsonable(proposal.point)}
        if proposal.u is not None:
            content["u"] = dict(proposal.u)
        text = json.dumps(content, sort_keys=True)
        if number % BLOCK == 0:
            self.io.make_folder(path.parent)
        if not self.io.create(path, text):
            if read_record(Draw, self.io.read(path)) is not None:
                return False
            self.io.replace(path, text)
        self.note(number, "trial")
        return True

    def claim(self, trial: Trial) -> int | None:
        """Take a trial that no process runs; return the number of the claim, or None."""
        if trial.state not in ("waiting", "interrupted") or trial.point is None:
            return None
        number = trial.claim + 1
        path = self.path(trial.number, f"claim.{number}")
        if not self.io.create(path, json.dumps(asdict(this_process()))):
            return None
        if "done" in self.kinds(trial.number):  # Damaged, or the trial would be over.
            self.io.remove(self.path(trial.number, "done"))
        return number

    def set_run(self, number: int, run_name: str) -> None:
        """Note the name of a trial's run where it is not the usual one."""
        self.io.replace(self.path(number, "run"), json.dumps({"run_name": run_name}))

    def has_run(self, number: int) -> bool:
        """Return whether the name of a trial's run was noted, as of the last look."""
        return "run" in self.kinds(number)

    def renew(self, number: int, claim: int) -> bool:
        """Renew the lease; return False if another process has claimed or finished the trial."""
        if any(map(self.io.exists, (self._next_claim(number, claim), self.path(number, "done")))):
            return False
        self.io.touch(self.path(number, f"claim.{claim}"))
        return True

    def _next_claim(self, number: int, claim: int) -> Path:
        return self.path(number, f"claim.{claim + 1}")

    def finish(self, number: int, claim: int, outcome: TrialOutcome) -> bool:
        """Commit a result; return False if the claim was lost or there is a result."""
        if self.io.exists(self._next_claim(number, claim)):
            return False
        path = self.path(number, "done")
        if self.io.create(path, outcome.to_json()):
            return True
        if read_record(TrialOutcome, self.io.read(path)) is not None:
            return False
        self.io.remove(path)
        return self.io.create(path, outcome.to_json())

    def give_back(self, number: int, claim: int, state: str, error: str | None = None) -> None:
        """End a claim without a result; `state` is failed or interrupted."""
        text = json.dumps({"state": state, "error": error})
        self.io.replace(self.path(number, f"end.{claim}"), text)

    def _adopt_flat_files(self) -> None:
        """Move the state files of an earlier version, which stood beside sweep.json."""
        for name in self.io.names(self.folder):
            number = trial_number(name)
            if number is not None:
                target = self.block_folder(number // BLOCK) / name
                self.io.make_folder(target.parent)
                self.io.move(self.folder / name, target)


def _to_json(record: SweepRecord) -> str:
    return json.dumps(record.to_dict(), indent=2, sort_keys=True)

"""Identify the process that owns a claim, on this host and on others."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from deep_cnn.hosts import host, job_id, start_time
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.records import read_record

# An owner on this host that was alive counts as alive for so long, in seconds.
_PAUSE = 0.4


@dataclass(frozen=True, slots=True)
class Owner:
    """A process; `start` tells it from a later one with the same number.

    `job` is the job of a cluster that it is part of.
    """

    host: str
    pid: int
    start: str | None = None
    job: str | None = None


class Owners:
    """Says whether the owners of claim files are alive.

    Args:
        io: Reads the claim files.
        folder: A folder on their file system, which has the clock for leases.
        lease: The seconds after which a silent owner on another host counts as dead.
    """

    def __init__(self, io: FolderIO, folder: Path, lease: float) -> None:
        self.io, self.folder, self.lease = io, folder, lease
        self._owners: dict[Path, Owner] = {}
        self._alive_until: dict[Path, float] = {}

    def is_alive(self, path: Path) -> bool:
        """Return whether the owner of a claim file is alive."""
        now = time.monotonic()
        if now < self._alive_until.get(path, 0.0):
            return True
        owner = self._owners.get(path) or read_record(Owner, self.io.read(path))
        if owner is not None:
            self._owners[path] = owner
        if owner is not None and owner.host == host():
            alive, pause = owner.start == start_time(owner.pid), _PAUSE
        else:
            # Another host touches its claims every quarter of the lease.
            modified = self.io.modified(path)
            alive = modified is not None and self.io.now(self.folder) - modified < self.lease
            pause = self.lease / 8
        self._alive_until[path] = now + pause if alive else 0.0
        return alive


def this_process() -> Owner:
    """Return this process as the owner of what it claims."""
    return Owner(host(), os.getpid(), start_time(os.getpid()), job_id())

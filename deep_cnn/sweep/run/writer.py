"""Choose the one process that writes what a sweep's engines share: trials.csv and optuna.db."""

import json
from dataclasses import asdict
from pathlib import Path

from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.owner import Owners, this_process


class Writer:
    """The right to write the tables of a sweep; at most one living process has it.

    The file `writer.k` in the sweep's folder names its owner. If that process has died, or was
    silent for a lease on another host, the next one makes `writer.k+1`.
    """

    def __init__(self, io: FolderIO, folder: Path, owners: Owners) -> None:
        self.io, self.folder, self.owners = io, folder, owners
        self.path: Path | None = None

    def take(self) -> bool:
        """Take or renew the right; return whether this process has it."""
        numbers = [
            int(name[7:])
            for name in self.io.names(self.folder)
            if name.startswith("writer.") and name[7:].isdecimal()
        ]
        last = self.folder / f"writer.{max(numbers, default=0)}"
        if self.path is not None and self.path == last and numbers:
            self.io.touch(last)
            return True
        self.path = None
        if numbers and self.owners.is_alive(last):
            return False
        path = self.folder / f"writer.{max(numbers, default=-1) + 1}"
        if self.io.create(path, json.dumps(asdict(this_process()))):
            self.path = path
            for number in numbers:
                self.io.remove(self.folder / f"writer.{number}")
        return self.path is not None

    def release(self) -> None:
        """Give up the right."""
        if self.path is not None:
            self.io.remove(self.path)
            self.path = None

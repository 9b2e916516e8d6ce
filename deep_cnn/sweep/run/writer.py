"""Choose the one process that does what a sweep's engines share, such as writing trials.csv."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deep_cnn.hosts import host
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.owner import Owners, this_process
from deep_cnn.sweep.run.records import read_record

_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class _Holder:
    """The process that has the right, as far as it matters to others."""

    host: str
    pilot: bool = False


class Writer:
    """The right to write the tables of a sweep; at most one living process has it.

    The file `writer.k` in the sweep's folder names its owner. If that process has died, or was
    silent for a lease on another host, the next one makes `writer.k+1`. With another `kind` than
    `writer` it is a right to something else.
    """

    def __init__(
        self, io: FolderIO, folder: Path, owners: Owners, *, is_pilot: bool, kind: str = "writer"
    ) -> None:
        self.io, self.folder, self.owners, self.is_pilot = io, folder, owners, is_pilot
        self.kind = kind
        self.path: Path | None = None

    def take(self) -> bool:
        """Take or renew the right; return whether this process has it."""
        numbers = self._numbers()
        last = self._path(max(numbers, default=0))
        if self.path is not None and self.path == last and numbers:
            self.io.touch(last)
            return True
        self.path = None
        if numbers and self.owners.is_alive(last):
            return False
        path = self._path(max(numbers, default=-1) + 1)
        if self.io.create(path, json.dumps({**asdict(this_process()), "pilot": self.is_pilot})):
            self.path = path
            for number in numbers:
                self.io.remove(self._path(number))
        return self.path is not None

    def take_at_the_end(self) -> bool:
        """Take the right when every trial is over; return False if another process writes the rest.

        A process on another host may have died within the last lease: this one waits for that long.
        """
        end = time.monotonic() + self.owners.lease + _PAUSE
        while not self.take():
            holder = self._holder()
            if holder is not None and holder.host == host():
                return False  # It lives, and sees that every trial is over.
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        return True

    @property
    def is_held_by_pilot(self) -> bool:
        """Whether the process that has the right is a pilot, which does not export."""
        holder = self._holder()
        return holder is not None and holder.pilot

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the right in a thread while this process is busy with something else."""
        done = threading.Event()

        def renew() -> None:
            while self.path is not None and not done.wait(self.owners.lease / 4):
                self.io.touch(self.path)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def release(self) -> None:
        """Give up the right."""
        if self.path is not None:
            self.io.remove(self.path)
            self.path = None

    def _holder(self) -> _Holder | None:
        numbers = self._numbers()
        path = self._path(max(numbers, default=0))
        return read_record(_Holder, self.io.read(path)) if numbers else None

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.kind}.{number}"

    def _numbers(self) -> list[int]:
        pairs = (name.partition(".") for name in self.io.names(self.folder))
        return [int(end) for kind, _, end in pairs if kind == self.kind and end.isdecimal()]

"""Write the numbers of a run to files: its log, its tables, its arguments and its result."""

import csv
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from deep_cnn.files import RunFiles, unwritable, write_text
from deep_cnn.results import EpochRecord, RunResult
from deep_cnn.text import LogFormatter
from deep_cnn.tracking.base import Start, Tracker

_LOGGER = logging.getLogger("deep_cnn")
_STEP_SPLITS = ("train", "val")
_STEP_COLUMNS = ("step", "epoch", "loss")


class _LogFile(logging.FileHandler):
    """A log file that ignores a full disk, which the checkpoint reports in one error."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def log_to(path: Path, *, make_folder: bool = True) -> Iterator[logging.Handler]:
    """Append log records to the file `path` in this context; raise OutputError."""
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    _LOGGER.addHandler(handler)
    try:
        yield handler
    finally:
        _LOGGER.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class _Table:
    """A growing CSV file, which is always complete; every row is formatted only once."""

    def __init__(self, path: Path, columns: Sequence[str], *, make_folder: bool) -> None:
        self.path, self.columns, self.rows, self.make_folder = path, columns, 0, make_folder
        self.text = StringIO()
        self.writer = csv.writer(self.text, lineterminator="\n")
        self.writer.writerow(columns)

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows, which the next `write` writes to the file."""
        self.writer.writerows(rows)
        self.rows += len(rows)

    def write(self) -> None:
        """Write the file; raise OutputError."""
        write_text(self.path, self.text.getvalue(), make_folder=self.make_folder)


class FileTracker(Tracker):
    """The file logger, which writes `<out_dir>/logger` and `<out_dir>/results`."""

    files: RunFiles
    unsynced: tuple[str, ...] = ()

    def __init__(self) -> None:
        # Records that are logged before the run has its files wait for them.
        self.early = MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
        _LOGGER.addHandler(self.early)
        # Without its own level, the logger would drop records below a warning.
        if _LOGGER.level == logging.NOTSET:
            _LOGGER.setLevel(logging.INFO)
        self.table: _Table | None = None
        self.steps: dict[str, _Table] = {}
        self.log_file = ExitStack()
        self.is_open = False

    def start(self, start: Start) -> None:
        """Open the log, beginning with every argument; write the tables up to `history`."""
        self.files, files = start.files, start.files
        epochs = {record.epoch for record in start.history}
        for split in _STEP_SPLITS:
            self.steps[split] = _Table(
                files.steps(split), _STEP_COLUMNS, make_folder=files.may_make_folders
            )
            self.steps[split].add(_read_steps(files.steps(split), epochs))
        handler = self.log_file.enter_context(log_to(files.log, make_folder=files.may_make_folders))
        self.is_open = True
        # Directly, because the arguments belong in the file and not on the terminal.
        for name, value in start.options.items():
            handler.emit(self._line(f"--{name}={value}"))
        _LOGGER.removeHandler(self.early)
        self.early.setTarget(handler)
        self.early.close()
        text = json.dumps(dict(start.options), indent=2) + "\n"
        write_text(files.arguments, text, make_folder=files.may_make_folders)
        # What an interrupted run did not upload is still to be uploaded when it continues.
        self.unsynced = _read_unsynced(files.result)
        files.result.unlink(missing_ok=True)  # It means that the run is over, and it is not.
        self.table = None
        for record in start.history:
            self._tabulate(record)
        if self.table:
            self.table.write()

    def log(self, record: EpochRecord) -> None:
        """Add a row to the table."""
        self._tabulate(record).write()

    def log_steps(self, split: str, epoch: int, losses: Sequence[float]) -> None:
        """Add a row for each step; steps count from 0 over the whole run."""
        table = self.steps[split]
        table.add([(table.rows + i, epoch, loss) for i, loss in enumerate(losses)])
        table.write()

    def close(self, result: RunResult) -> None:
        """Write the result, which is the last file."""
        files = self.files
        write_text(files.result, result.to_json(), make_folder=files.may_make_folders)
        self.log_file.close()
        self.is_open = False

    def abandon(self) -> None:
        """Remove the files of `start`, unless the run has saved a checkpoint."""
        _LOGGER.removeHandler(self.early)
        self.log_file.close()
        if self.is_open and not self.files.last.exists():
            for path in (self.files.arguments, self.files.log):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _line(self, text: str) -> logging.LogRecord:
        """Return a record for the head of the log, with a time before the waiting records."""
        record = _LOGGER.makeRecord("deep_cnn", logging.INFO, "", 0, text, (), None)
        if self.early.buffer:
            first = self.early.buffer[0]
            record.created, record.msecs = first.created, first.msecs
        return record

    def _tabulate(self, record: EpochRecord) -> _Table:
        row = record.row()
        files = self.files
        self.table = self.table or _Table(
            files.table, list(row), make_folder=files.may_make_folders
        )
        self.table.add([[row.get(column) for column in self.table.columns]])
        return self.table


def change_result(files: RunFiles, change: Callable[[RunResult], RunResult]) -> None:
    """Change the result of a run that is over; another process may do so at the same time."""
    folder = os.open(files.result.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # A file system without locks.
            fcntl.flock(folder, fcntl.LOCK_EX)
        result = RunResult.read(files.result)
        if result is not None:  # Else the run is not over, or its result is lost.
            write_text(files.result, change(result).to_json())
    finally:
        os.close(folder)


def _read_unsynced(path: Path) -> tuple[str, ...]:
    try:
        return RunResult.from_json(path.read_text(encoding="utf-8")).unsynced
    except (OSError, ValueError, TypeError):
        return ()


def _read_steps(path: Path, epochs: set[int]) -> list[tuple[int, int, float]]:
    """Return the steps of these epochs, or none if the file is missing."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                (int(r["step"]), int(r["epoch"]), float(r["loss"])) for r in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [row for row in rows if row[1] in epochs]

"""Define every file name of a run, and write files so that they are always complete."""

import csv
import hashlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_cnn.config import TrainConfig
from deep_cnn.errors import OutputError
from deep_cnn.hosts import host, start_time
from deep_cnn.text import first_line

if TYPE_CHECKING:
    from pandas import DataFrame

_LONGEST_NAME = 100
_DAY = 24 * 60 * 60
# Of a temporary file: a hash of the writer's host, and its process number.
_WRITER = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.part$")
# A file that somebody has put there, or a link to one, is not written to.
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
_NEVER_WAIT = getattr(os, "O_NONBLOCK", 0)
_LARGEST_TEXT = 64 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._=,-]")
# Runs with these suffixes would share files with other runs, such as first.best.pt.
_OTHERS_FILES = re.compile(
    r"\.(best|test(-\d+)?|confusion|args|steps_(train|val)|epoch\d+|upload|splits)$", re.IGNORECASE
)


class RunFiles:
    """Every file of the run `name` under the folder `out`.

    While a trial of a sweep runs, all of its files are in the folder `work` instead, without
    sub-folders.

    Attributes:
        log: The log; it begins with every argument.
        table: One row for each epoch.
        arguments: The arguments as JSON.
        result: The result; it exists only if the run has ended.
        journal: What W&B has acknowledged of the run.
        source: The files of the user's network and schedule, if the run has one.
        splits: Digests of the pictures of each split, by content.
        predictions: Truth and prediction for each picture of the test split, of the first look.
        confusion: The confusion matrix of the test split.
        tensorboard: The folder of TensorBoard's event files.
        last, best: The last and the best checkpoint.
    """

    def __init__(self, out: Path, name: str, *, work: Path | None = None) -> None:
        folders = ("logger", "results", "models")
        logger, results, models = (work or out / folder for folder in folders)
        self.out, self.name, self.work = out, name, work
        self.log = logger / f"{name}.log"
        self.source = logger / f"{name}.source.zip"
        self.table = results / f"{name}.csv"
        self.arguments = results / f"{name}.args.json"
        self.result = results / f"{name}.json"
        self.journal = results / f"{name}.upload.json"
        self.splits = results / f"{name}.splits.npy"
        self.predictions = results / f"{name}.test.csv"
        self.confusion = results / f"{name}.confusion.csv"
        self.tensorboard = out / "tensorboard" / name
        self.last, self.best = models / f"{name}.pt", models / f"{name}.best.pt"

    @property
    def may_make_folders(self) -> bool:
        """Whether a missing folder is made; a removed work folder means that the trial was lost."""
        return self.work is None

    def steps(self, split: str) -> Path:
        """Return the table with the loss of each step of `split` (train or val)."""
        return self.table.with_name(f"{self.name}.steps_{split}.csv")

    def predictions_of(self, look: int) -> Path:
        """Return the predictions of a look at the test split; the first is number 1."""
        suffix = "" if look == 1 else f"-{look}"
        return self.predictions.with_name(f"{self.name}.test{suffix}.csv")

    def exist(self) -> bool:
        """Return whether a run of this name has any file."""
        files = (self.log, self.table, self.arguments, self.result, self.last, self.best)
        return any(file.exists() for file in files)


def safe_name(name: str) -> str:
    """Return `name` as the stem of a file: at most 100 bytes of letters, digits and ._=,-.

    If characters are replaced or cut, a short hash of the original name is appended, so that
    different names stay different.
    """
    safe = _OTHERS_FILES.sub(r"_\1", _UNSAFE.sub("_", name))
    safe = re.sub(r"^\.", "_", safe) or "run"
    if safe == name and len(safe) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe[: _LONGEST_NAME - 9]}-{digest}"


def numbered_names(name: str) -> Iterator[str]:
    """Yield a safe name, and then with -2, -3 and so on."""
    for number in itertools.count(1):
        suffix = "" if number == 1 else f"-{number}"
        yield name[: _LONGEST_NAME - len(suffix)] + suffix


def claim_run(config: TrainConfig) -> RunFiles:
    """Reserve a name that no run under `config.out_path` has, by creating its log.

    The name is config.run_name or `<model>-<YYYYmmdd-HHMMSS>`, made safe; if it is taken, `-2`,
    `-3` and so on are appended. Raises OutputError if the folder cannot be written.
    """
    wanted = config.run_name or f"{config.model.rpartition(':')[2]}-{datetime.now():%Y%m%d-%H%M%S}"
    for name in numbered_names(safe_name(wanted)):
        files = RunFiles(config.out_path, name)
        try:
            files.log.parent.mkdir(parents=True, exist_ok=True)
            if not files.exist():
                files.log.touch(exist_ok=False)
                break
        except OSError as error:
            # If the log does not exist, a file is in the way of its folder.
            if not (isinstance(error, FileExistsError) and files.log.exists()):
                raise unwritable(files.log, error) from error
    return files


def make_exclusively(path: Path, text: str) -> bool:
    """Write a whole file and return True, or return False if `path` exists; raise OutputError.

    The file is written under a temporary name and then linked, so it is never incomplete.
    """
    temporary = temporary_path(path)
    try:
        _write(temporary, text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # A file system without links: exclusive, but not whole at once.
            with path.open("x", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def read_text(path: Path) -> str:
    """Return the text of an ordinary file, UTF-8; raise OSError or ValueError for anything else.

    A pipe would block, a device may have no end, and no file of a run is as large as the limit.
    """
    # The check comes first, because to open some devices has effects.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not an ordinary file")
    with os.fdopen(os.open(path, os.O_RDONLY | _NEVER_WAIT), "rb") as file:
        text = file.read(_LARGEST_TEXT + 1)
    if len(text) > _LARGEST_TEXT:
        raise ValueError(f"larger than {_LARGEST_TEXT >> 20} MiB")
    return text.decode("utf-8")


def temporary_path(path: Path) -> Path:
    """Return a name beside `path` for a file that is not complete yet; no two calls share one."""
    return path.with_name(f".{path.name}.{_host_id()}-{os.getpid()}-{secrets.token_hex(8)}.part")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files in `folder` whose writers were killed.

    A writer on this host is asked for by its process number. Files of other hosts, which share
    the folder, count as left over after a day.
    """
    with suppress(OSError):
        for path in folder.glob(".*.part"):
            writer = _WRITER.search(path.name)
            if writer is not None and writer[1] == _host_id():
                is_left = start_time(int(writer[2])) is None
            else:
                is_left = time.time() - path.stat().st_mtime > _DAY
            if is_left and path.is_file():
                path.unlink(missing_ok=True)


def _host_id() -> str:
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def unwritable(path: Path, error: Exception, flag: str = "--out_dir") -> OutputError:
    """Return the error to raise if `path`, which the option `flag` has set, is not writable."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__  # torch wraps the system's reason.
    reason = (isinstance(cause, OSError) and cause.strerror) or first_line(error)
    return OutputError(
        f"{path} cannot be written ({reason});"
        f" make room or permission there, or choose another {flag}"
    )


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    flag: str = "--out_dir",
    *,
    make_folder: bool = True,
) -> None:
    """Let `write` fill an empty file beside `path`, then rename it: `path` is always complete.

    Raises OutputError if that fails. An existing file at `path` is then unchanged.
    """
    temporary = temporary_path(path)
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, _NEW, 0o666))
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError.
        raise unwritable(path, error, flag) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, make_folder: bool = True) -> None:
    """Write `text` as a whole file; raise OutputError."""
    content = text.encode("utf-8", errors="surrogateescape")
    write_whole(path, lambda temporary: temporary.write_bytes(content), make_folder=make_folder)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, _NEW, 0o666), "wb") as file:
        file.write(text.encode("utf-8", errors="surrogateescape"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a whole CSV file with floats as repr; raise OutputError."""
    write_text(path, csv_text(columns, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV, with floats as repr."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def to_csv(table: "DataFrame") -> str:
    """Return a table as CSV without its index; None is an empty cell, floats are as repr."""
    # pandas would write nan in the same way as None.
    text = table.map(lambda value: "" if value is None else str(value))
    return str(text.to_csv(index=False, lineterminator="\n"))

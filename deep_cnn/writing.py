"""Write files that are whole at any time, or say why they cannot be written."""

import csv
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_cnn.errors import OutputError

if TYPE_CHECKING:
    from pandas import DataFrame


def make_exclusively(path: Path, text: str) -> bool:
    """Make a whole file that was not there; False where it was. OutputError.

    The file is written beside and linked into place, so that nobody sees half of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        _write(temporary, text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # A file system without links: exclusive, but not whole at once.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def unwritable(path: Path, error: Exception, flag: str = "--out_dir") -> OutputError:
    """The error to raise where `path`, a place that `flag` chose, could not be written."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__  # torch wraps the system's reason.
    reason = (isinstance(cause, OSError) and cause.strerror) or str(error)
    return OutputError(
        f"{path} cannot be written ({reason.splitlines()[0]});"
        f" make room or permission there, or choose another {flag}"
    )


def write_whole(path: Path, write: Callable[[Path], object], flag: str = "--out_dir") -> None:
    """Let `write` make a file beside `path`, then rename it, so that `path` is never half there.

    OutputError where that fails; what stood at `path` before is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError.
        raise unwritable(path, error, flag) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as a whole file; OutputError."""
    write_whole(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a whole CSV file; floats by repr. OutputError."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def to_csv(table: "DataFrame") -> str:
    """Return a table as CSV without its index: None is an empty cell, floats are by repr."""
    # pandas would write nan as it writes None.
    text = table.map(lambda value: "" if value is None else str(value))
    return str(text.to_csv(index=False, lineterminator="\n"))

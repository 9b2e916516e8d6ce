"""Read the rows of a table of text, or say which line is wrong."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from deep_cnn.errors import DataError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def read_once(read: Callable[Concatenate[Path, _P], _R]) -> Callable[Concatenate[Path, _P], _R]:
    """`read` of a file, its last result kept for the next run of this process.

    It is kept while the file stays as it is; nobody may change it.
    """
    kept: dict[Any, _R] = {}

    @wraps(read)
    def reading(path: Path, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            found = path.stat()
        except OSError:
            return read(path, *args, **kwargs)
        times = found.st_mtime_ns, found.st_ctime_ns
        key = (path.resolve(), found.st_ino, found.st_size, times, repr((args, kwargs)))
        if key not in kept:
            result = read(path, *args, **kwargs)
            kept.clear()
            kept[key] = result
        return kept[key]

    return reading


def read_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of the header, even of an empty file, then of each row that is not blank.

    DataError for a file that is no such table, and for a row with more or fewer cells.
    """
    kind = {",": "CSV", "\t": "TSV"}[delimiter]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            columns = [column.strip() for column in next(reader, [])]
            yield 1, columns
            for cells in reader:
                if not "".join(cells).strip():
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path} line {reader.line_num}: {len(cells)} values for {len(columns)}"
                        f" columns ({','.join(columns)}); make them agree"
                    )
                yield reader.line_num, cells
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as {kind} in UTF-8") from None
    except csv.Error as error:
        text = f"{path} is not a {kind} file ({error}); save it as {kind} in UTF-8"
        raise DataError(text) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file") from None


def listed(columns: Sequence[str]) -> str:
    """The names of columns, or their number where nobody would read them."""
    text = ", ".join(columns)
    return text if text.isprintable() and len(text) < 200 else f"{len(columns)} columns"


def number(text: str, where: str, column: str) -> float:
    """The finite number in a cell; DataError."""
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where} {column} {text!r} is not a finite number; correct or remove it")
    return value

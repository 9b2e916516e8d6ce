"""Read a table of text into a DataFrame, and report errors with their lines."""

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from deep_cnn.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_Reader = TypeVar("_Reader", bound=Callable[..., Any])
_Show = Callable[[str], str]


def read_once(read: _Reader) -> _Reader:
    """Cache the last result of `read`, which reads a file, for later runs of this process.

    The result is used while the file does not change. Callers must not modify it.
    """

    @lru_cache(1)
    def cached(path: Path, version: object, *args: Any, **kwargs: Any) -> Any:
        return read(path, *args, **kwargs)

    @wraps(read)
    def reading(path: Path, *args: Any, **kwargs: Any) -> Any:
        try:
            status = path.stat()
        except OSError:
            return read(path, *args, **kwargs)  # It says what is wrong.
        # A copy may keep the times of the original, so they alone do not identify the content.
        times = status.st_mtime_ns, status.st_ctime_ns
        version = path.absolute(), status.st_ino, status.st_size, times
        return cached(path, version, *args, **kwargs)

    return cast(_Reader, reading)


def read_columns(path: Path, delimiter: str = ",") -> list[str]:
    """Return the column names of a table, none for an empty file; raise DataError."""
    return next(_rows(path, delimiter))[1]


def read_table(
    path: Path,
    delimiter: str = ",",
    *,
    columns: Sequence[str] | None = None,
    where: tuple[str, str] | None = None,
) -> "DataFrame":
    """Return the rows as text, each indexed by the line of the file on which it ends.

    Args:
        path: a file in UTF-8 whose first row names the columns.
        delimiter: a comma or a tab.
        columns: the columns to return, by default all. Of equal names, the last column is used.
        where: (column, text), to return only the rows with this text in this column.

    Raises:
        DataError: the file is not such a table, or a row has more or fewer cells than the first.
    """
    import pandas as pd

    rows = _rows(path, delimiter)
    _, header = next(rows)
    position = {name: i for i, name in enumerate(header)}
    cells: dict[str, list[str]] = {name: [] for name in columns or position}
    chosen = [(column.append, position[name]) for name, column in cells.items()]
    at, text = (position[where[0]], where[1]) if where else (0, None)
    lines = array("q")
    for line, row in rows:
        if text is None or row[at] == text:
            lines.append(line)
            for append, i in chosen:
                append(row[i])
    # With any other type than `object`, pictures such as "NA" and "007" would be converted.
    return pd.DataFrame(cells, np.asarray(lines), dtype=object)


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the last line of each row and its cells, beginning with the header; raise DataError.

    Blank rows are left out, and all others have as many cells as the header. pandas' own reader
    knows no line numbers, and fills up rows that are too short.
    """
    kind = {",": "CSV", "\t": "TSV"}[delimiter]
    try:
        with open_text(path, kind) as file:
            reader = csv.reader(_without_nul(path, file), delimiter=delimiter)
            header = [column.strip() for column in next(reader, [])]
            yield reader.line_num, header
            for cells in reader:
                if not header or not any(map(str.strip, cells)):
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{path} line {reader.line_num}: {len(cells)} values for {len(header)}"
                        f" columns ({','.join(header)}); make them agree"
                    )
                yield reader.line_num, cells
    except csv.Error as error:
        text = f"{path} is not a {kind} file ({error}); save it as {kind} in UTF-8"
        raise DataError(text) from None


@contextmanager
def open_text(path: Path, kind: str = "text") -> Iterator[TextIO]:
    """Open a text file; raise DataError for errors while it is read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as {kind} in UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file") from None


def _without_nul(path: Path, file: TextIO) -> Iterator[str]:
    for line, text in enumerate(file, 1):
        if "\0" in text:
            raise DataError(f"{path} line {line} has a NUL byte; save the file as text")
        yield text


def no_column(path: Path, name: str, columns: Sequence[str], way: str) -> DataError:
    """Return the error for a table without the column `name`; `way` is the advice to the user."""
    there = ", ".join(columns)
    if not there.isprintable() or len(there) >= 200:  # Some other file: the names are no help.
        there = f"{len(columns)} columns"
    return DataError(f"{path} line 1: no column {name} (it has {there}); {way}")


def refuse(path: Path, column: "Series[str]", wrong: Any, what: str, show: _Show = repr) -> None:
    """Raise DataError for the first cell of a column where `wrong`, (N,) bool, is True."""
    for line, text in column[wrong].items():
        raise DataError(f"{path} line {line}: {column.name} {show(text)} {what}")


def numbers(path: Path, column: "Series[str]") -> NDArray[np.float64]:
    """Return the finite numbers in a column; raise DataError with the line for other cells."""
    values = np.array([_number(text) for text in column], dtype=np.float64)
    refuse(path, column, ~np.isfinite(values), "is not a finite number; correct or remove it")
    return values


def _number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def check_unique(path: Path, column: "Series[str]") -> None:
    """Raise DataError with the line of the first repeated text in a column."""
    for line, text in column[column.duplicated()].items():
        first = column.index[column == text][0]
        raise DataError(f"{path} line {line}: {text} is there already, in line {first}; remove one")

"""Read a table of text into a DataFrame, or say which line of the file is wrong."""

import csv
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from deep_cnn.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_P = ParamSpec("_P")
_R = TypeVar("_R")
_ROWS_AT_ONCE = 20_000


def read_once(read: Callable[Concatenate[Path, _P], _R]) -> Callable[Concatenate[Path, _P], _R]:
    """Keep the last result of `read`, which reads a file, for the next run of this process.

    It is kept while the file stays as it is. Callers must not change it.
    """
    results: dict[Any, _R] = {}

    @wraps(read)
    def reading(path: Path, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            status = path.stat()
        except OSError:
            return read(path, *args, **kwargs)
        times = status.st_mtime_ns, status.st_ctime_ns
        key = (path.resolve(), status.st_ino, status.st_size, times, repr((args, kwargs)))
        if key not in results:
            result = read(path, *args, **kwargs)
            results.clear()
            results[key] = result
        return results[key]

    return reading


def read_columns(path: Path, delimiter: str = ",") -> list[str]:
    """Return the names of the columns of a table; an empty file has none. Raises DataError."""
    with _opened(path, delimiter) as file:
        return _Rows(path, file, delimiter).columns


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
        columns: the columns to return, all by default. Of several with one name it is the last.
        where: (column, text), to return only the rows with this text in this column.

    Raises:
        DataError: the file is no such table, or a row has more or fewer cells than the first.
    """
    import pandas as pd

    with _opened(path, delimiter) as file:
        rows = _Rows(path, file, delimiter, containing=where[1] if where else "")
        if not rows.columns:
            return pd.DataFrame()
        position = {name: str(i) for i, name in enumerate(rows.columns)}
        wanted = position if columns is None else {*columns, *(where or ())[:1]}
        names = {position[name]: name for name in wanted}
        parts = []
        # Text is read as `object`: any other type would take the pictures "NA" and "007" for else.
        for part in pd.read_csv(
            rows, sep=delimiter, usecols=list(names), dtype=object, na_filter=False,
            skip_blank_lines=False, chunksize=_ROWS_AT_ONCE,
        ):  # fmt: skip
            table = part.rename(columns=names)
            parts.append(table if where is None else table[table[where[0]] == where[1]])
    table = pd.concat(parts)[list(columns or position)]
    return table.set_index(np.asarray(rows.lines)[table.index])


class _Rows:
    """The rows of an open file, for pandas to read; `lines` are the lines on which they end.

    pandas has no numbers of lines and fills up rows that are too short. So every row is checked
    before: it is not blank and has as many cells as the header, which is replaced by positions.
    Rows that cannot have the cell `containing` are left out where that is quicker.
    """

    def __init__(self, path: Path, file: TextIO, delimiter: str, containing: str = "") -> None:
        self.path, self.file, self.delimiter = path, file, delimiter
        self.containing = containing
        header = csv.reader(file, delimiter=delimiter)
        self.columns = [column.strip() for column in next(header, [])]
        self.lines = array("q")
        self.line = header.line_num  # The last line that was read.
        self.unread = delimiter.join(map(str, range(len(self.columns)))) + "\n"

    def __iter__(self) -> Iterator[str]:
        """Iterate over pieces of the text; pandas asks for it and does not use it."""
        return iter(self.read, "")

    def read(self, size: int = -1) -> str:
        """Return about `size` characters, which are whole rows; "" at the end."""
        text, self.unread = self.unread, ""
        while not text and (lines := self.file.readlines(size)):
            block = "".join(lines)
            if "\0" in block:  # pandas would end the cell there.
                line = self.line + 1 + next(i for i, text in enumerate(lines) if "\0" in text)
                raise DataError(f"{self.path} line {line} has a NUL byte; save the file as text")
            text = self._quoted(lines) if '"' in block else self._plain(lines)
        return text

    def _plain(self, lines: list[str]) -> str:
        kept = []
        delimiter, delimiters = self.delimiter, len(self.columns) - 1
        containing = self.containing
        for line, text in enumerate(lines, self.line + 1):
            # `_belongs` knows, but it is slow for a million rows.
            plain = text.count(delimiter) == delimiters and text[0].isalnum()
            belongs = plain or self._belongs(text.rstrip("\r\n").split(delimiter), line)
            if belongs and containing in text:
                kept.append(text)
                self.lines.append(line)
        self.line += len(lines)
        return "".join(kept)

    def _quoted(self, lines: list[str]) -> str:
        """Return rows whose cells may have line breaks, even beyond the end of `lines`."""
        kept, before = StringIO(), self.line
        reader = csv.reader(chain(lines, self.file), delimiter=self.delimiter)
        writer = csv.writer(kept, delimiter=self.delimiter, quoting=csv.QUOTE_ALL)
        while reader.line_num < len(lines):
            cells = next(reader)
            self.line = before + reader.line_num
            if self._belongs(cells, self.line):
                writer.writerow(cells)
                self.lines.append(self.line)
        return kept.getvalue()

    def _belongs(self, cells: list[str], line: int) -> bool:
        """Return whether a row is not blank. Raises DataError for one of another length."""
        if not "".join(cells).strip():
            return False
        if len(cells) != len(self.columns):
            raise DataError(
                f"{self.path} line {line}: {len(cells)} values for {len(self.columns)}"
                f" columns ({','.join(self.columns)}); make them agree"
            )
        return True


@contextmanager
def _opened(path: Path, delimiter: str) -> Iterator[TextIO]:
    """Open a table for reading. Raises DataError for what goes wrong while it is read."""
    kind = {",": "CSV", "\t": "TSV"}[delimiter]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as {kind} in UTF-8") from None
    except csv.Error as error:
        text = f"{path} is not a {kind} file ({error}); save it as {kind} in UTF-8"
        raise DataError(text) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file") from None


def listed(columns: Sequence[str]) -> str:
    """Return the names of columns, or their number where the names would be no help."""
    text = ", ".join(columns)
    return text if text.isprintable() and len(text) < 200 else f"{len(columns)} columns"


def numbers(path: Path, column: "Series[str]") -> NDArray[np.float64]:
    """Return the finite numbers in a column of `read_table`. Raises DataError with the line."""
    values = np.array([_number(text) for text in column], dtype=np.float64)
    for i in np.flatnonzero(~np.isfinite(values))[:1]:
        raise DataError(
            f"{path} line {column.index[i]}: {column.name} {column.iloc[i]!r} is not a finite"
            " number; correct or remove it"
        )
    return values


def _number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def check_unique(path: Path, column: "Series[str]") -> None:
    """Raise DataError with the line where a text is in a column of `read_table` again."""
    for line in column.index[column.duplicated()][:1]:
        text = column[line]
        first = column.index[column == text][0]
        raise DataError(f"{path} line {line}: {text} is there already, in line {first}; remove one")

"""Read a table of text into a DataFrame, and collect its faults with their lines."""

import math
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from deep_cnn.delimited import find_dialect, read_rows
from deep_cnn.errors import DataError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_Reader = TypeVar("_Reader", bound=Callable[..., Any])
_Show = Callable[[str], str]
_MOST_FAULTS = 10
# One comma and three digits, as in 4,333, may be a decimal comma or a thousand.
_UNCLEAR = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+(?=,))?(,\d*)?(e[+-]?\d+)?", re.IGNORECASE)
_DECIMAL_POINT = re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)?(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
# What separates thousands in French and Swiss numbers.
_SPACES = re.compile(r"(?<=\d)[\u00a0\u202f\u2009 '\u2019](?=\d{3})")

_POINT_OR_THOUSAND = "may have a decimal point or a thousand; write 1.234 as 1234 or as 1.2340"
# What programs and people write for a missing value, in lower case.
_MISSING = (
    "", "na", "n/a", "n.a.", "#n/a", "#na", "#nv", "#div/0!", "<na>", "null", "none", "nil", "-",
    "--", "\u2013", "\u2014", ".", "?",
)  # fmt: skip


@dataclass(slots=True)
class Reading:
    """What is found while the table `path` is read.

    Attributes:
        faults: Line and text of each fault.
        notes: What differs from a table in UTF-8 with commas and decimal points.
        delimiter: The separator.
    """

    path: Path
    faults: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    delimiter: str = ","

    def refuse(self, column: "Series[str]", wrong: Any, what: str, show: _Show = repr) -> None:
        """Add a fault for each cell of a column where `wrong`, (N,) bool, is True."""
        for line, text in column[wrong].items():
            self.faults.append((cast(int, line), f"{column.name} {show(text)} {what}"))

    def refuse_repeated(self, column: "Series[str]", way: str = "remove one") -> None:
        """Add a fault for each text that is in the column for a second time."""
        first: dict[str, Any] = {}
        for line, text in column.items():
            if first.setdefault(text, line) != line:
                there = f"{text} is there already, in line {first[text]}; {way}"
                self.faults.append((cast(int, line), there))

    def raise_faults(self) -> None:
        """Raise DataError with all faults in one line, if there are any."""
        if self.faults:
            faults = [f"line {line}: {text}" for line, text in sorted(self.faults)]
            first, *others = faults[:_MOST_FAULTS]
            rest = len(faults) - len(faults[:_MOST_FAULTS])
            more = f"; {len(faults) - 1} more: {'; '.join(others)}" if others else ""
            raise DataError(f"{self.path} {first}{more}{f' and {rest} others' if rest else ''}")

    def numbers(
        self, column: "Series[str]", cells: "DataFrame | None" = None
    ) -> NDArray[np.float64]:
        """Return the numbers in a column; add a fault for each cell that is not finite.

        A column has decimal points or decimal commas; thousands may be separated. The other columns
        are in `cells`. Where they have decimal commas, points may separate thousands.
        """
        # The minus of Scandinavian spreadsheets is not a hyphen.
        texts = [_SPACES.sub("", text.replace("\u2212", "-")) for text in column]
        what = "is not a finite number; correct or remove it"
        comma = [text for text in texts if "," in text]
        # Where semicolons separate cells, commas are decimal. Among thousands, though, there would
        # be numbers of three digits without a separator.
        is_large = any(text.isdecimal() and len(text) >= 3 for text in texts)
        pointed = [text.replace(".", ",") for text in texts if "." in text]
        is_unclear = pointed and not comma and all(map(_UNCLEAR.fullmatch, pointed))
        is_semicolon = self.delimiter == ";" and (is_large or len(pointed) == len(texts))
        if is_unclear and (is_semicolon or _has_decimal_commas(cells)):
            what = _POINT_OR_THOUSAND
            texts = ["" if "." in text else text for text in texts]
        if comma:
            is_decimal = self.delimiter == ";" and not is_large
            points = _point_for_comma(comma, unclear=True if is_decimal else None)
            if points is None:
                what = "may have a decimal comma or a thousand; write decimals with a point"
                texts = [text if "," in text else "0" for text in texts]
            elif points:
                self.notes.append(f"decimal commas in {column.name}")
                good = [_DECIMAL_COMMA.fullmatch(text) for text in texts]
                swap = str.maketrans(",", ".", ".")
                texts = [t.translate(swap) if ok else "" for t, ok in zip(texts, good, strict=True)]
            else:
                texts = [t.replace(",", "") if _DECIMAL_POINT.fullmatch(t) else "" for t in texts]
        values = np.array([_number(text) for text in texts], dtype=np.float64)
        self.refuse(column, ~np.isfinite(values), what)
        return values


def is_missing(column: "Series[str]") -> "Series[bool]":
    """Return whether each cell of a column is empty, or says that there is no value."""
    texts = column.str.strip()
    # R and pandas write NaN for a missing value; nan, from Python, is a computation that failed.
    return texts.str.lower().isin(_MISSING) | (texts == "NaN")


def _has_decimal_commas(cells: "DataFrame | None") -> bool:
    """Return whether a column has commas that can only be decimal, as in 3,5."""
    for name in () if cells is None else cells:
        texts = cells[name][~is_missing(cells[name])]  # type: ignore[index]
        comma = [text for text in texts if "," in text]
        is_number = comma and all(map(_DECIMAL_COMMA.fullmatch, texts))
        if is_number and _point_for_comma(comma, unclear=None):
            return True
    return False


def _point_for_comma(texts: Sequence[str], *, unclear: bool | None) -> bool | None:
    """Return whether commas are decimal in a column, or `unclear` if that is not clear."""
    clear = [text for text in texts if not _UNCLEAR.fullmatch(text)]
    if not clear:
        return unclear
    return not any(text.count(",") > 1 or -1 < text.rfind(",") < text.rfind(".") for text in clear)


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


def read_columns(
    path: Path, delimiter: str | None = None, *, names: Callable[[], Iterable[str]] = tuple
) -> list[str]:
    """Return the column names of a table, none for an empty file; raise DataError."""
    return next(read_rows(path, find_dialect(path, delimiter, names)))[1]


def read_table(
    path: Path,
    delimiter: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: tuple[str, str] | None = None,
    reading: Reading | None = None,
    names: Callable[[], Iterable[str]] = tuple,
) -> "DataFrame":
    """Return the rows as text, each indexed by the line of the file on which it ends.

    Args:
        path: a file whose first row names the columns.
        delimiter: the separator; by default that of the file, a comma, a semicolon or a tab.
        columns: the columns to return, by default all. Of equal names, the last column is used.
        where: (column, text), to return only the rows with this text in this column.
        reading: receives faults and notes, and rows with faults are left out.
        names: returns texts that the table may have, which tell its encoding.

    Raises:
        DataError: the file is no such table, or rows are uneven and there is no `reading`.
    """
    import pandas as pd

    dialect = find_dialect(path, delimiter, names)
    record = reading or Reading(path)
    record.delimiter, record.notes = dialect.delimiter, record.notes + dialect.notes
    rows = read_rows(path, dialect)
    _, header = next(rows)
    position = {name: i for i, name in enumerate(header)}
    cells: dict[str, list[str]] = {name: [] for name in columns or position}
    chosen = [(column.append, position[name]) for name, column in cells.items()]
    at, text = (position[where[0]], where[1]) if where else (0, None)
    lines = array("q")
    for line, row in rows:
        if len(row) != len(header):
            record.faults.append((line, _uneven(row, header)))
            if not reading:
                record.raise_faults()
        elif text is None or row[at] == text:
            lines.append(line)
            for append, i in chosen:
                append(row[i])
    # With any other type than `object`, pictures such as "NA" and "007" would be converted.
    return pd.DataFrame(cells, np.asarray(lines), dtype=object)


def _uneven(row: Sequence[str], header: Sequence[str]) -> str:
    columns = f"{len(header)} columns ({','.join(header)})"
    return f"{len(row)} values for {columns}; make them agree"


def no_columns(path: Path, missing: Sequence[tuple[str, str]], columns: Sequence[str]) -> DataError:
    """Return the error for a table without columns, each with the advice to the user."""
    there = ", ".join(columns) or "none, as the file is empty"
    if not there.isprintable() or len(there) >= 200:  # Some other file: the names are no help.
        there = f"{len(columns)} columns"
    (name, way), *others = missing
    more = "".join(f"; no column {name}; {way}" for name, way in others)
    return DataError(f"{path} line 1: no column {name} (it has {there}); {way}{more}")


def _number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan

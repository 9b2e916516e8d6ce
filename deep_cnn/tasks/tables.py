"""Read the rows of a table of text, or say which line is wrong."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from deep_cnn.errors import DataError


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

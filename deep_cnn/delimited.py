"""Read the rows of a table of text: find its encoding and separator, and count its lines."""

import codecs
import csv
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from deep_cnn.errors import DataError

# Of separators that fit a table equally well, the first is used: the cells of a table with
# semicolons may all have one decimal comma.
_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "vertical bars"}
_SAMPLE_LINES = 50
# Excel's line that names the separator.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*[\r\n]*', re.IGNORECASE)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
# The accented letters of Mac Roman, without those bytes that are quotes and dashes in Windows-1252,
# and those of Windows-1252.
_MAC_LETTER = re.compile(rb"[A-Za-z][\x80-\x90\x98-\x9f]")
_WINDOWS_LETTER = re.compile(rb"[\xc0-\xff]")
_BETWEEN = re.compile(r"[\r\n\t,;|\"'/\\]+")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_SPREADSHEET_STARTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_OTHERS = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}


class Dialect(NamedTuple):
    """The form of a table: its encoding, its separator, and the lines before its header."""

    encoding: str
    delimiter: str
    skipped: int = 0

    @property
    def notes(self) -> list[str]:
        """What differs from a table in UTF-8 with commas."""
        separator = [] if self.delimiter == "," else [_SEPARATORS.get(self.delimiter, "separators")]
        if self.encoding in _OTHERS:
            return [*separator, f"the encoding {_OTHERS[self.encoding]}, as it is not UTF-8"]
        return [*separator, *(["UTF-16"] if self.encoding.startswith("utf-16") else [])]


def find_dialect(
    path: Path, delimiter: str | None = None, names: Callable[[], Iterable[str]] = tuple
) -> Dialect:
    """Return the form of a table; raise DataError if it is not text.

    With a `delimiter`, only the encoding is looked for. Without one, a file that is not UTF-8 may
    be in Windows-1252 or Mac Roman, which Excel writes. It is in that one in which it has more of
    `names`, such as those of the pictures; they are only asked for if they are needed.
    """
    with _reported(path, "text"), path.open("rb") as file:
        start = file.read(4)
        if start in _SPREADSHEET_STARTS or path.suffix.lower() in SPREADSHEETS:
            raise DataError(f"{path} is a spreadsheet; save it as CSV, and name that file")
        encoding = _encoding(start[:2])
        if delimiter:
            return Dialect(encoding, delimiter)
        if encoding == "utf-8-sig" and not _is_utf8(path):
            file.seek(0)
            encoding = _older_encoding(file.read(), names)
    with open_text(path, "CSV", encoding) as text:
        lines = list(islice(text, _SAMPLE_LINES))
    named = _SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    if named:
        return Dialect(encoding, named[1], 1)
    return Dialect(encoding, max(_SEPARATORS, key=lambda each: _fit(lines, each)))


def _encoding(start: bytes) -> str:
    """Return UTF-16 for a text that starts with its mark, or with the letters of a header."""
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if start.count(0) != 1 or len(start) != 2:
        return "utf-8-sig"
    return "utf-16-be" if start[0] == 0 else "utf-16-le"


def _older_encoding(content: bytes, names: Callable[[], Iterable[str]]) -> str:
    """Return the encoding of a text that is not UTF-8, or UTF-8 if it is no text."""
    if _CONTROL.search(content):
        return "utf-8-sig"
    texts = {"mac_roman": content.decode("mac_roman")}
    with suppress(UnicodeDecodeError):
        texts["cp1252"] = content.decode("cp1252")
    wanted = {part for name in names() for part in _foreign_parts(name)}
    wanted |= {part.rpartition(".")[0] for part in wanted} - {""}
    letters = {letter for part in wanted for letter in part if not letter.isascii()}
    fits = {}
    for encoding, text in texts.items():
        parts = _foreign_parts(text)
        fits[encoding] = len(wanted & parts), sum(not letters.isdisjoint(part) for part in parts)
    is_mac = _MAC_LETTER.search(content) and not _WINDOWS_LETTER.search(content)
    likely, other = ("mac_roman", "cp1252") if is_mac else ("cp1252", "mac_roman")
    if fits.get(other, (0, 0)) > fits.get(likely, (0, 0)):
        return other
    return likely if likely in texts else "utf-8-sig"


def _foreign_parts(text: str) -> set[str]:
    """Return the parts of a text between separators and slashes that are not ASCII, in one form."""
    parts = (part for part in _BETWEEN.split(text) if not part.isascii())
    return {unicodedata.normalize("NFC", part).strip().casefold() for part in parts}


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while block := file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _fit(lines: list[str], delimiter: str) -> tuple[bool, int]:
    """Return whether the rows have the same number of cells, and the number in the first."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error:
        return False, 0
    width = len(rows[0]) if rows else 0
    return width > 1 and all(len(row) == width for row in rows), width


def read_rows(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the last line of each row and its cells, beginning with the header; raise DataError.

    Blank rows are left out. pandas' own reader knows no line numbers, and fills up rows that are
    too short.
    """
    kind = "TSV" if dialect.delimiter == "\t" else "CSV"
    texts: list[str] = []  # Those of the current row.
    number, header = dialect.skipped, None
    with open_text(path, kind, dialect.encoding) as file:
        lines = islice(_kept(path, file, texts), dialect.skipped, None)
        reader = csv.reader(lines, delimiter=dialect.delimiter)
        try:
            for cells in reader:
                if len(texts) > 1:  # Otherwise, a stray quote would swallow rows.
                    list(csv.reader(texts, delimiter=dialect.delimiter, strict=True))
                texts.clear()
                number = reader.line_num + dialect.skipped
                if any(map(str.strip, cells)):
                    if header is None:
                        header = cells = [_INVISIBLE.sub("", cell).strip() for cell in cells]
                    yield number, cells
        except csv.Error as error:
            if len(texts) > 1:
                way = "has a quotation mark that is not closed as it should; remove or double it"
                raise DataError(f"{path} line {number + 1} {way}") from None
            text = f"{path} is not a {kind} file ({error}); save it as {kind} in UTF-8"
            raise DataError(text) from None
    if header is None:
        yield number, []


@contextmanager
def open_text(path: Path, kind: str = "text", encoding: str = "utf-8-sig") -> Iterator[TextIO]:
    """Open a text file; raise DataError for errors while it is read."""
    with _reported(path, kind), path.open(encoding=encoding, newline="") as file:
        yield file


@contextmanager
def _reported(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as {kind} in UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file") from None


def _kept(path: Path, file: TextIO, texts: list[str]) -> Iterator[str]:
    """Yield the lines of a file, and append them to `texts`."""
    for line, text in enumerate(file, 1):
        if "\0" in text:
            raise DataError(f"{path} line {line} has a NUL byte; save the file as text")
        texts.append(text)
        yield text

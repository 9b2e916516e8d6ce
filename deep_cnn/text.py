"""Make text safe to print in one line."""

import logging
import unicodedata
from typing import Any

# Control characters and halves of surrogate pairs, which no terminal must receive, line and
# paragraph separators, and characters that change the direction of the text around them.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners, which Persian, Indian languages and emoji need.
_PRINTABLE = "\u200c\u200d"


def printable(text: object) -> str:
    """Return `str(text)` in one line, with escapes such as `\\x1b` for control characters.

    A terminal executes control characters, and a line feed begins another line of a table.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_escape, text))


def printable_lines(text: object) -> str:
    """Return lines of text without control characters inside of the lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def _escape(char: str) -> str:
    if char in _PRINTABLE or unicodedata.category(char) not in _UNPRINTABLE:
        return char
    return char.encode("unicode_escape").decode("ascii")


class LogFormatter(logging.Formatter):
    """A formatter whose messages are one line each; only tracebacks have more lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Return the lines of a traceback."""
        return printable_lines(super().formatException(ei))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__

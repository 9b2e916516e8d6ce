"""Keep the rows of a prediction in `.FILE.part` until it is complete, so that it can continue."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from deep_cnn.errors import DataError
from deep_cnn.files import unwritable


class Row(NamedTuple):
    """What is known of one picture.

    Attributes:
        digest: A hash of its content, 0 if it is not known.
        place: Its latitude and longitude.
        error: Why it cannot be read.
        values: The predictions, none if it cannot be read.
    """

    digest: int
    place: tuple[float, float] | None
    error: str | None
    values: Sequence[float | str]


class Unfinished:
    """The rows of a prediction so far, in the file `.FILE.part`.

    Its first line is the header as JSON. Each further line is one picture, in the order of the
    pictures, so that their number says where to continue.

    Args:
        target: FILE.
        header: The digests of everything that the rows depend on, by what it is.
        batch: Rows of a batch that is not complete are computed again.
        total: The number of pictures.
        overwrite: Whether rows with another header are discarded.

    Raises:
        DataError: The file has another header, or another process writes it.
        OutputError: It cannot be written.
    """

    def __init__(
        self, target: Path, header: Mapping[str, Any], batch: int, total: int, *, overwrite: bool
    ) -> None:
        self.path, self.header, self.done = target.with_name(f".{target.name}.part"), header, 0
        self._batch, self._total = batch, total
        self._file = self._open()
        try:
            self._continue(overwrite=overwrite)
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> BinaryIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.fdopen(os.open(self.path, flags, 0o666), "r+b")
        except OSError as error:
            raise unwritable(self.path, error, "--out") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise DataError(
                f"{self.path}: another process writes it; wait for it, or choose another --out"
            ) from None
        except OSError:  # A file system without locks.
            pass
        return file

    def _continue(self, *, overwrite: bool) -> None:
        """Find the rows that are complete, and remove what follows."""
        first = self._file.readline()
        before = _parsed(first)
        if first.endswith(b"\n") and before != self.header:
            if not overwrite:
                changed = [k for k, v in self.header.items() if _of(before, k) != v]
                raise DataError(
                    f"{self.path} is unfinished with other {' and '.join(changed)}; give the same"
                    " command again, or --overwrite, or choose another --out"
                )
            before = None
        if before != self.header:
            self._file.seek(0)
            self._file.truncate()
            self._write([self.header])
            return
        end, count = len(first), 0
        position = end
        for line in self._file:
            row = _row(line) if line.endswith(b"\n") else None
            width = len(self.header["columns"])
            if row is None or count == self._total or len(row.values) not in (0, width):
                break
            count, position = count + 1, position + len(line)
            if count % self._batch == 0 or count == self._total:
                self.done, end = count, position
        self._file.seek(end)
        self._file.truncate()

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; raise OutputError. A process that is killed afterwards has kept them."""
        self._write(rows)
        self.done += len(rows)

    def _write(self, lines: Sequence[object]) -> None:
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        try:
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error, "--out") from error

    def rows(self) -> Iterator[Row]:
        """Yield the rows so far."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                row = _row(line)
                assert row is not None
                yield row

    def remove(self) -> None:
        """Remove the file, whose rows are in FILE now."""
        with suppress(OSError):
            self.path.unlink()

    def close(self) -> None:
        """Let other processes continue."""
        with suppress(OSError):
            self._file.close()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _of(header: Any, name: str) -> Any:
    return header.get(name) if isinstance(header, dict) else None


def _row(line: bytes) -> Row | None:
    content = _parsed(line)
    if not isinstance(content, list) or len(content) != 4:
        return None
    digest, place, error, values = content
    if not isinstance(digest, int) or not isinstance(values, list):
        return None
    return Row(digest, tuple(place) if isinstance(place, list) else None, error, values)

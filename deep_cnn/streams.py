"""Keep the standard streams usable: closed or full ones cost no run."""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from deep_cnn.errors import OutputError


class _LossyFile(io.FileIO):
    """A descriptor that drops what cannot be written, after one error if it is `required`.

    Attributes:
        lost: The first error.
        required: Whether the next write that fails raises it: BrokenPipeError or OutputError.
    """

    def __init__(self, descriptor: int, lost: OSError | None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.lost, self.required = lost, False

    def write(self, data: Any) -> int:
        """Write all of `data`, waiting for a reader, or drop it; return its size."""
        view = memoryview(data).cast("B")
        done = 0
        while self.lost is None and done < len(view):
            try:
                count = super().write(view[done:])
                if count is None:  # A pipe that does not block is full.
                    select.select([], [self], [])
                done += count or 0
            except OSError as error:
                self.lost = error
        if self.lost is not None and self.required:
            self.required = False
            if self.lost.errno == errno.EPIPE:  # Whoever reads our output, `head` say, has enough.
                raise BrokenPipeError(self.lost.errno, self.lost.strerror)
            raise OutputError(
                f"standard output cannot be written ({self.lost.strerror}); make room there, or"
                " send it elsewhere"
            )
        return len(view)


def protect_streams() -> None:
    """Make print, logging, warnings and progress bars ignore that stdout or stderr is lost.

    Descriptors that are closed are opened on the null device, so that no other file gets their
    numbers. Streams that the caller has replaced are left alone.
    """
    closed = [_open_null(descriptor) for descriptor in range(3)]
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and not _is_protected(stream):
            lost = OSError(errno.EBADF, "it is closed") if closed[descriptor] else None
            protected = _protected(_LossyFile(descriptor, lost), stream)
            setattr(sys, name, protected)
            setattr(sys, f"__{name}__", protected)
    if closed[0] and sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, for good.


@contextmanager
def required_stdout() -> Iterator[None]:
    """Raise an error if stdout loses something in this context, because it is the result.

    Raises:
        BrokenPipeError: The reader has gone.
        OutputError: The device is full, or stdout was closed from the beginning.
    """
    file: Any = getattr(sys.stdout.buffer, "raw", None) if _is_protected(sys.stdout) else None
    if file is None:
        yield
        return
    file.required = True
    try:
        yield
        sys.stdout.flush()
    finally:
        file.required = False


def write_at_once(text: str) -> None:
    """Write a line to stderr from a signal handler, which must not enter a stream's buffer."""
    start = "\n" if os.isatty(2) else ""  # The terminal is in the middle of a line.
    with suppress(OSError):
        os.write(2, f"{start}{text}\n".encode())


def _open_null(descriptor: int) -> bool:
    """Open a descriptor on the null device if it is closed, and return whether it was."""
    try:
        os.fstat(descriptor)
    except OSError:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            if null == descriptor:
                os.set_inheritable(null, True)
            else:
                os.dup2(null, descriptor)
                os.close(null)
        return True
    return False


def _is_protected(stream: TextIO | None) -> bool:
    return isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _LossyFile)


def _protected(file: _LossyFile, stream: TextIO | None) -> TextIO:
    """Return a stream on `file` with the encoding and buffering of `stream`."""
    if stream is not None:
        with suppress(OSError):
            stream.flush()
    write_through = getattr(stream, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=getattr(stream, "encoding", "utf-8"),
        # A name may hold what the terminal cannot show.
        errors="backslashreplace",
        # With PYTHONUNBUFFERED, a stream has no buffer to flush after a line; this one has.
        line_buffering=getattr(stream, "line_buffering", True) or write_through,
        write_through=write_through,
    )

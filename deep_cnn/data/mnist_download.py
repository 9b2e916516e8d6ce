"""Download the four files of MNIST, and verify their checksums."""

import gzip
import hashlib
import urllib.request
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path

from deep_cnn.errors import DataError
from deep_cnn.files import write_whole
from deep_cnn.layout import MNIST_FILES, find_idx
from deep_cnn.progress import track_reading
from deep_cnn.text import first_line

# Of the unpacked files: mirrors have packed them in different ways.
SHA256 = dict(
    zip(
        MNIST_FILES,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        strict=True,
    )
)
_TIMEOUT = 60.0
_LARGEST = 64 * 2**20  # What is longer is something else.


def download_mnist(url: str, folder: Path) -> str:
    """Download the files that `folder` lacks, each as a whole file; return a message.

    Raises DataError if a file is not available or has another checksum, OutputError.
    """
    new = 0
    for name in MNIST_FILES:
        there = find_idx(folder, name)
        if there is None:
            address = f"{url.rstrip('/')}/{name}.gz"
            content = _download(address, name)
            write = partial(Path.write_bytes, data=content)
            write_whole(folder / f"{name}.gz", write, "--data_dir")
            new += 1
        elif not _is_genuine(_content_of(there), name):
            raise DataError(f"{there} is damaged, or not of MNIST; remove it, and fetch again")
    return f"{folder}, {new} new files, {len(MNIST_FILES) - new} were there already"


def _download(url: str, name: str) -> bytes:
    """Return a gzipped file of MNIST; raise DataError."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            length = getattr(answer, "length", None)
            with track_reading(answer, f"Fetching {name}", length) as stream:
                content: bytes = stream.read(_LARGEST)
    except (OSError, ValueError, HTTPException) as error:
        raise DataError(
            f"{url} cannot be fetched ({first_line(error)}); try again, or name a mirror with"
            " --url, the address of a folder with the four files"
        ) from error
    if not _is_genuine(content, name):
        raise DataError(
            f"{url} is not MNIST's file, or broke off (its checksum differs); try again, or correct"
            " --url"
        )
    return content if content[:2] == b"\x1f\x8b" else gzip.compress(content, mtime=0)


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _is_genuine(content: bytes, name: str) -> bool:
    """Return whether a file, gzipped or not, has the checksum of MNIST's file `name`."""
    try:
        unpacked = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, OSError, zlib.error):
        return False
    return hashlib.sha256(unpacked).hexdigest() == SHA256[name]

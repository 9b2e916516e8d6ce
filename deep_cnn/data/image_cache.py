"""Decode and shape pictures once for all runs, and leave out those that cannot be decoded."""

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deep_cnn.config import TrainConfig
from deep_cnn.data.array_cache import ArrayEntry, Check, Notes, fingerprint, open_array
from deep_cnn.data.content import content_digest
from deep_cnn.data.decoding import Picture, decode, is_transient
from deep_cnn.data.preprocessing import Preprocessing
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.progress import track
from deep_cnn.resources import cores

_LOGGER = logging.getLogger("deep_cnn")
# Increase this number when the values of an entry change their meaning.
CACHE_VERSION = 4
_CHUNK = 128
_LARGEST_PART_UNREADABLE = 0.05
_MOST_LISTED = 20
# The note with the digests; no picture has this name.
_DIGESTS = ""
_S = TypeVar("_S")
_T = TypeVar("_T")
Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Pictures that are decoded and shaped.

    Attributes:
        values: (N, C, H, W) uint8; rows of unreadable pictures are undefined.
        rows: The row of each picture, by its name.
        unreadable: Why a picture cannot be read, by its name.
        fingerprint: Differs between caches with different values.
        digests: A hash of the content of each picture, (N,).
    """

    values: NDArray[np.uint8]
    rows: Mapping[str, int]
    unreadable: Mapping[str, str]
    fingerprint: str
    digests: Digests


_in_memory: dict[str, ImageCache] = {}
_last_digests: dict[str, Digests] = {}


def open_image_cache(
    examples: Examples, preprocessing: Preprocessing, folder: Path | None, check: Check
) -> ImageCache | None:
    """Return the decoded and shaped pictures of `examples`; add missing ones to `folder`.

    Returns None without a folder, or, after a warning, if nothing can be kept there. `check` is
    called regularly and may raise. Pictures that are already arrays stay in memory.
    """
    if all(isinstance(picture, np.ndarray) for picture in examples.pictures):
        return _open_in_memory(examples, preprocessing)
    if folder is None:
        return None
    examples = examples.take(sorted(range(len(examples)), key=examples.names.__getitem__))
    names, pictures, spec = examples.names, examples.pictures, preprocessing.spec
    key = fingerprint(chain([CACHE_VERSION, *preprocessing.key], map(_stamp, names, pictures)))
    digests = np.zeros(len(names), np.uint64)

    def shape(picture: Picture) -> tuple[NDArray[np.uint8] | str, int]:
        try:  # The file is hashed while the system still has it in memory.
            return preprocessing.shape(picture), content_digest(picture)
        except ValueError as error:
            if is_transient(error):
                raise OSError(f"a picture could not be read: {error}") from None
            return str(error), 0

    def fill(values: NDArray[np.uint8]) -> Notes:
        unreadable = {}
        results = _in_threads(shape, pictures, "Decoding pictures, once for all", check)
        for i, (result, digests[i]) in enumerate(results):
            if isinstance(result, str):
                unreadable[names[i]] = result
            else:
                values[i] = result
        return {**unreadable, _DIGESTS: digests.tobytes().hex()}

    sizes = (len(pictures), spec.channels, spec.crop, spec.crop)
    opened = open_array(ArrayEntry(folder / f"pictures-{key}", sizes, np.uint8, fill), check)
    if opened is None:
        return None
    values, notes = opened
    unreadable = {name: reason for name, reason in notes.items() if name != _DIGESTS}
    kept = _digests_in(notes, len(names))
    rows = {name: i for i, name in enumerate(names)}
    kept = read_digests(examples, check) if kept is None else kept
    return ImageCache(values, rows, unreadable, key, kept)


def _digests_in(notes: Notes, count: int) -> Digests | None:
    """Return the digests in the notes of a cache entry, or None if they are damaged."""
    try:
        return np.frombuffer(bytes.fromhex(notes[_DIGESTS]), np.uint64).reshape(count)
    except (LookupError, ValueError, TypeError):
        return None


def read_digests(examples: Examples, check: Check) -> Digests:
    """Return a hash of the content of each picture, (N,), without decoding it; `check` may raise.

    The last result is kept for the next run of this process, which most likely needs the same.
    """
    names, pictures = examples.names, examples.pictures
    key = fingerprint(map(_stamp, names, pictures))
    if key not in _last_digests:
        digests = _in_threads(content_digest, pictures, "Reading pictures", check)
        values = np.fromiter(digests, np.uint64, len(pictures))
        _last_digests.clear()
        _last_digests[key] = values
    return _last_digests[key]


def find_unreadable(
    examples: Examples,
    check: Check = lambda: None,
    crop_bottom: int = 0,
    digests: Digests | None = None,
) -> dict[int, str]:
    """Return the reason for each picture that cannot be decoded, by index; `check` may raise.

    `digests`, (N,), receives a hash of the content of each picture that can be decoded.
    """
    reasons: dict[int, str] = {}

    def inspect(picture: Picture) -> tuple[str | None, int]:
        try:
            decode(picture, crop_bottom)
        except ValueError as error:
            return str(error), 0
        return None, 0 if digests is None else content_digest(picture)

    results = _in_threads(inspect, examples.pictures, "Checking pictures", check)
    for i, (reason, digest) in enumerate(results):
        if reason is not None:
            reasons[i] = reason
        elif digests is not None:
            digests[i] = digest
    return reasons


def drop_unreadable(
    examples: Examples,
    config: TrainConfig,
    check: Check,
    cache: ImageCache | None = None,
    digests: Digests | None = None,
) -> Examples:
    """Return the pictures that can be decoded, and log the names of the others.

    `digests`, (N,), receives a hash of the content of each picture that can be decoded. Raises
    DataError if more than 5 % are unreadable, or any with --strict_data.
    """
    names, count = examples.names, len(examples)
    if cache:
        bad = {i: cache.unreadable[n] for i, n in enumerate(names) if n in cache.unreadable}
        if digests is not None:
            digests[:] = cache.digests[[cache.rows[name] for name in names]]
    else:
        bad = find_unreadable(examples, check, config.crop_bottom, digests)
    if not bad:
        return examples
    refuse_unreadable(examples, bad, config)
    _LOGGER.warning("%d of %d pictures are bad and left out:", len(bad), count)
    for index in list(bad)[:_MOST_LISTED]:
        _LOGGER.warning("  %s: %s", names[index], bad[index])
    if len(bad) > _MOST_LISTED:
        _LOGGER.warning("  and %d more", len(bad) - _MOST_LISTED)
    return examples.take([i for i in range(count) if i not in bad])


def refuse_unreadable(examples: Examples, bad: Mapping[int, str], config: TrainConfig) -> None:
    """Raise DataError if too many pictures are unreadable; `bad` has their indices and reasons."""
    rule = broken_rule(len(bad), len(examples), config)
    if rule:
        first = next(iter(bad))
        raise DataError(
            f"--data_dir={config.data_path}: {len(bad)} of {len(examples)} pictures are bad, the"
            f" first is {examples.names[first]} ({bad[first]}); {rule}, repair or remove them"
        )


def broken_rule(bad: int, count: int, config: TrainConfig) -> str | None:
    """Return the rule that forbids `bad` unreadable pictures among `count`, or None."""
    if bad and config.strict_data:
        return "--strict_data allows none"
    return "at most 5 % may be" if bad > _LARGEST_PART_UNREADABLE * count else None


def _in_threads(
    function: Callable[[Picture], _T], pictures: Sequence[Picture], title: str, check: Check
) -> Iterator[_T]:
    """Yield the result for each picture, in order; `check` is called regularly and may raise."""
    yield from track(in_threads(function, pictures, check), title, len(pictures))


def in_threads(
    function: Callable[[_S], _T], items: Iterable[_S], check: Check
) -> Generator[_T, None, None]:
    """Yield the result for each item, in order, while threads are at work on the next ones.

    `check` is called for each item and may raise.
    """
    source = iter(items)
    with ThreadPoolExecutor(cores()) as pool:
        # In chunks, because the results of all pictures do not fit into memory.
        chunks = deque([pool.map(function, islice(source, _CHUNK))])
        try:
            while chunks:
                if following := [*islice(source, _CHUNK)]:
                    chunks.append(pool.map(function, following))
                for result in chunks.popleft():
                    check()
                    yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _open_in_memory(examples: Examples, preprocessing: Preprocessing) -> ImageCache:
    raw = [hashlib.sha256(picture).digest() for picture in examples.pictures]  # type: ignore[arg-type]
    key = fingerprint([*preprocessing.key, examples.names, raw])
    if key not in _in_memory:
        values = np.stack([preprocessing.shape(picture) for picture in examples.pictures])
        rows = {name: i for i, name in enumerate(examples.names)}
        _in_memory.clear()  # The next run of this process most likely needs the same.
        digests = np.array([*map(content_digest, examples.pictures)], np.uint64)
        _in_memory[key] = ImageCache(values, rows, {}, key, digests)
    return _in_memory[key]


def _stamp(name: str, picture: Picture) -> tuple[Any, ...]:
    """Return values that change with a file; unlike mtime, ctime cannot be set back."""
    if not isinstance(picture, Path):
        return (name, content_digest(picture))
    path = os.path.abspath(picture)  # noqa: PTH100 - a link and its target are two names.
    try:
        stat = picture.stat()
    except OSError:
        return (name, path)
    return (name, path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

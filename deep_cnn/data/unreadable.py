"""Find the pictures that cannot be read, and say whether they are too many."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import ImageCache
from deep_cnn.data.preprocessing import Picture, decode
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError
from deep_cnn.progress import track

_LOGGER = logging.getLogger("deep_cnn")
_LARGEST_PART = 0.05
_MOST_LISTED = 20


def find_unreadable(
    examples: Examples, check: Callable[[], None] = lambda: None, crop_bottom: int = 0
) -> dict[int, str]:
    """Return why pictures cannot be decoded, by index.

    `check` is called between two pictures, and may raise.
    """

    def reason(picture: Picture) -> str | None:
        try:
            decode(picture, crop_bottom)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {}
        try:
            reasons = pool.map(reason, examples.pictures)
            for i, text in enumerate(track(reasons, "Checking pictures", len(examples))):
                check()
                if text is not None:
                    found[i] = text
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return found


def drop_unreadable(
    examples: Examples,
    config: TrainConfig,
    check: Callable[[], None],
    cache: ImageCache | None = None,
) -> Examples:
    """Return the pictures that can be decoded; the log names the others.

    Raises DataError if more than 5 % are unreadable, or any with --strict_data.
    """
    if cache:
        names = enumerate(examples.names)
        bad = {i: cache.unreadable[name] for i, name in names if name in cache.unreadable}
    else:
        bad = find_unreadable(examples, check, config.crop_bottom)
    if not bad:
        return examples
    first = next(iter(bad))
    text = f"{len(bad)} of {len(examples)} pictures are bad, the first is {examples.names[first]}"
    rule = broken_rule(len(bad), len(examples), config)
    if rule:
        raise DataError(
            f"--data_dir={config.data_path}: {text} ({bad[first]}); {rule}, repair or remove them"
        )
    _LOGGER.warning("%d of %d pictures are bad and left out:", len(bad), len(examples))
    for index in list(bad)[:_MOST_LISTED]:
        _LOGGER.warning("  %s: %s", examples.names[index], bad[index])
    if len(bad) > _MOST_LISTED:
        _LOGGER.warning("  and %d more", len(bad) - _MOST_LISTED)
    return examples.take([i for i in range(len(examples)) if i not in bad])


def broken_rule(bad: int, count: int, config: TrainConfig) -> str | None:
    """Return the rule that forbids `bad` unreadable pictures among `count`, or None."""
    if bad and config.strict_data:
        return "--strict_data allows none"
    return "at most 5 % may be" if bad > _LARGEST_PART * count else None

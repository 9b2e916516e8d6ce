"""Find the pictures that can be decoded, and say whether the others are too many."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from deep_cnn.config import TrainConfig
from deep_cnn.data.cache import Store
from deep_cnn.data.images import Picture, decode
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError

_LOGGER = logging.getLogger("deep_cnn")
# Quick on a few pictures, and worth a bar on a million.
_CHECKING: dict[str, Any] = {"desc": "Checking pictures", "unit": "", "delay": 2, "leave": False,
                             "disable": None}  # fmt: skip


def find_bad(
    examples: Examples, check: Callable[[], None] = lambda: None, crop_bottom: int = 0
) -> dict[int, str]:
    """The pictures that cannot be decoded, by index, with the reason; `check` may end it early."""

    def fault(picture: Picture) -> str | None:
        try:
            decode(picture, crop_bottom)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bad = {}
        try:
            faults = pool.map(fault, examples.pictures)
            for i, reason in enumerate(tqdm(faults, **_CHECKING, total=len(examples))):
                check()
                if reason is not None:
                    bad[i] = reason
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return bad


_MOST_BAD = 0.05
_MOST_NAMED = 20


def usable(
    examples: Examples, config: TrainConfig, check: Callable[[], None], store: Store | None = None
) -> Examples:
    """The pictures that can be decoded; the others are named in the log.

    DataError where more than 5 % are bad, or any with --strict_data.
    """
    if store:
        bad = {i: store.bad[name] for i, name in enumerate(examples.names) if name in store.bad}
    else:
        bad = find_bad(examples, check, config.crop_bottom)
    if not bad:
        return examples
    first = next(iter(bad))
    text = f"{len(bad)} of {len(examples)} pictures are bad, the first is {examples.names[first]}"
    rule = broken_rule(len(bad), len(examples), config)
    if rule:
        raise DataError(
            f"--data_dir={config.data_path}: {text} ({bad[first]}); {rule}, mend or remove them"
        )
    _LOGGER.warning("%d of %d pictures are bad and left out:", len(bad), len(examples))
    for index in list(bad)[:_MOST_NAMED]:
        _LOGGER.warning("  %s: %s", examples.names[index], bad[index])
    if len(bad) > _MOST_NAMED:
        _LOGGER.warning("  and %d more", len(bad) - _MOST_NAMED)
    return examples.take([i for i in range(len(examples)) if i not in bad])


def broken_rule(bad: int, count: int, config: TrainConfig) -> str | None:
    """What forbids so many bad pictures among the `count` of a split."""
    if bad and config.strict_data:
        return "--strict_data allows none"
    return "at most 5 % may be" if bad > _MOST_BAD * count else None

"""Collect the numbers that W&B's client writes while a run lasts, offline or online."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deep_cnn.tracking.wandb_file import RecordFile


class WandbLog:
    """The numbers in the log of one run, as far as it has been written.

    Attributes:
        rows: The numbers of each step, by name; nested names are joined with dots.
        summary: The numbers of the summary.
        names: The names of all that was logged, as keys.
        is_over: Whether the client has ended the run.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.records = path, RecordFile(path)
        self.rows: list[dict[str, float]] = []
        self.summary: dict[str, float] = {}
        self.names: dict[str, None] = {}
        self.is_over = False

    def read(self) -> None:
        """Take in what was written since the last call."""
        with suppress(OSError):
            for record in self.records.read():
                kind = record.WhichOneof("record_type")
                if kind == "history":
                    self.rows.append(_numbers(record.history.item))
                    self.names |= dict.fromkeys(map(_name, record.history.item))
                elif kind == "summary":
                    self.summary.update(_numbers(record.summary.update))
                elif kind == "exit":
                    self.is_over = True


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _numbers(items: Iterable[Any]) -> dict[str, float]:
    """Return the numbers of a step; what belongs to a picture or a table is none."""
    found: dict[str, float] = {}
    media = []
    for item in items:
        name = _name(item)
        if name.endswith("._type"):
            media.append(name.removesuffix("_type"))
        try:
            found[name] = float(item.value_json)
        except ValueError:
            if item.value_json.startswith("{"):
                found |= numbers_in(json.loads(item.value_json), f"{name}.")
    if media:
        found = {k: v for k, v in found.items() if not k.startswith(tuple(media))}
    return found


def numbers_in(content: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers in a mapping by name; nested names are joined with dots."""
    found: dict[str, float] = {}
    for name, value in content.items():
        if isinstance(value, dict) and "_type" not in value:
            found |= numbers_in(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found

"""Read the pictures and tables in the file that W&B's client keeps of a run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_PROTOCOL: Any = wandb_internal_pb2  # Its classes are made at run time.
# The file is a log of LevelDB after a header of 7 bytes: blocks with parts of records. The head of
# a part is a checksum, its length, and whether it is whole, the first, in the middle, or the last.
_HEADER, _BLOCK, _HEAD = 7, 1 << 15, 7
_WHOLE, _FIRST, _LAST = 1, 2, 4


@dataclass(slots=True)
class Media:
    """The pictures and tables of a run, as W&B's JSON by name: of each step, and of the summary."""

    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def read_media(folder: Path) -> Media:
    """Return the pictures and tables that a folder of W&B's client holds."""
    media = Media()
    for path in sorted(folder.glob("*.wandb")):
        for content in _records(path.read_bytes()):
            record = _PROTOCOL.Record.FromString(content)
            if record.HasField("history"):
                values = _values(record.history.item)
                media.steps.setdefault(record.history.step.num, {}).update(values)
            elif record.HasField("summary"):
                media.summary |= _values(record.summary.update)
    return media


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file; the last one may have been cut off by a kill."""
    parts, at = b"", _HEADER
    while at + _HEAD <= len(content):
        if _BLOCK - at % _BLOCK < _HEAD:  # Nothing begins so near to the end of a block.
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part = content[at + _HEAD : at + _HEAD + length]
        if len(part) < length or not kind:
            return
        parts = part if kind in (_WHOLE, _FIRST) else parts + part
        at += _HEAD + length
        if kind in (_WHOLE, _LAST):
            yield parts


def _values(items: Any) -> Mapping[str, Any]:
    """Return the values that have a type of W&B's; the keys of nested ones come one by one."""
    values: dict[str, Any] = {}
    for item in items:
        *groups, last = list(item.nested_key) or [item.key]
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = json.loads(item.value_json)
    return {k: v for k, v in values.items() if isinstance(v, dict) and "_type" in v}

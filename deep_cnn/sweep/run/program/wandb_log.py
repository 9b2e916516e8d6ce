"""Read the log that W&B's client writes while a run lasts, offline or online.

The file has a header of 7 bytes, and then blocks of 32 KiB, as LevelDB's logs: pieces of records
with a checksum, a length and a type each.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from wandb.proto import wandb_internal_pb2

# The client makes its classes when it is imported.
_RECORD: Any = vars(wandb_internal_pb2)["Record"]

_HEADER, _PIECE_HEADER, _BLOCK = 7, 7, 1 << 15
_FULL, _FIRST, _LAST = 1, 2, 4


class WandbLog:
    """The numbers in the log of one run, as far as it has been written.

    Attributes:
        rows: The numbers of each step, by name; nested names are joined with dots.
        summary: The numbers of the summary.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.summary: dict[str, float] = {}
        self._position, self._record = _HEADER, b""

    def read(self) -> None:
        """Take in what was written since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except OSError:
            return
        for record in self._records(data):
            try:
                message = _RECORD.FromString(record)
            except DecodeError:  # Damaged, or of a version that we do not know.
                continue
            kind = message.WhichOneof("record_type")
            if kind == "history":
                self.rows.append(_numbers(message.history.item))
            elif kind == "summary":
                self.summary.update(_numbers(message.summary.update))

    def _records(self, data: bytes) -> Iterator[bytes]:
        """Yield the whole records in the data at the present position, which moves on."""
        start = self._position
        while True:
            rest = _BLOCK - self._position % _BLOCK
            if rest < _PIECE_HEADER:
                self._position += rest
                continue
            offset = self._position - start
            head = data[offset : offset + _PIECE_HEADER]
            length = int.from_bytes(head[4:6], "little")
            piece = data[offset + _PIECE_HEADER : offset + _PIECE_HEADER + length]
            if len(head) < _PIECE_HEADER or not head[6] or len(piece) < length:
                return  # The rest is not written yet.
            self._position += _PIECE_HEADER + length
            self._record = (b"" if head[6] in (_FULL, _FIRST) else self._record) + piece
            if head[6] in (_FULL, _LAST):
                yield self._record


def _numbers(items: Any) -> dict[str, float]:
    """Return the numbers of a step; what belongs to a picture or a table is none."""
    found: dict[str, float] = {}
    media = []
    for item in items:
        name = item.key or ".".join(item.nested_key)
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

"""Read and write the file that W&B's client keeps of a run.

The file is a log of LevelDB after a header of 7 bytes: blocks of 32 KiB with parts of records. The
head of a part is a checksum, its length, and whether it is whole, the first, in the middle, or the
last.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from wandb.proto import wandb_internal_pb2

from deep_cnn.files import RunFiles

_PROTOCOL: Any = wandb_internal_pb2  # Its classes are made at run time.
_HEADER, _BLOCK, _HEAD = 7, 1 << 15, 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def folder_of(text: str, files: RunFiles) -> Path:
    """Return a folder of W&B's client, which was relative to the current folder of the run."""
    path = Path(text)
    beside = files.out / "wandb" / path.name
    return (beside if beside.exists() or not path.exists() else path).resolve()


class RecordFile:
    """The records in the file of one run, which its client may still be writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position, self._parts = _HEADER, b""

    def read(self) -> Iterator[Any]:
        """Yield the whole records that were written since the last call; OSError.

        Records that are damaged, or of a version that is not known, are left out.
        """
        with self.path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        for content in self._contents(data):
            try:
                yield _PROTOCOL.Record.FromString(content)
            except DecodeError:
                continue

    def _contents(self, data: bytes) -> Iterator[bytes]:
        """Yield the contents of records in the data at the present position, which moves on."""
        start = self._position
        while True:
            rest = _BLOCK - self._position % _BLOCK
            if rest < _HEAD:  # Nothing begins so near to the end of a block.
                self._position += rest
                continue
            at = self._position - start
            head = data[at : at + _HEAD]
            length = int.from_bytes(head[4:6], "little")
            part = data[at + _HEAD : at + _HEAD + length]
            if len(head) < _HEAD or not head[6] or len(part) < length:
                return  # The rest is not written yet, or was cut off by a kill.
            self._position += _HEAD + length
            self._parts = part if head[6] in (_WHOLE, _FIRST) else self._parts + part
            if head[6] in (_WHOLE, _LAST):
                yield self._parts


def copy_without_sweep(source: Path, target: Path) -> None:
    """Copy the file of a run, without the id of its sweep; OSError."""
    with target.open("wb") as file:
        with source.open("rb") as original:
            file.write(original.read(_HEADER))
        for record in RecordFile(source).read():
            if record.HasField("run"):
                record.run.sweep_id = ""
            file.writelines(_parts(record.SerializeToString(), file.tell()))


def _parts(content: bytes, position: int) -> Iterator[bytes]:
    """Yield what is written for a record that begins at a position of the file."""
    is_first, is_last = True, False
    while not is_last:
        rest = _BLOCK - position % _BLOCK
        if rest < _HEAD:
            yield bytes(rest)
            position, rest = position + rest, _BLOCK
        part, content = content[: rest - _HEAD], content[rest - _HEAD :]
        is_last = not content
        kind = (_WHOLE if is_first else _LAST) if is_last else (_FIRST if is_first else _MIDDLE)
        checksum = zlib.crc32(part, zlib.crc32(bytes([kind])))
        yield checksum.to_bytes(4, "little") + len(part).to_bytes(2, "little") + bytes([kind])
        yield part
        position, is_first = position + _HEAD + len(part), False


@dataclass(slots=True)
class Media:
    """The pictures and tables of a run, as W&B's JSON by name: of each step, and of the summary."""

    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def read_media(folder: Path) -> Media:
    """Return the pictures and tables that a folder of W&B's client holds."""
    media = Media()
    for path in sorted(folder.glob("*.wandb")):
        for record in RecordFile(path).read():
            if record.HasField("history"):
                values = _values(record.history.item)
                media.steps.setdefault(record.history.step.num, {}).update(values)
            elif record.HasField("summary"):
                media.summary |= _values(record.summary.update)
    return media


def _values(items: Iterable[Any]) -> Mapping[str, Any]:
    """Return the values that have a type of W&B's; the keys of nested ones come one by one."""
    values: dict[str, Any] = {}
    for item in items:
        *groups, last = list(item.nested_key) or [item.key]
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = json.loads(item.value_json)
    return {k: v for k, v in values.items() if isinstance(v, dict) and "_type" in v}

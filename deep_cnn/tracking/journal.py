"""Keep in results/<run>.upload.json what W&B has acknowledged of a run."""

import json
import secrets
import string
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from deep_cnn.files import RunFiles, read_text, write_text
from deep_cnn.results import RunResult

# W&B may show what it has received only after this many seconds.
_VISIBLE_AFTER = 45.0


@dataclass(frozen=True, slots=True)
class Journal:
    """A run on W&B's server, and what the server has acknowledged of it.

    Attributes:
        server: The address of the server.
        project: The project of the run.
        run_id: The id of the run.
        entity: The user or team that owns the project; None: the default of the login.
        title: The name that W&B displays.
        sweep_id: The sweep on W&B's server that the run belongs to.
        contact: When the run was last sent to, in seconds since 1970; None: never.
        is_open: Whether what was sent then has not been acknowledged.
        rows: How many rows of results/<run>.csv are acknowledged.
        summary: The hash of the acknowledged summary.
        artifact: The hash of the acknowledged checkpoint.
    """

    server: str
    project: str
    run_id: str
    entity: str | None = None
    title: str | None = None
    sweep_id: str | None = None
    contact: float | None = None
    is_open: bool = False
    rows: int = 0
    summary: str | None = None
    artifact: str | None = None

    @classmethod
    def read(cls, files: RunFiles) -> "Journal | None":
        """Return the journal of a run, or None if it has none that is whole."""
        try:
            return TypeAdapter(cls).validate_json(read_text(files.journal))
        except (OSError, ValueError):
            return None

    def write(self, files: RunFiles) -> "Journal":
        """Write this journal as the one of a run, and return it; raise OutputError."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_text(files.journal, text, make_folder=files.may_make_folders)
        return self

    def opened(self) -> "Journal":
        """Return the journal while the run is being sent to."""
        return replace(self, contact=time.time(), is_open=True)

    def closed(self, **acknowledged: Any) -> "Journal":
        """Return the journal after finish() has returned; `acknowledged` are fields."""
        return replace(self, **{"contact": time.time(), "is_open": False, **acknowledged})

    def hidden_for(self, lines: int) -> float:
        """Return for how many seconds the server may yet show more than `lines` rows."""
        if self.contact is None or (not self.is_open and lines >= self.rows):
            return 0.0
        return min(self.contact + _VISIBLE_AFTER - time.time(), _VISIBLE_AFTER)


def new_run_id() -> str:
    """Return a random id for a run, such as W&B itself makes."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def summary_of(result: RunResult) -> dict[str, Any]:
    """Return the values of a result that W&B's summary of the run holds."""
    reason, best = result.stop_reason, result.best
    values: dict[str, Any] = {"state": str(result.state), "error": result.error}
    values["stop_reason"] = asdict(reason) if reason else None
    if best:
        values |= {f"best_{best.metric}": best.value, "best_epoch": best.epoch}
    return values


def digest_of(content: Mapping[str, Any] | Path) -> str:
    """Return a hash of plain values or of a file."""
    if isinstance(content, Path):
        return sha256(content.read_bytes()).hexdigest()
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

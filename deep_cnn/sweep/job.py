"""What the engine tells a worker."""

from dataclasses import dataclass
from pathlib import Path

# The exit status of a worker that could not write.
NO_ROOM = 2


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker must know; plain values, because it starts from nothing."""

    text: str  # The sweep file as it was when the sweep began, whatever becomes of it.
    stem: str
    folder: Path
    out: Path
    seed: int
    retries: int
    limit: int | None
    lease: float
    threads: int

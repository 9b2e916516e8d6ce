"""What the engine tells a worker."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker must know; plain values, because it starts from nothing."""

    file: Path
    folder: Path
    out: Path
    seed: int
    retries: int
    limit: int | None
    lease: float
    threads: int

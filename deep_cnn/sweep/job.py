"""Say what the engine tells a worker."""

from dataclasses import dataclass
from pathlib import Path

from deep_cnn.sweep.spec.schema import SweepSpec

# The exit status of a worker that could not write.
NO_ROOM = 2


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker must know; plain values, because they travel to another process."""

    spec: SweepSpec
    folder: Path
    out: Path
    seed: int
    retries: int
    limit: int | None
    lease: float
    threads: int

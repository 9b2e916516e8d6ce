"""Identify this host, and the processes that run on it."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path


def host() -> str:
    """Return a name of this host since its last start, and of our process-number space."""
    return _host(os.environ.get("DEEP_CNN_HOST", socket.gethostname()))


@cache
def _host(name: str) -> str:
    parts = [name]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def job_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the job of a cluster that this process is part of, as its scheduler writes it."""
    array, task = (environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    own = environ.get("PBS_JOBID") or environ.get("SLURM_JOB_ID")
    return f"{array}_{task}" if array and task else own or None


def start_time(pid: int) -> str | None:
    """Return when a process began, or None if it is gone.

    The time distinguishes a process from a later one with the same number. On systems without
    /proc the answer only says whether there is a process with this number.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except (OSError, OverflowError):
            return None
        return "alive"
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]

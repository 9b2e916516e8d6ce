"""Identify the process that owns a claim, on this host and on others."""

import contextlib
import os
import socket
from pathlib import Path


def host() -> str:
    """Return a name of this host since its last start, and of our process-number space."""
    parts = [os.environ.get("DEEP_CNN_HOST", socket.gethostname())]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def start_time(pid: int) -> str | None:
    """Return when a process began, or None if it is gone.

    The time distinguishes a process from a later one with the same number. On systems without
    /proc the answer only says whether there is a process with this number.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "alive"
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]

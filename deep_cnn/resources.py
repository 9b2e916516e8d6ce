"""Count the cores and the memory that this process may use."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

# Without an answer of the system: the memory of a small computer.
_UNKNOWN_MEMORY = 2**34
# The messages of CUDA, Python, the system, cuBLAS and oneDNN.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED",
              "could not create a primitive")  # fmt: skip


def cores(root: Path = Path("/")) -> int:
    """Return the number of cores that the affinity mask, the cgroups and the job allow, at least 1.

    A quota of 2.5 cores counts as 2: the system stops every thread of a process that has used up
    its quota. Files of the system are read under `root`.
    """
    has_mask = hasattr(os, "sched_getaffinity")
    mask = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    quotas = [quota for folder in _cgroups(root) if (quota := _quota(folder)) is not None]
    return max(1, int(min([mask, *quotas, *_cores_of_job(os.environ)])))


def _cores_of_job(environ: Mapping[str, str]) -> list[int]:
    """Return the cores that a cluster has given to this job; few clusters enforce the number."""
    in_pbs = environ.get("PBS_JOBID")
    texts = [environ.get("SLURM_CPUS_PER_TASK", ""), environ.get("NCPUS", "") if in_pbs else ""]
    return [int(text) for text in texts if text.isdecimal()]


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that the system and the cgroups have left for this process."""
    meminfo = _fields(root / "proc/meminfo").get("MemAvailable:")
    system = _UNKNOWN_MEMORY if meminfo is None else meminfo * 1024
    left = [left for folder in _cgroups(root) if (left := _memory_left(folder)) is not None]
    return max(0, min([system, *left]))


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of the cgroups of this process and of all that contain them.

    In a container, the path may be that of the host; the container then sees its own as the root.
    """
    for line in _lines(root / "proc/self/cgroup"):
        controllers, _, path = line.partition(":")[2].partition(":")
        # Version 1 has a hierarchy for each controller; a link may have the name of one alone.
        names = {controllers, *controllers.split(",")} if controllers else {"", "unified"}
        relative = PurePosixPath(*(part for part in path.split("/") if part not in ("", "..")))
        for name in sorted(names):
            base = root / "sys/fs/cgroup" / name
            for folder in (relative, *relative.parents):
                if (base / folder).is_dir():
                    yield base / folder


def _quota(cgroup: Path) -> float | None:
    """Return the number of cores that a cgroup may use, or None if it has no limit."""
    lines = _lines(cgroup / "cpu.max")
    if not lines:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        lines = [" ".join(line for name in names for line in _lines(cgroup / name))]
    quota, _, period = lines[0].partition(" ")
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # `max`, or -1.
    return int(quota) / int(period)


def _memory_left(cgroup: Path) -> int | None:
    """Return the bytes that a cgroup may still use, or None if it has no limit.

    Files that were read and are no longer in use do not count, because they make room.
    """
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for limit, usage in names:
        texts = [line for name in (limit, usage) for line in _lines(cgroup / name)]
        if len(texts) == 2 and all(text.isdecimal() for text in texts):
            about = _fields(cgroup / "memory.stat")
            files = about.get("total_inactive_file", about.get("inactive_file", 0))
            return int(texts[0]) - max(0, int(texts[1]) - files)
    return None


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers in a file with a name and a number in each line."""
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, in one of its many forms, means that memory was not enough."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)

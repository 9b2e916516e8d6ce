"""Cores and memory of cgroups, on files as the kernel writes them, and of a real affinity mask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deep_cnn.hosts import job_id
from deep_cnn.resources import available_memory, cores
from tests.conftest import environment

GIB = 2**30
UNLIMITED = "9223372036854771712"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with more cores than any of these quotas, outside of a cluster."""
    for name in ("SLURM_CPUS_PER_TASK", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A root folder with 32 GiB of available memory, and these files under sys/fs/cgroup."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    files["proc/self/cgroup"] = cgroup
    files["proc/meminfo"] = f"MemTotal: {64 * 2**20} kB\nMemAvailable: {32 * 2**20} kB\n"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8), ("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1),
        ("10000 10000", 1), ("1600000 100000", 8),
    ],
)  # fmt: skip
def test_a_quota_of_version_2(tmp_path: Path, quota: str, expected: int) -> None:
    assert cores(system(tmp_path, "0::/job", {"job/cpu.max": quota})) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("150000", 1)])
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(tmp_path: Path, folder: str, quota: str, expected: int) -> None:
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}
    root = system(
        tmp_path,
        "5:cpu,cpuacct:/slurm/job\n4:memory:/slurm/job\n0::/",
        {f"{folder}/slurm/job/{name}": text for name, text in files.items()},
    )
    assert cores(root) == expected


def test_the_smallest_quota_of_nested_cgroups_counts(tmp_path: Path) -> None:
    quotas = {"cpu.max": "max 100000", "a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000",
              "a/b/c/cpu.max": "500000 100000", "other/cpu.max": "100000 100000"}  # fmt: skip
    assert cores(system(tmp_path, "0::/a/b/c", quotas)) == 2


@pytest.mark.parametrize("path", ["/docker/0123abcd", "/../../pod", "/"])
def test_a_container_sees_its_cgroup_as_the_root(tmp_path: Path, path: str) -> None:
    files = {"cpu.max": "300000 100000", "memory.max": f"{4 * GIB}", "memory.current": f"{GIB}"}
    root = system(tmp_path, f"0::{path}", files)
    assert (cores(root), available_memory(root)) == (3, 3 * GIB)


def test_memory_of_version_2_is_the_limit_less_what_cannot_be_freed(tmp_path: Path) -> None:
    files = {
        "job/memory.max": f"{8 * GIB}",
        "job/memory.current": f"{5 * GIB}",
        "job/memory.stat": f"anon {2 * GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}",
        "job/step/memory.max": "max",
        "job/step/memory.current": f"{GIB}",
    }
    assert available_memory(system(tmp_path, "0::/job/step", files)) == 5 * GIB


def test_memory_of_version_1_is_the_limit_less_what_cannot_be_freed(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED,
        "memory/memory.usage_in_bytes": f"{20 * GIB}",
        "memory/job/memory.limit_in_bytes": f"{6 * GIB}",
        "memory/job/memory.usage_in_bytes": f"{4 * GIB}",
        "memory/job/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}",
    }
    assert available_memory(system(tmp_path, "4:memory:/job\n0::/", files)) == 3 * GIB


def test_memory_beyond_the_limit_is_none(tmp_path: Path) -> None:
    files = {"memory.max": f"{GIB}", "memory.current": f"{2 * GIB}"}
    assert available_memory(system(tmp_path, "0::/", files)) == 0


def test_without_limits_the_system_counts(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/user.slice", {})
    assert (cores(root), available_memory(root)) == (8, 32 * GIB)
    assert cores(tmp_path / "missing") == 8
    assert available_memory(tmp_path / "missing") > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no affinity mask")
def test_the_affinity_mask_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        " from deep_cnn.resources import cores; print(cores())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr


def test_a_job_of_a_cluster_uses_the_cores_that_it_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NCPUS", "3")
    most = cores(Path("/nowhere"))
    assert most == 8  # NCPUS means something else outside of PBS.
    monkeypatch.setenv("PBS_JOBID", "7.server")
    assert cores(Path("/nowhere")) == 3
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert cores(Path("/nowhere")) == 2
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "0")
    assert cores(Path("/nowhere")) == 1


def test_the_job_of_a_process_is_named_as_its_scheduler_does() -> None:
    assert job_id({}) is None
    assert job_id({"PBS_JOBID": "7[3].server"}) == "7[3].server"
    assert job_id({"SLURM_JOB_ID": "12"}) == "12"
    array = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2"}
    assert job_id(array) == "10_2"

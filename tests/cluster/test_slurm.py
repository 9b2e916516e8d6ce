"""Sweeps on a real Slurm of one node, which tests/cluster/slurm_up.sh starts."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.common import (
    SECRETS,
    ends,
    files,
    printed,
    results,
    rows,
    secrets_in,
    secrets_of_processes,
    states,
    submit,
    write_sweep,
)
from tests.conftest import PATIENCE, SHOWS_PROCESSES, until

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
pytestmark = [
    SHOWS_PROCESSES,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {', '.join(MISSING)} missing"),
]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The configuration of a running Slurm."""
    folder = tmp_path_factory.mktemp("slurm")
    environ = {**os.environ, "PATH": PATH}
    up = ["bash", str(HERE / "slurm_up.sh"), str(folder), str(two_free_ports())]
    subprocess.run(up, check=True, env=environ, timeout=PATIENCE)
    yield str(folder / "slurm.conf")
    subprocess.run(
        ["bash", str(HERE / "slurm_down.sh"), str(folder)], env=environ, timeout=PATIENCE
    )


@pytest.fixture(autouse=True)
def _conf(slurm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm)
    monkeypatch.setenv("PATH", PATH)


def two_free_ports() -> int:
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def call(*words: str, cwd: Path | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, cwd=cwd)
    return done.stdout


def sbatch(folder: Path, *words: str, **extra: str) -> str:
    """Submit, and return the id of the job."""
    done = submit(folder, "s.yaml", "--scheduler=slurm", *words, **extra)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdecimal()
    return done.stdout.strip()


def jobs(job: str) -> dict[str, str]:
    """The state of each element."""
    text = call(
        "squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %T"
    )
    return dict(line.split() for line in text.splitlines() if "[" not in line)


def wait_for(job: str, *wanted: str) -> None:
    """Wait until every element is in one of these states."""
    wait_until(lambda: jobs(job) and set(jobs(job).values()) <= set(wanted))


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, call("squeue", "--states=all")
        time.sleep(0.3)


def start_now(job: str) -> None:
    """Start a job that was queued again; Slurm lets it wait for two minutes."""
    wait_until(lambda: "PENDING" in jobs(job).values())
    for element in jobs(job):
        call("scontrol", "update", f"jobid={element}", "StartTime=now")


def pilots(job: str) -> list[int]:
    """The processes `python -m deep_cnn sweep` of a job, without those that they have started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environ = (path / "environ").read_bytes()
        except OSError:
            continue
        if b"deep_cnn" in words and b"--pilot" in words and f"_JOB_ID={job}\0".encode() in environ:
            found.append(int(path.name))
    return found


def test_an_array_of_four_runs_every_trial_once_and_one_of_them_ends_the_sweep(
    tmp_path: Path,
) -> None:
    write_sweep(tmp_path, epochs=4)
    job = sbatch(tmp_path, "--jobs=4", "--repeats=2", "--top=2", "--refit", **SECRETS,
                 HOME=str(tmp_path))  # fmt: skip
    seen: list[str] = []
    until(lambda: seen.extend(secrets_of_processes(str(tmp_path))) or states(tmp_path))
    wait_for(job, "COMPLETED")
    assert states(tmp_path) == ["finished"] * 4
    assert results(tmp_path) == [0, 1, 2, 3]
    assert len(files(tmp_path, "claim")) == 4
    texts = printed(tmp_path, ".out")
    assert len(texts) == 4
    assert ends(texts) == 1
    assert sum("other seeds each" in text for text in texts) == 1
    assert sum("--test_net=" in text for text in texts) == 1
    assert len(list(tmp_path.glob("outputs/results/s-repeats-*.json"))) == 8  # With .args.json.
    assert (tmp_path / "outputs/sweeps/s/optuna.db").exists()
    assert not list(tmp_path.glob("outputs/sweeps/s/end.*"))
    assert not seen
    assert not secrets_in(tmp_path)
    # A later job finds nothing to do, and does not print the end again.
    late = sbatch(tmp_path, "--repeats=2", "--top=2", "--refit")
    wait_for(late, "COMPLETED")
    assert ends(printed(tmp_path, ".out")) == 1


def test_scancel_saves_and_a_later_job_continues(tmp_path: Path) -> None:
    write_sweep(tmp_path, "[0.01, 0.001]", epochs=2000)
    job = sbatch(tmp_path, "--jobs=2")
    wait_until(lambda: rows(tmp_path, 0) > 5 and rows(tmp_path, 1) > 5)
    shown = submit(tmp_path, "--status", "s").stdout
    assert f"{job}_0" in shown
    assert "s: 2 trials, 2 running" in shown
    assert submit(tmp_path, "--cancel", "s").stdout == f"slurm {job}, 2 jobs: cancelled\n"
    wait_for(job, "CANCELLED")
    assert "Interrupted; go on with" in "".join(printed(tmp_path, ".err"))
    assert files(tmp_path, "end") == ["00000.end.0", "00001.end.0"]
    before = [rows(tmp_path, trial) for trial in (0, 1)]
    late = sbatch(tmp_path)
    wait_until(lambda: any(rows(tmp_path, trial) > before[trial] for trial in (0, 1)))
    claims = [name for name in files(tmp_path, "claim") if name.endswith(".1")]
    assert claims
    call("scancel", late)
    wait_for(late, "CANCELLED")
    assert submit(tmp_path, "--cancel", "s").returncode == 0
    assert "Restarts=0" in call("scontrol", "show", "job", late)


@pytest.mark.slow
def test_a_time_limit_in_mid_trial_hands_the_trial_back_and_queues_the_job_again(
    tmp_path: Path,
) -> None:
    write_sweep(tmp_path, "[0.01]", epochs=100_000)
    job = sbatch(tmp_path, "--walltime=00:01:00")
    wait_until(lambda: rows(tmp_path, 0) > 0)
    wait_until(lambda: "PENDING" in jobs(job).values())
    assert "Restarts=1" in call("scontrol", "show", "job", job)
    assert files(tmp_path, "end") == ["00000.end.0"]
    errors = printed(tmp_path, ".err")[0]
    assert "status 75, the job is queued again" in errors
    before = rows(tmp_path, 0)
    assert before > 0
    start_now(job)
    wait_until(lambda: rows(tmp_path, 0) > before)
    log = next(tmp_path.glob("outputs/sweeps/s/work/00000.1/*.log")).read_text()
    assert "Going on at epoch" in log
    assert printed(tmp_path, ".err")[0].startswith(errors)
    call("scancel", job)
    wait_for(job, "CANCELLED")


def test_a_killed_pilot_is_started_again_by_its_job(tmp_path: Path) -> None:
    write_sweep(tmp_path, "[0.01]", epochs=2000)
    job = sbatch(tmp_path)
    wait_until(lambda: rows(tmp_path, 0) > 5)
    (pid,) = pilots(job)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "PENDING" in jobs(job).values())
    assert "status 137, the job is queued again" in printed(tmp_path, ".err")[0]
    start_now(job)
    wait_until(lambda: "00000.claim.1" in files(tmp_path, "claim"))
    call("scancel", job)
    wait_for(job, "CANCELLED")


def test_only_the_element_itself_is_queued_again(tmp_path: Path) -> None:
    """The number of one element is that of the array: of the element that Slurm starts last."""
    write_sweep(tmp_path, "[0.01, 0.02]", epochs=100_000)
    job = sbatch(tmp_path, "--jobs=2")
    wait_until(lambda: rows(tmp_path, 0) > 5 and rows(tmp_path, 1) > 5)
    killed = next(pid for pid in pilots(job) if f"SLURM_JOB_ID={job}\0" in environ_of(pid))
    element = environ_of(killed).partition("SLURM_ARRAY_TASK_ID=")[2].partition("\0")[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: jobs(job).get(f"{job}_{element}") == "PENDING")
    other = f"{job}_{1 - int(element)}"
    assert jobs(job)[other] == "RUNNING"
    assert "Restarts=0" in call("scontrol", "show", "job", other)
    call("scancel", job)
    wait_for(job, "CANCELLED")


def environ_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text(errors="replace")


def test_a_job_that_saves_nothing_is_not_queued_again(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    job = sbatch(tmp_path)
    wait_until(lambda: pilots(job))
    os.kill(pilots(job)[0], signal.SIGKILL)
    wait_for(job, "FAILED")
    assert "Restarts=0" in call("scontrol", "show", "job", job)


def test_a_requeued_job_continues(tmp_path: Path) -> None:
    write_sweep(tmp_path, "[0.01]", epochs=2000)
    job = sbatch(tmp_path)
    wait_until(lambda: rows(tmp_path, 0) > 5)
    call("scontrol", "requeue", job)
    start_now(job)
    wait_until(lambda: "00000.claim.1" in files(tmp_path, "claim"))
    assert files(tmp_path, "end") == ["00000.end.0"]
    call("scancel", job)
    wait_for(job, "CANCELLED")


def test_a_point_that_always_fails_is_tried_as_often_as_retries_say(tmp_path: Path) -> None:
    write_sweep(tmp_path, "[1.0e+29, 0.01, 0.003]", epochs=3)
    job = sbatch(tmp_path, "--jobs=4", "--retries=2")
    wait_for(job, "FAILED")
    # Pilots that start when the others are over do not try it again.
    late = sbatch(tmp_path, "--jobs=2", "--retries=2")
    wait_for(late, "FAILED")
    assert states(tmp_path) == ["failed", "finished", "finished"]
    assert files(tmp_path, "end") == [f"00000.end.{claim}" for claim in range(3)]
    assert len(files(tmp_path, "claim")) == 3 + 2
    assert ends(printed(tmp_path, ".out")) == 1


def test_a_pilot_that_does_not_see_the_folder_ends_with_one_line(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    job = sbatch(tmp_path)
    call("scontrol", "hold", job)
    call("scancel", job)
    (tmp_path / "outputs/sweeps/s/submitted.csv").unlink()
    shutil.rmtree(tmp_path / "outputs/sweeps")
    script = tmp_path / "outputs/jobs/s.slurm"
    job = call("sbatch", "--parsable", str(script), cwd=tmp_path).strip()
    wait_for(job, "FAILED")
    error = next(tmp_path.glob(f"outputs/jobs/s-{job}.err")).read_text()
    assert "submitted.csv, which submit wrote, is not there" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "outputs/sweeps").exists()
    assert "ExitCode=2:0" in call("scontrol", "show", "job", job)


def test_one_run_is_continued_by_its_job(tmp_path: Path) -> None:
    done = submit(
        tmp_path, "--scheduler=slurm", "--", "--task=digits", "--epochs=2000", "--wandb=False",
        "--train_samples=120", "--run_name=first",
    )  # fmt: skip
    job = done.stdout.strip()
    table = tmp_path / "outputs/results/first.csv"
    wait_until(lambda: table.exists() and table.read_text().count("\n") > 5)
    call("scontrol", "requeue", job)
    start_now(job)
    log = tmp_path / "outputs/logger/first.log"
    wait_until(lambda: "Going on at epoch" in log.read_text())
    assert submit(tmp_path, "--cancel", "first").returncode == 0
    wait_for(job, "CANCELLED")
    assert [path.name for path in log.parent.iterdir()] == ["first.log"]

"""Sweeps on a stand-in that behaves as PBS Pro is documented: a recording qsub, qstat and qdel."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.common import (
    SECRETS,
    ends,
    files,
    path_with,
    printed,
    results,
    rows,
    secrets_in,
    secrets_of_processes,
    states,
    submit,
    write_sweep,
)
from tests.conftest import SHOWS_PROCESSES, until
from tests.wandb_server import WandbServer

PBS = Path(__file__).parent / "pbs"
pytestmark = SHOWS_PROCESSES


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the stand-in has recorded; jobs that are left are deleted."""
    folder = tmp_path / "pbs-state"
    (tmp_path / "home").mkdir()
    folder.mkdir()
    monkeypatch.setenv("PBS_STAND_IN", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", path_with(PBS))
    yield folder
    for path in folder.glob("*.json"):
        path.with_suffix(".deleted").touch()
        until(path.with_suffix(".over").exists)


def qsub(folder: Path, *words: str, **extra: str) -> str:
    done = submit(folder, "s.yaml", "--scheduler=pbs", *words, **extra)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+(\[\])?\.pbs\.example\n", done.stdout)
    return done.stdout.strip()


def number_of(job: str) -> int:
    return int(re.findall(r"\d+", job)[0])


def record(state: Path, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / f"{number_of(job)}.json").read_text())
    return found


def over(state: Path, job: str) -> bool:
    return (state / f"{number_of(job)}.over").exists()


def exits(state: Path, job: str) -> list[int]:
    """The exit status of each element."""
    pattern = rf"{number_of(job)}[.\[]"
    paths = [path for path in state.glob("*.status") if re.match(pattern, path.name)]
    return [int(path.read_text()) for path in sorted(paths)]


def test_the_elements_of_an_array_share_a_sweep_and_one_ends_it(
    tmp_path: Path, state: Path
) -> None:
    write_sweep(tmp_path)
    job = qsub(tmp_path, "--jobs=4%2", "--walltime=00:20:00", "--repeats=2", "--top=1", "--refit",
               **SECRETS)  # fmt: skip
    assert job == "1[].pbs.example"
    about = record(state, job)
    assert about["args"] == [str(tmp_path / "outputs/jobs/s.pbs")]
    assert about["options"]["J"] == ["0-3%2"]
    assert not set(SECRETS) & set(about["environ"])
    seen: list[str] = []
    until(lambda: seen.extend(secrets_of_processes(str(tmp_path))) or over(state, job))
    assert exits(state, job) == [0, 0, 0, 0]
    assert states(tmp_path) == ["finished"] * 4
    assert results(tmp_path) == [0, 1, 2, 3]
    assert len(files(tmp_path, "claim")) == 4
    texts = printed(tmp_path, ".OU")
    assert len(texts) == len(printed(tmp_path, ".ER")) == 4
    assert ends(texts) == 1
    assert sum("--test_net=" in text for text in texts) == 1
    assert not seen
    assert not secrets_in(tmp_path / "outputs")
    shown = submit(tmp_path, "--status", "s.yaml").stdout
    assert shown.startswith(f"pbs {job}, 4 jobs: over\n")
    assert "s: 4 trials, 4 finished" in shown


@pytest.mark.slow
def test_the_warning_before_the_walltime_hands_the_trial_back(tmp_path: Path, state: Path) -> None:
    write_sweep(tmp_path, "[0.01]", epochs=100_000)
    job = qsub(tmp_path, "--jobs=2%1", "--walltime=00:01:30")
    until(lambda: over(state, job))
    # The second element has taken the trial over from the first, and was warned, too.
    assert exits(state, job) == [75, 75]
    assert files(tmp_path, "end") == ["00000.end.0", "00000.end.1"]
    tables = sorted(tmp_path.glob("outputs/sweeps/s/work/00000.*/*-00000.csv"))
    first, second = (path.read_text().splitlines() for path in tables)
    assert len(first) > 1
    assert second[: len(first) - 1] == first[:-1]
    assert len(second) > len(first)


def test_qdel_leaves_a_sweep_that_the_next_submit_continues(tmp_path: Path, state: Path) -> None:
    write_sweep(tmp_path, "[0.01, 0.003]", epochs=40)
    (tmp_path / "s.yaml").write_text(
        (tmp_path / "s.yaml").read_text().replace("value: 40", "value: 4000")
    )
    job = qsub(tmp_path, "--jobs=2")
    until(lambda: rows(tmp_path, 0) > 5 and rows(tmp_path, 1) > 5)
    shown = submit(tmp_path, "--status", "s").stdout
    assert "1[0].pbs.example" in shown
    assert re.search(r"^ +0  running +1\[[01]\]\.pbs\.example", shown, re.M)
    done = submit(tmp_path, "--cancel", "s")
    assert done.stdout == f"pbs {job}, 2 jobs: cancelled\n"
    until(lambda: over(state, job))
    assert files(tmp_path, "end") == ["00000.end.0", "00001.end.0"]
    assert submit(tmp_path, "--cancel", "s").stdout == f"pbs {job}, 2 jobs: was over\n"
    before = rows(tmp_path, 0)
    late = qsub(tmp_path)
    assert late == "2.pbs.example"
    until(lambda: rows(tmp_path, 0) > before)
    assert "00000.claim.1" in files(tmp_path, "claim")


def test_a_lost_node_costs_a_lease_and_one_worker_takes_over(tmp_path: Path, state: Path) -> None:
    """Each element is a host of its own; all processes of one are killed without a word."""
    write_sweep(tmp_path, "[0.01, 0.003]", epochs=4000)
    first = qsub(tmp_path, DEEP_CNN_LEASE="4")
    until(lambda: rows(tmp_path, 0) > 5)
    claim = tmp_path / "outputs/sweeps/s/trials/00000/00000.claim.0"
    owner = json.loads(claim.read_text())
    assert owner["job"] == first
    # As on another machine, whose processes cannot be seen from here.
    session = int((state / f"{first}.pid").read_text())
    subprocess.run(["pkill", "-KILL", "-s", str(session)], check=True)
    until(lambda: over(state, first))
    claim.write_text(json.dumps({**owner, "host": "other"}))
    others = [qsub(tmp_path, DEEP_CNN_LEASE="4") for _ in range(2)]
    until(lambda: "00000.claim.1" in files(tmp_path, "claim"))
    before = rows(tmp_path, 0)
    until(lambda: rows(tmp_path, 0) > before)
    assert [name for name in files(tmp_path, "claim") if name.startswith("00000")] == [
        "00000.claim.0",
        "00000.claim.1",
    ]
    assert not any(over(state, job) for job in others)


def test_pilots_that_start_one_after_the_other_try_a_failing_point_as_retries_say(
    tmp_path: Path, state: Path
) -> None:
    write_sweep(tmp_path, "[1.0e+29, 0.01]")
    job = qsub(tmp_path, "--jobs=4%1", "--retries=1", "--repeats=2", "--top=1")
    until(lambda: over(state, job))
    assert exits(state, job) == [1] * 4
    assert states(tmp_path) == ["failed", "finished"]
    assert files(tmp_path, "end") == ["00000.end.0", "00000.end.1"]
    assert ends(printed(tmp_path, ".OU")) == 1
    assert sum("other seeds" in text for text in printed(tmp_path, ".OU")) == 1


def test_a_killed_end_is_done_again_by_the_next_pilot(tmp_path: Path, state: Path) -> None:
    write_sweep(tmp_path, "[0.01]")
    first = qsub(tmp_path, "--repeats=2", "--top=1")
    repeated = tmp_path / "outputs/sweeps/s-repeats/trials/00000"
    until(lambda: list(repeated.glob("*.claim.0")))
    session = int((state / f"{first}.pid").read_text())
    subprocess.run(["pkill", "-KILL", "-s", str(session)], check=True)
    until(lambda: over(state, first))
    late = qsub(tmp_path, "--repeats=2", "--top=1")
    until(lambda: over(state, late))
    assert sum("other seeds" in text for text in printed(tmp_path, ".OU")) == 1
    assert len(list(repeated.glob("*.done"))) == 2
    assert (tmp_path / "outputs/sweeps/s/ended.json").exists()


def test_without_a_key_runs_log_offline_and_the_end_names_upload(
    tmp_path: Path, state: Path
) -> None:
    write_sweep(tmp_path, "[0.01]")
    text = (tmp_path / "s.yaml").read_text().replace("  wandb: {value: False}\n", "")
    (tmp_path / "s.yaml").write_text(text)
    job = qsub(tmp_path, WB_PROJECT="places", **SECRETS)
    until(lambda: over(state, job))
    assert exits(state, job) == [0]
    assert list(tmp_path.glob("outputs/wandb/offline-run-*"))
    command = "on the login node: python -m deep_cnn upload outputs"
    assert "".join(printed(tmp_path, ".ER")).count(command) == 1
    assert not secrets_in(tmp_path / "outputs")


def test_with_the_wandb_engine_the_jobs_are_agents_of_a_new_sweep(
    tmp_path: Path, state: Path
) -> None:
    write_sweep(tmp_path)
    text = (tmp_path / "s.yaml").read_text().replace("  wandb: {value: False}\n", "")
    (tmp_path / "s.yaml").write_text(text)
    with WandbServer() as server:
        key = server.key
        given = {"WB_KEY": key, "WB_PROJECT": "places", "WB_USER": server.entity,
                 "WANDB_BASE_URL": server.url}  # fmt: skip
        dry = submit(tmp_path, "s.yaml", "--scheduler=pbs", "--engine=wandb", "--dry_run")
        assert "agent ENTITY/PROJECT/SWEEP_ID" in dry.stdout, dry.stderr
        assert not server.sweeps
        refused = submit(tmp_path, "s.yaml", "--scheduler=pbs", "--engine=wandb", **given)
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].endswith("`wandb login`, which stores it for them")
        assert not server.sweeps
        # `wandb login` has stored the key.
        host = re.sub(r"^\w+://", "", server.url)
        netrc = tmp_path / "home/.netrc"
        netrc.write_text(f"machine {host}\n  login user\n  password {key}\n")
        netrc.chmod(0o600)
        job = qsub(tmp_path, "--engine=wandb", "--jobs=2", "--count=2", **given)
        (sweep,) = server.sweeps.values()
        script = (tmp_path / "outputs/jobs/s.pbs").read_text()
        assert f"-m deep_cnn agent {sweep.entity}/places/{sweep.id} --count=2" in script
        assert key not in script
        assert "offline" not in script
        until(lambda: over(state, job))
        assert exits(state, job) == [0, 0], printed(tmp_path, ".ER")
        assert len(sweep.runs) == 4
        done = submit(tmp_path, "s.yaml", "--scheduler=pbs", "--engine=wandb", **given)
        assert f"continues the sweep {sweep.entity}/places/{sweep.id}" in done.stderr
        assert len(server.sweeps) == 1


def test_a_refused_job_is_one_line(tmp_path: Path, state: Path) -> None:
    write_sweep(tmp_path)
    done = submit(tmp_path, "s.yaml", "--scheduler=pbs", "--gpus=1", "--gpu_type=a-b")
    assert done.returncode == 2
    assert "Illegal attribute or resource value: gpu_type=a-b" in done.stderr.splitlines()[-1]
    assert submit(tmp_path, "--status", "s").stdout == "s: 0 trials\n"


def test_a_full_disk_hands_the_trial_back(tmp_path: Path, state: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(out)])
    if mounted.returncode != 0:
        pytest.skip("this user may not mount")
    try:
        write_sweep(tmp_path, "[0.01, 0.003]", epochs=100_000)
        job = qsub(tmp_path, "--out_dir=small")
        trials = out / "sweeps/s/trials/00000"
        until(lambda: list(trials.glob("*.claim.0")))
        until(lambda: list(out.glob("sweeps/s/work/*/*.pt")))
        with (out / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        until(lambda: over(state, job))
        assert exits(state, job) == [2]
        assert not list(trials.glob("*.done"))
        before = [path.read_text().count("\n") for path in out.glob("sweeps/s/work/*/*0.csv")]
        (out / "filler").unlink()
        late = qsub(tmp_path, "--out_dir=small")
        table = out / "sweeps/s/work/00000.1/s-00000.csv"
        until(lambda: table.exists() and table.read_text().count("\n") > max([1, *before]))
        assert submit(tmp_path, "--cancel", "s", "--out_dir=small").returncode == 0
        until(lambda: over(state, late))
    finally:
        for _ in range(50):
            if subprocess.run(["umount", str(out)], capture_output=True).returncode == 0:
                break
            time.sleep(0.2)

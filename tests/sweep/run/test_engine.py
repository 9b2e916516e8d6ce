"""Sweeps for real: workers, kills, continuation, two terminals, two hosts, torn files."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import (
    PATIENCE,
    SHOWS_PROCESSES,
    Command,
    environment,
    family,
    processes,
    read_checkpoint,
    until,
    workers,
)

COMMAND = """
command: ["${env}", python, -m, deep_cnn, --task=digits, --train_samples=120, "${args}"]
"""
GRID = (
    "method: grid\nmetric: {name: loss_val, goal: minimize}\nparameters:\n"
    "  lr: {values: [0.1, 0.01]}\n  batch_size: {values: [30, 60, 120]}\n  epochs: {value: 3}\n"
) + COMMAND


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def start(folder: Path, *words: str, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", "sweep", "s.yaml", *words],
        cwd=folder,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "outputs/sweeps/s/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ended(process: subprocess.Popen[str]) -> str:
    """Its stdout, once it has ended well."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def claims(folder: Path) -> int:
    """How often a trial was begun."""
    return len(list(folder.glob("outputs/sweeps/s/trials/*/*.claim.*")))


def assert_each_point_once(folder: Path, count: int = 6, epochs: int = 3) -> None:
    rows = trials(folder)
    assert [row["state"] for row in rows] == ["finished"] * count
    assert len({(row["lr"], row["batch_size"]) for row in rows}) == count
    results = [json.loads(p.read_text()) for p in (folder / "outputs/results").glob("*.json")
               if not p.name.endswith(".args.json")]  # fmt: skip
    over = [r["sweep"]["trial"] for r in results if r["state"] == "finished"]
    assert sorted(over) == list(range(count))
    for row in rows:
        lines = (folder / f"outputs/results/{row['run_name']}.csv").read_text().splitlines()
        assert len(lines) == epochs + 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep that is over, to be copied, and what was said on stdout."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, GRID)
    return folder, ended(start(folder, "--workers=2"))


def test_a_grid_runs_every_point_in_w_and_b_order_and_again_does_nothing(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    rows = trials(tmp_path)
    header = (tmp_path / "outputs/sweeps/s/trials.csv").read_text().splitlines()[0]
    assert (
        header == "trial,state,run_name,batch_size,epochs,lr,value,epochs_run,stop_reason,seconds"
    )
    points = [(row["batch_size"], row["lr"]) for row in rows]
    assert points == [(b, lr) for b in ("30", "60", "120") for lr in ("0.1", "0.01")]
    assert_each_point_once(tmp_path)
    before = (tmp_path / "outputs/sweeps/s/trials.csv").read_text()
    begun = claims(tmp_path)
    assert ended(start(tmp_path)) == whole[1]
    assert "6 of 6 trials are over" in whole[1]
    assert (tmp_path / "outputs/sweeps/s/trials.csv").read_text() == before
    assert claims(tmp_path) == begun


@pytest.mark.slow
@SHOWS_PROCESSES
def test_workers_killed_at_random_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """Nor does it matter what becomes of the file meanwhile."""
    path = write(tmp_path, GRID.replace("value: 3", "value: 12"))
    process = start(tmp_path, "--workers=2")
    moments, begun = random.Random(2), 0
    for _ in range(4):
        until(lambda begun=begun: claims(tmp_path) > begun, process)
        path.write_text("broken: [")
        begun = claims(tmp_path)
        time.sleep(0.8 * moments.random())
        until(lambda: workers(process.pid), process)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
    assert "6 of 6 trials are over" in ended(process)
    assert claims(tmp_path) > 6
    assert_each_point_once(tmp_path, epochs=12)


@pytest.mark.slow
@SHOWS_PROCESSES
def test_parents_killed_at_random_leave_no_worker_and_lose_nothing(tmp_path: Path) -> None:
    write(tmp_path, GRID.replace("value: 3", "value: 6"))
    moments = random.Random(3)
    for _ in range(3):
        begun = claims(tmp_path)
        process = start(tmp_path, "--workers=2")
        until(lambda begun=begun: claims(tmp_path) > begun, process)
        time.sleep(0.4 * moments.random())
        relatives = family(process.pid)
        process.kill()
        process.communicate()
        until(lambda relatives=relatives: not relatives & set(processes()))
    ended(start(tmp_path, "--workers=2"))
    assert_each_point_once(tmp_path, epochs=6)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_says_how_to_go_on_and_does(
    tmp_path: Path, signum: int, status: int
) -> None:
    write(tmp_path, GRID.replace("value: 3", "value: 300"))
    process = start(tmp_path, "--workers=2")
    until(lambda: list(tmp_path.glob("outputs/sweeps/s/work/*/*.steps_val.csv")), process)
    process.send_signal(signum)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    assert "go on with: python -m deep_cnn sweep s.yaml --workers=2" in err
    assert "Traceback" not in err
    rows = trials(tmp_path)
    assert {row["state"] for row in rows} == {"interrupted"}
    epochs = [
        len(p.read_text().splitlines())
        for p in tmp_path.glob("outputs/sweeps/s/work/*/s-?????.csv")
    ]
    assert max(epochs) > 1


def test_two_terminals_share_one_sweep(tmp_path: Path) -> None:
    write(tmp_path, GRID)
    for process in [start(tmp_path), start(tmp_path)]:
        ended(process)
    assert_each_point_once(tmp_path)


def test_random_is_the_same_for_the_same_seed_whatever_the_workers(
    tmp_path: Path, here: Command
) -> None:
    text = (
        "method: random\nrun_cap: 4\nmetric: {name: loss_val}\nparameters:\n"
        "  lr: {distribution: log_uniform_values, min: 0.001, max: 0.1}\n  epochs: {value: 1}\n"
    ) + COMMAND
    found = []
    for name, count in (("a", 1), ("b", 2)):
        write(tmp_path, text, f"{name}.yaml")
        done = here("sweep", f"{name}.yaml", f"--workers={count}", "--seed=5")
        assert done.returncode == 0, done.stderr
        with (tmp_path / f"outputs/sweeps/{name}/trials.csv").open(newline="") as file:
            found.append([row["lr"] for row in csv.DictReader(file)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4
    write(tmp_path, text.replace("run_cap: 4", "run_cap: 5"), "a.yaml")
    assert "5 of 5 trials" in here("sweep", "a.yaml", "--seed=5").stdout
    write(tmp_path, text.replace("max: 0.1", "max: 0.2"), "a.yaml")
    changed = here("sweep", "a.yaml", "--seed=5")
    assert changed.returncode == 2
    assert "has changed since the sweep began (parameters, run_cap)" in changed.stderr
    assert here("sweep", "b.yaml", "--seed=6").returncode == 2


def test_a_trial_that_fails_is_retried_and_reported(tmp_path: Path, here: Command) -> None:
    text = GRID.replace("[0.1, 0.01]", "[1.0e+29, 0.01]").replace("[30, 60, 120]", "[60]")
    write(tmp_path, text)
    done = here("sweep", "s.yaml")
    assert done.returncode == 1, done.stderr
    assert "trial 0 failed: loss is" in done.stderr
    assert "s: 1 of 2 over, 0 running, 1 failed" in done.stderr
    assert [row["state"] for row in trials(tmp_path)] == ["failed", "finished"]
    ends = sorted(p.name for p in (tmp_path / "outputs/sweeps/s/trials/00000").glob("00000.end.*"))
    assert ends == ["00000.end.0", "00000.end.1"]


def test_five_failures_in_a_row_stop_the_sweep(tmp_path: Path, here: Command) -> None:
    write(tmp_path, GRID.replace("[0.1, 0.01]", "[1.0e+29, 1.0e+28, 1.0e+27]"))
    done = here("sweep", "s.yaml", "--workers=2")
    assert done.returncode == 1
    assert "failures in a row, the last one: loss is" in done.stderr
    assert 5 <= len(list((tmp_path / "outputs/sweeps/s/trials/00000").glob("*.end.*"))) < 18
    assert trials(tmp_path)[0]["run_name"] == "s-00000"


def test_points_that_fail_do_not_keep_others_from_running(tmp_path: Path, here: Command) -> None:
    """The first ones cannot have their weights; the last one needs none."""
    weights = "  weights: {values: [a.pth, b.pth, c.pth, none]}\n  batch_size"
    text = GRID.replace("[0.1, 0.01]", "[0.1]").replace("[30, 60, 120]", "[60]")
    text = text.replace("  batch_size", weights)
    write(tmp_path, text)
    done = here("sweep", "s.yaml")
    assert done.returncode == 1
    rows = trials(tmp_path)
    assert [row["state"] for row in rows][-1] == "finished"
    assert "trial 0 failed: --weights=a.pth does not exist" in done.stderr
    run = rows[0]["run_name"]
    assert json.loads((tmp_path / f"outputs/results/{run}.json").read_text())["state"] == "failed"
    assert "does not exist" in (tmp_path / f"outputs/logger/{run}.log").read_text()


@pytest.mark.parametrize("damage", ["truncate", "empty", "noise", "{}"])
def test_damaged_state_files_cost_at_most_their_trial(
    whole: tuple[Path, str], tmp_path: Path, here: Command, damage: str
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "outputs/sweeps/s"
    for name in ("00001.trial", "00002.done", "00003.claim.0", "00004.run", "../../sweep.json"):
        path = folder / "trials" / "00000" / name
        content = {
            "truncate": b'{"point',
            "empty": b"",
            "noise": os.urandom(40),
            "{}": b"{}",
        }
        path.write_bytes(content[damage])
    done = here("sweep", "s.yaml")
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path)
    assert [row["state"] for row in rows] == ["finished"] * 6
    assert len({(row["lr"], row["batch_size"]) for row in rows}) == 6


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (GRID.replace("deep_cnn", "train"), ("--epochs=3",), "does not run deep_cnn, which has"),
        (GRID.replace("grid", "custom"), (), "method custom runs on W&B's scheduler only"),
        (
            GRID.replace("grid", "random").replace("[0.1, 0.01]", "[0.1]").replace(
                "lr: {values: [0.1]}", "lr: {min: 0.001, max: 0.1}"),
            (),
            "has no end; add run_cap: 20",
        ),
        (GRID, ("--workers=0",), "--workers=0 is out of range"),
        (GRID, ("--worker=2",), "--worker is an unknown option; did you mean workers?"),
        (GRID, ("t.yaml",), "takes one sweep, not 2"),
    ],
)  # fmt: skip
def test_what_cannot_run_says_so(
    tmp_path: Path, here: Command, text: str, words: tuple[str, ...], message: str
) -> None:
    write(tmp_path, text)
    done = here("sweep", "s.yaml", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pilot_leaves_failed_trials_alone_and_ends_the_sweep_once(
    tmp_path: Path, here: Command
) -> None:
    text = GRID.replace("[0.1, 0.01]", "[1.0e+29, 0.01]").replace("[30, 60, 120]", "[60]")
    write(tmp_path, text)
    folder = tmp_path / "outputs/sweeps/s"
    done = here("sweep", "s.yaml", "--pilot", "--retries=0", "--repeats=2", "--refit")
    assert done.returncode == 1, done.stderr
    assert [row["state"] for row in trials(tmp_path)] == ["failed", "finished"]
    assert (folder / "optuna.db").exists()
    assert {path.name for path in folder.parent.iterdir()} == {"s", "s-repeats", "s-refit"}
    assert "other seeds each" in done.stdout
    late = here("sweep", "s.yaml", "--pilot", "--retries=0", "--repeats=2", "--refit")
    assert (late.returncode, late.stdout) == (1, "s: 1 of 2 trials are over\n")
    assert claims(tmp_path) == 2
    assert here("sweep", "s.yaml", "--retries=0").returncode == 1
    assert claims(tmp_path) == 3
    assert [row["run_name"] for row in trials(tmp_path)] == ["s-00000", "s-00001"]
    logs = sorted(path.name for path in (tmp_path / "outputs/logger").glob("s-0*"))
    assert logs == ["s-00000.log", "s-00001.log"]
    assert not [*folder.glob("writer.*"), *folder.glob("end.*")]


@SHOWS_PROCESSES
def test_a_worker_that_is_asked_to_end_is_replaced(tmp_path: Path, here: Command) -> None:
    write(tmp_path, GRID.replace("value: 3", "value: 12"))
    process = start(tmp_path, "--workers=1")
    until(lambda: list(tmp_path.glob("outputs/sweeps/s/work/*/*.steps_val.csv")), process)
    os.kill(workers(process.pid)[0], signal.SIGTERM)
    assert "6 of 6 trials are over" in ended(process)
    assert_each_point_once(tmp_path, epochs=12)
    # A trial that was resumed can be tested.
    assert (tmp_path / "outputs/sweeps/s/trials/00000/00000.claim.1").exists()
    assert here("--test_net=outputs/models/s-00000.best.pt").returncode == 0
    result = json.loads((tmp_path / "outputs/results/s-00000.json").read_text())
    assert result["config"]["resume"] is None


def test_only_the_best_checkpoints_are_kept(tmp_path: Path, here: Command) -> None:
    write(tmp_path, GRID)
    assert here("sweep", "s.yaml", "--keep=best:2", "--workers=2").returncode == 0
    rows = sorted(trials(tmp_path), key=lambda row: float(row["value"]))
    kept = sorted(path.name for path in (tmp_path / "outputs/models").iterdir())
    assert kept == sorted(f"{row['run_name']}.best.pt" for row in rows[:2])
    checkpoint = tmp_path / "outputs/models" / kept[0]
    assert read_checkpoint(checkpoint)["optimizer"] is None
    assert here(f"--test_net={checkpoint}").returncode == 0
    resumed = here(f"--resume={checkpoint}", "--epochs=9")
    assert resumed.returncode == 2
    assert "has no optimizer state; begin a new run with --weights=" in resumed.stderr
    assert here("sweep", "s.yaml", "--keep=none").returncode == 0
    assert not list((tmp_path / "outputs/models").iterdir())
    refused = here("sweep", "s.yaml", "--keep=10")
    assert refused.returncode == 2
    assert "--keep=10 is not valid; choose from all, none, best:N" in refused.stderr


def test_a_sweep_without_a_metric_lists_its_validation_loss(tmp_path: Path, here: Command) -> None:
    text = GRID.replace("metric: {name: loss_val, goal: minimize}\n", "")
    text = text.replace("[0.1, 0.01]", "[0.1]").replace("[30, 60, 120]", "[60]")
    write(tmp_path, text.replace("epochs: {value: 3}", "epochs: {value: 1}"))
    done = here("sweep", "s.yaml")
    assert done.returncode == 0, done.stderr
    header, best = done.stdout.splitlines()[1:3]
    assert header.split() == ["trial", "loss_val", "run"]
    assert float(best.split()[1]) == pytest.approx(float(trials(tmp_path)[0]["value"]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_costs_nothing_that_was_finished(tmp_path: Path, deep_cnn: Command) -> None:
    write(tmp_path, GRID)
    disk = tmp_path / "outputs"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount here")
    try:
        done = deep_cnn("sweep", "s.yaml")
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith("deep_cnn: ")
        assert "Traceback" not in done.stderr
        finished = len(list(disk.glob("sweeps/s/trials/*/*.done")))
        assert finished < 6
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        again = deep_cnn("sweep", "s.yaml")
        assert again.returncode == 0, again.stderr
        assert_each_point_once(tmp_path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_sweep_without_its_data_is_a_mistake_not_five_failures(
    tmp_path: Path, here: Command
) -> None:
    write(tmp_path, GRID.replace("--task=digits, --train_samples=120", "--data_dir=nowhere"))
    done = here("sweep", "s.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("deep_cnn: --data_dir=nowhere does not exist")


@pytest.mark.slow
def test_bayes_learns_repeats_and_stops_at_its_target(tmp_path: Path, here: Command) -> None:
    text = (
        "method: bayes\nrun_cap: 13\nmetric: {name: loss_val, goal: minimize}\nparameters:\n"
        "  lr: {distribution: log_uniform_values, min: 1.0e-5, max: 0.1}\n  epochs: {value: 1}\n"
        "  freeze: {values: [none, trunk, 2]}\n"
    ) + COMMAND
    rows = []
    for name in "ab":
        write(tmp_path, text, f"{name}.yaml")
        words = ["sweep", f"{name}.yaml", "--seed=5"]
        if name == "b":  # Continuing equals never having stopped.
            assert here(*words, "--count=11").returncode == 0
        assert here(*words).returncode == 0
        with (tmp_path / f"outputs/sweeps/{name}/trials.csv").open(newline="") as file:
            rows.append([(r["lr"], r["freeze"], r["value"]) for r in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 13
    write(tmp_path, text.replace("minimize", "minimize, target: 100.0"), "t.yaml")
    said = here("sweep", "t.yaml").stdout
    assert "1 of 1 trials are over" in said
    assert "the target 100 is reached: no new trial is begun" in said

"""Sweeps over networks and schedules of the user, with several workers, kills and changed files."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command, environment, until
from tests.models.common import SCHEDULE, write_net

SWEEP = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  task: {value: digits}
  train_samples: {value: 60}
  epochs: {value: 2}
  model: {values: [nets/net.py:Net, other/net.py:Net, lenet, nets.net:Net]}
  schedule: {values: [s.py:Halving, cosine]}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""
RUN = ("sweep", "s.yaml", "--workers=2", "--wandb=False")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_net(tmp_path / "nets")
    write_net(tmp_path / "other", "tanh")  # Files of the same names.
    (tmp_path / "s.py").write_text(SCHEDULE)
    (tmp_path / "s.yaml").write_text(SWEEP)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def trials(folder: Path) -> list[dict[str, str]]:
    return rows(folder / "outputs/sweeps/s/trials.csv")


def numbers(folder: Path, run: str) -> list[list[str]]:
    names = ("epoch", "lr", "loss_train", "loss_val")
    return [[row[name] for name in names] for row in rows(folder / f"outputs/results/{run}.csv")]


def test_two_workers_train_what_single_runs_train(here: Command, folder: Path) -> None:
    done = here(*RUN)
    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in trials(folder)] == ["finished"] * 8
    for trial in trials(folder):
        words = [f"--{name}={trial[name]}" for name in ("model", "schedule")]
        words += ["--task=digits", "--train_samples=60", "--epochs=2", "--wandb=False"]
        name = f"single-{trial['trial']}"
        assert here(*words, "--threads=1", f"--run_name={name}").returncode == 0
        assert numbers(folder, trial["run_name"]) == numbers(folder, name)
        has_code = "py" in trial["model"] + trial["schedule"] or "." in trial["model"]
        archive = folder / f"outputs/logger/{trial['run_name']}.source.zip"
        assert archive.exists() == has_code
    assert numbers(folder, "s-00000") != numbers(folder, "s-00002")
    assert here("report", "outputs").returncode == 0


def test_a_changed_file_is_another_sweep(here: Command, folder: Path) -> None:
    assert here(*RUN, "--count=2").returncode == 0
    before = (folder / "nets/blocks.py").read_text()
    (folder / "nets/blocks.py").write_text(before.replace("relu", "gelu"))
    done = here(*RUN)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert re.search("--model=nets.net(.py)?:Net has changed since the sweep began", done.stderr)
    (folder / "nets/blocks.py").write_text(before)
    text = SWEEP.replace("lenet, nets.net:Net", "lenet, nets.net:Net, third/net.py:Net")
    (folder / "s.yaml").write_text(text)
    write_net(folder / "third", "sigmoid")
    done = here(*RUN)
    assert done.returncode == 0, done.stderr
    assert len(trials(folder)) == 10


def test_a_file_that_changes_while_the_sweep_runs_costs_its_trials(
    here: Command, folder: Path
) -> None:
    # The first trial changes the network of the later ones.
    (folder / "s.py").write_text(
        f"from pathlib import Path\n\nPath({str(folder / 'other/sizes.py')!r})"
        f".write_text('WIDTH = 5\\n')\n\n\n{SCHEDULE}"
    )
    done = here("sweep", "s.yaml", "--workers=1", "--wandb=False", "--retries=0")
    assert done.returncode == 1
    text = "--model=other/net.py:Net has changed since the sweep began; change the code back"
    assert done.stderr.count(text) == 2, done.stderr
    states = {trial["model"]: trial["state"] for trial in trials(folder)}
    assert states["other/net.py:Net"] == "failed"
    assert states["nets/net.py:Net"] == "finished"


def test_a_killed_sweep_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    text = SWEEP.replace("epochs: {value: 2}", "epochs: {value: 40}")
    (folder / "s.yaml").write_text(text.replace(", lenet, nets.net:Net", ""))
    command = [sys.executable, "-m", "deep_cnn", "sweep", "s.yaml", "--wandb=False"]

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *words], cwd=folder, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    process = start("--workers=2")
    work = folder / "outputs/sweeps/s/work"
    until(lambda: list(work.glob("0000*/*.csv")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    process = start("--workers=2")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    process = start("--workers=2", "--out_dir=straight")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    (folder / "straight/outputs").symlink_to(folder / "straight")
    for trial in trials(folder):
        name = trial["run_name"]
        assert numbers(folder, name) == numbers(folder / "straight", name)


def test_code_of_the_command_is_named_each_time(here: Command, folder: Path) -> None:
    text = SWEEP.replace("  schedule: {values: [s.py:Halving, cosine]}\n", "")
    (folder / "s.yaml").write_text(text.replace(", lenet, nets.net:Net", ""))
    schedule = "--schedule=s.py:Halving"
    assert here(*RUN, schedule, "--count=1").returncode == 0
    done = here(*RUN)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"begun with {schedule}, which is code; name it again" in done.stderr
    done = here(*RUN, schedule, "--refit")
    assert done.returncode == 0, done.stderr
    test = done.stdout.splitlines()[-1].removeprefix("python -m deep_cnn ")
    done = here(*test.split())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [("missing.py:Net", "missing.py cannot be read"), ("bad.py:Net", "bad.py, line 2: ")],
)
def test_code_that_is_missing_or_wrong_ends_the_sweep_before_it_begins(
    here: Command, folder: Path, model: str, message: str
) -> None:
    (folder / "bad.py").write_text("\ndef f(:\n")
    (folder / "s.yaml").write_text(SWEEP.replace("lenet", model))
    done = here(*RUN)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "outputs/results").exists()


def test_the_largest_configuration_is_tried(here: Command, folder: Path) -> None:
    done = here("check", "s.yaml", "--probe")
    assert done.returncode == 0, done.stderr
    assert "largest configuration: --model=" in done.stdout

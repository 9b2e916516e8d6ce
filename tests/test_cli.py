"""The command line as a user has it: processes, signals, kills."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, ROOT, SAMPLE, Command, environment, until
from tests.conftest import read_checkpoint as load_checkpoint

DIGITS = ["--task=digits", "--run_name=d", "--train_samples=400", "--out_dir=out"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its status, and what it said on stderr."""
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def test_the_readmes_command_on_the_sample(deep_cnn: Command, tmp_path: Path) -> None:
    done = deep_cnn("--epochs=1", "--wandb=False", "--run_name=first", f"--data_dir={SAMPLE}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "Running on cpu device"
    assert re.search(r"(?m)^Epoch 0/1: 100%\|.*\| 3/3 \[.*batch.*\]$", done.stderr)
    assert re.fullmatch(r"first finished, best loss_val=\S+ at epoch 0\n", done.stdout)
    out = tmp_path / "outputs"
    left = {str(p.relative_to(out)) for p in tmp_path.rglob("*") if p.is_file()}
    events = {name for name in left if name.startswith("tensorboard/first/")}
    assert len(events) == 3  # Of the run, of train and of val.
    assert {name for name in left - events if not name.startswith("cache/")} == {
        "logger/first.log", "results/first.csv", "results/first.json", "results/first.args.json",
        "results/first.steps_train.csv", "results/first.steps_val.csv",
        "results/first.splits.npy", "models/first.pt", "models/first.best.pt",
    }  # fmt: skip
    tested = deep_cnn("--test_net=outputs/models/first.pt")
    assert tested.returncode == 0, tested.stderr
    assert re.match(r"Test loss_test=\S+ mae_test=\S+ ", tested.stdout)
    assert len((tmp_path / "outputs/results/first.test.csv").read_text().splitlines()) == 21


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]
)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, signum: int, status: int) -> None:
    process = start(tmp_path, *DIGITS, "--epochs=2000")
    until((tmp_path / "out/results/d.csv").exists, process)
    process.send_signal(signum)
    found, err = ended(process)
    assert found == status, err
    assert "go on with: python -m deep_cnn --resume=out/models/d.pt" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "out/results/d.json").read_text())["state"] == "interrupted"
    done = load_checkpoint(tmp_path / "out/models/d.pt")["epoch"]
    assert len((tmp_path / "out/results/d.csv").read_text().splitlines()) == done + 1


def changed(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


@pytest.mark.slow
def test_killed_at_random_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    words = [*DIGITS, "--epochs=30"]
    straight = start(tmp_path / "a", *words)
    moments, log = random.Random(4), tmp_path / "b/out/results/d.steps_val.csv"
    for _ in range(3):
        process, before = start(tmp_path / "b", *words), changed(log)
        # Also where it has ended before that: then there is nothing left to kill.
        until(lambda p=process, b=before: changed(log) != b or p.poll() is not None)
        time.sleep(moments.random())
        process.kill()
        ended(process)
        words = ["--resume=out/models/d.pt"]
    for status, err in map(ended, [straight, start(tmp_path / "b", *words)]):
        assert status == 0, err
    one, two = (load_checkpoint(tmp_path / x / "out/models/d.pt") for x in "ab")
    timing = ("seconds", "images_per_second")
    histories = [
        [{k: v for k, v in row.items() if k not in timing} for row in c["history"]]
        for c in (one, two)
    ]
    assert histories[0] == histories[1]
    steps = [(tmp_path / x / "out/results/d.steps_train.csv").read_text() for x in "ab"]
    assert steps[0] == steps[1]


def test_a_broken_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m deep_cnn -h | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("-h",), ("sweep", "-h"), ("check", "s.yaml")])
def test_what_does_not_train_imports_nothing_slow(tmp_path: Path, words: tuple[str, ...]) -> None:
    shutil.copyfile(ROOT / "sweeps/lr.yaml", tmp_path / "s.yaml")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deep_cnn", *words],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "deep_cnn.cli" in imported
    assert not {"torch", "numpy", "pandas", "scipy", "optuna", "wandb"} & imported

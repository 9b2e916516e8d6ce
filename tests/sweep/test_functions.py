"""Sweeps whose trials are calls of a function: scripts with W&B's client, kills, Ctrl-C."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deep_cnn import DeepCnnError, agent
from tests.conftest import PATIENCE, environment, until

SWEEP = """
method: grid
metric: {name: loss}
parameters:
  x: {values: [1, 2, 3]}
  opt: {parameters: {lr: {value: 0.5}}}
"""
SCRIPT = """
import os, signal, sys, time
import wandb
from deep_cnn import agent

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell may have it ignored.

def train():
    run = wandb.init()
    x = wandb.config.x
    with open("calls", "a") as file:
        file.write(f"{x} {os.environ['WANDB_RUN_ID']} {os.environ['DEEP_CNN_ATTEMPT']}\\n")
    if x == 2 and "bad" in sys.argv:
        raise ValueError("two is bad")
    for step in range(3):
        run.log({"loss": x + step, "nested": {"lr": wandb.config.opt["lr"]}})
        if x == 2 and "slow" in sys.argv and not os.path.exists("go"):
            time.sleep(600)

agent("s.yaml", function=train, count=20)
assert "WANDB_SWEEP_ID" not in os.environ and wandb.run is None
print("went on")
"""


def start(folder: Path, *words: str, script: str = SCRIPT) -> subprocess.Popen[str]:
    (folder / "s.yaml").write_text(SWEEP)
    (folder / "script.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, "script.py", *words],
        cwd=folder, env=environment(WANDB_SILENT="true"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(folder: Path, *words: str, script: str = SCRIPT) -> tuple[str, str]:
    process = start(folder, *words, script=script)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    return out, err


def trials(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "outputs/sweeps/s/trials.csv").open(newline="") as file:
        return [(row["x"], row["state"], row["value"]) for row in csv.DictReader(file)]


def calls(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "calls").read_text().splitlines()]


def test_a_function_is_called_for_each_configuration(tmp_path: Path) -> None:
    out, err = run(tmp_path, "bad")
    assert trials(tmp_path) == [
        ("1", "finished", "1.0"),
        ("2", "failed", ""),
        ("3", "finished", "3.0"),
    ]
    assert [x for x, _, _ in calls(tmp_path)] == ["1", "2", "3", "2"]  # One retry.
    assert "trial 1 failed: ValueError: two is bad" in err
    assert out.splitlines()[-1] == "went on"
    result = json.loads((tmp_path / "outputs/results/s-00002.json").read_text())
    assert (result["config"], result["program"]) == ({"opt.lr": 0.5, "x": 3}, "train()")
    with (tmp_path / "outputs/results/s-00002.csv").open(newline="") as file:
        rows = [(row["epoch"], row["loss"], row["nested.lr"]) for row in csv.DictReader(file)]
    assert rows == [(str(i), str(3.0 + i), "0.5") for i in range(3)]
    assert len(list((tmp_path / "outputs/wandb").glob("offline-run-*"))) == 3
    # The same script again tries what failed, and nothing else.
    run(tmp_path)
    assert trials(tmp_path)[1] == ("2", "finished", "2.0")
    assert [x for x, _, _ in calls(tmp_path)] == ["1", "2", "3", "2", "2"]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_script_that_is_ended_goes_on_where_it_was(tmp_path: Path, signum: int) -> None:
    process = start(tmp_path, "slow")
    until(lambda: (tmp_path / "calls").exists() and len(calls(tmp_path)) == 2)
    process.send_signal(signum)
    err = process.communicate(timeout=PATIENCE)[1]
    if signum == signal.SIGINT:
        assert (process.returncode, "interrupted; the same call again" in err) == (0, True), err
        assert trials(tmp_path)[1][1] == "interrupted"
    else:
        assert process.returncode == -signum
    (tmp_path / "go").touch()
    run(tmp_path, "slow")
    assert trials(tmp_path) == [(str(x), "finished", f"{x}.0") for x in (1, 2, 3)]
    made = calls(tmp_path)
    assert [(x, attempt) for x, _, attempt in made] == [
        ("1", "0"),
        ("2", "0"),
        ("2", "1"),
        ("3", "0"),
    ]
    assert made[1][1] == made[2][1]  # The run is the same.
    assert len(list((tmp_path / "outputs/wandb/superseded").iterdir())) == 1


def test_a_function_may_keep_its_run_elsewhere_and_may_exit(tmp_path: Path) -> None:
    script = SCRIPT.replace("wandb.init()", "wandb.init(dir=os.path.abspath('mine'))")
    script = script.replace('raise ValueError("two is bad")', 'sys.exit("enough")')
    script = script.replace("import os", "import os; os.makedirs('mine', exist_ok=True); import os")
    err = run(tmp_path, "bad", script=script)[1]
    assert [state for _, state, _ in trials(tmp_path)] == ["finished", "failed", "finished"]
    assert "trial 1 failed: the function exited with enough" in err
    assert len(list((tmp_path / "mine/wandb").glob("offline-run-*"))) == 3


def test_errors_of_a_sweep_are_exceptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}}
    for sweep, expected in (
        ("no.yaml", "no.yaml"),
        (content, "no end"),
        ({**content, "method": "gird"}, "gird"),
        ({**content, "command": ["python", "-m", "deep_cnn", "${args}"], "run_cap": 1}, "deep_cnn"),
    ):
        with pytest.raises(DeepCnnError, match=expected):
            agent(sweep, lambda: pytest.fail("it was called"))
    with pytest.raises(DeepCnnError, match="count=0 is less than 1"):
        agent({**content, "run_cap": 1}, lambda: None, count=0)
    with pytest.raises(DeepCnnError, match="cannot be called"):
        agent(content, None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())

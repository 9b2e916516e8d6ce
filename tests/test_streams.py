"""Standard streams that are closed, full, or read by nobody any more."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, environment

DIGITS = "--task=digits --train_samples=60 --epochs=2 --run_name=d"
SWEEP = """\
name: s
method: grid
metric: {name: loss_val}
parameters:
  lr: {values: [0.1, 0.2]}
  task: {value: digits}
  train_samples: {value: 60}
  epochs: {value: 2}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""
LOST = ["2>&-", "1>&-", "<&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true",
        "2>&1 </dev/null >&- | sleep 0"]  # fmt: skip
FULL = Path("/dev/full").exists()
pytestmark = pytest.mark.skipif(not FULL, reason="needs /dev/full")


def shell(folder: Path, words: str, end: str = "", **extra: str) -> tuple[int, str, str]:
    """The status of deep_cnn with these words and redirections, and what was printed."""
    (folder / "s.yaml").write_text(SWEEP)
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m deep_cnn {words} {end}; exit ${{PIPESTATUS[0]}}', sys.executable],
        cwd=folder, env=environment(**extra), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("end", LOST)
def test_a_run_without_streams_trains_to_its_end(tmp_path: Path, end: str) -> None:
    status, out, err = shell(tmp_path, DIGITS, end)
    assert status == 0, err
    assert "Traceback" not in out + err
    assert "Exception ignored" not in out + err
    assert json.loads((tmp_path / "outputs/results/d.json").read_text())["state"] == "finished"
    assert len((tmp_path / "outputs/results/d.csv").read_text().splitlines()) == 3
    log = (tmp_path / "outputs/logger/d.log").read_text()
    assert "Epoch 1: lr=0.01" in log


@pytest.mark.slow
@pytest.mark.parametrize("end", ["2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true"])
def test_a_sweep_without_streams_runs_every_trial(tmp_path: Path, end: str) -> None:
    status, out, err = shell(tmp_path, "sweep s.yaml --workers=2", end)
    assert status == 0, err
    assert "Traceback" not in out + err
    table = (tmp_path / "outputs/sweeps/s/trials.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in table[1:]] == ["finished", "finished"]


def test_the_status_of_a_run_without_streams_is_its_own(tmp_path: Path) -> None:
    assert shell(tmp_path, f"{DIGITS} --lr=1e30 --optimizer=sgd", "<&- >&- 2>&-")[0] == 1
    assert shell(tmp_path, "--lr=abc", "<&- >&- 2>&-")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("end", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_wandb_without_streams(tmp_path: Path, end: str) -> None:
    status, _, err = shell(tmp_path, f"{DIGITS} --wandb=True", end, WANDB_MODE="offline")
    assert status == 0, err
    result = json.loads((tmp_path / "outputs/results/d.json").read_text())
    assert result["state"] == "finished"
    assert len(result["unsynced"]) == 1


def test_a_test_without_streams_is_written(tmp_path: Path) -> None:
    assert shell(tmp_path, DIGITS)[0] == 0
    assert shell(tmp_path, "--test_net=outputs/models/d.pt", ">/dev/full 2>&-")[0] == 0
    assert (tmp_path / "outputs/results/d.test.csv").exists()


@pytest.mark.parametrize(
    "words",
    ["sample s.yaml", "check s.yaml", "report outputs --csv", "-h", "sweep -h", "--version"],
)
@pytest.mark.parametrize(
    ("end", "reason"), [(">/dev/full", "No space left on device"), (">&-", "it is closed")]
)
def test_a_result_that_is_lost_is_an_error_in_one_line(
    tmp_path: Path, words: str, end: str, reason: str
) -> None:
    if words.startswith("report"):
        results = tmp_path / "outputs/results"
        results.mkdir(parents=True)
        content = {"version": 1, "run_name": "d", "state": "finished", "config": {}}
        (results / "d.json").write_text(json.dumps(content))
    status, out, err = shell(tmp_path, words, end)
    assert (status, out) == (2, "")
    assert err == (
        f"deep_cnn: standard output cannot be written ({reason}); make room there, or send it"
        " elsewhere\n"
    )
    assert shell(tmp_path, words, f"{end} 2>&-")[0] == 2


def test_the_head_of_a_sample_is_quiet(tmp_path: Path) -> None:
    status, out, err = shell(tmp_path, "sample s.yaml -n 2", "| head -1")
    assert (out, err) == ("epochs,lr,task,train_samples\n", "")
    assert status in (0, 1)  # It may end before the reader goes.
    status, _, err = shell(tmp_path, "-h", "| true")
    assert (status, err) == (1, "")


def test_a_closed_stream_does_not_lend_its_number_to_a_file(tmp_path: Path) -> None:
    status, _, _ = shell(tmp_path, f"{DIGITS} --bogus=1", "<&- >&- 2>&-")
    assert status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_pipe_that_does_not_block_gets_everything(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "method: random\nparameters: {lr: {min: 0.0, max: 1.0}}\nrun_cap: 9999\n"
    )
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    process = subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", "sample", "s.yaml", "-n", "9000"],
        cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    time.sleep(1)  # The pipe fills meanwhile, as a rule; the answer is the same if it does not.
    with os.fdopen(reader, "rb") as file:
        lines = file.read().splitlines()
    assert process.wait(PATIENCE) == 0
    assert process.communicate()[1] == b""
    assert len(lines) == 9001

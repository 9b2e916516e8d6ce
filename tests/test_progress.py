"""What a run, a sweep and a probe show while they work, on a terminal and in a file."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, SAMPLE, Command, environment, until

pty = pytest.importorskip("pty", reason="needs pseudo terminals")
DIGITS = ("--task=digits", "--train_samples=64", "--run_name=d")
SWEEP = """\
name: s
method: grid
metric: {name: loss_val}
parameters:
  lr: {values: [0.1, 0.2]}
  task: {value: digits}
  train_samples: {value: 64}
  epochs: {value: EPOCHS}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""


def on_terminal(folder: Path, *words: str) -> str:
    """What the command writes on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", *words],
        cwd=folder, env=environment(COLUMNS="160"), stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:  # The end of a terminal, for Linux.
        pass
    os.close(ours)
    assert process.wait(PATIENCE) == 0, text.decode()
    return text.decode()


def test_one_bar_has_all_epochs_and_the_time_left(tmp_path: Path) -> None:
    text = on_terminal(tmp_path, *DIGITS, "--epochs=4")
    # One step and ten batches of validation, four times.
    shown = re.findall(r"Epoch (\d)/4(, validation)?: +\d+%\|[^|]*\| (\d+)/44 \[\d\d:\d\d<", text)
    counts = [int(count) for _, _, count in shown]
    assert counts == sorted(counts)
    assert counts[-1] == 44
    assert shown[-1][0] == "3"
    # A line of the log begins where the bar was removed.
    for epoch in range(4):
        assert re.search(rf"[\r\n]Epoch {epoch}: lr=", text)
    resumed = on_terminal(tmp_path, "--resume=outputs/models/d.pt", "--epochs=5")
    assert re.search(r"Epoch 4/5: +80%\|[^|]*\| 44/55 \[", resumed)
    assert re.search(r"Epoch 4/5: 100%\|[^|]*\| 55/55 \[", resumed)


def test_a_file_gets_a_line_at_the_end_and_not_one_an_epoch(
    deep_cnn: Command, tmp_path: Path
) -> None:
    done = deep_cnn(*DIGITS, "--epochs=40")
    assert done.returncode == 0, done.stderr
    bars = [line for line in done.stderr.splitlines() if "batch" in line]
    assert len(bars) <= 1 + 40  # One in half a minute at most, but the machine may be slow.
    assert re.fullmatch(r"Epoch 39/40: 100%\|#+\| 440/440 \[[\d:]+<00:00, .*batch.*\]", bars[-1])
    assert "\r" not in done.stderr


@pytest.mark.slow
def test_the_bar_of_a_sweep_says_how_far_its_trials_are(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP.replace("EPOCHS", "60"))
    text = on_terminal(tmp_path, "sweep", "s.yaml", "--workers=2")
    shown = re.findall(r"(\d) running, 0 failed[^;\r\n]*; trial (\d) epoch (\d+)/60", text)
    assert shown, text
    assert {int(number) for _, number, _ in shown} <= {0, 1}
    assert all(int(epoch) <= 60 for _, _, epoch in shown)
    assert re.search(r"s: 100%\|[^|]*\| 2/2 \[[^\r\n]*0 running, 0 failed, best", text)


def test_a_probe_says_what_it_does_before_it_does_it(deep_cnn: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP.replace("EPOCHS", "2"))
    done = deep_cnn("check", "s.yaml", "--probe")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "probe: trying the largest of 2 configurations, --model=lenet --batch_size=64"
        " --pre=default",
        "probe: reading the data, building the network",
        "probe: preparing 64 pictures, as once before the first epoch",
        "probe: a first training step with 64 pictures",
        "probe: 3 more training steps",
        "probe: a validation step",
    ]
    assert "probe:" not in done.stdout


def test_a_probe_that_fails_has_said_at_what(deep_cnn: Command, tmp_path: Path) -> None:
    text = SWEEP.replace("EPOCHS", "2").replace(
        "task: {value: digits}", f"data_dir: {{value: {SAMPLE}}}\n  model: {{value: resnet18}}"
    )
    (tmp_path / "s.yaml").write_text(text)
    done = deep_cnn("check", "s.yaml", "--probe", TORCH_HOME="t", http_proxy="http://127.0.0.1:9",
                    https_proxy="http://127.0.0.1:9")  # fmt: skip
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[1] == "probe: reading the data, building the network"
    assert lines[-1].startswith("deep_cnn: --model=resnet18: the ImageNet weights")


SAID = "saving and ending ...; Ctrl-C again ends at once"


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ((*DIGITS, "--epochs=3000"), "outputs/results/d.csv"),  # While it trains.
        ((f"--data_dir={SAMPLE}", "--cache_dir=c"), "c/.pictures-*.part"),  # While it decodes.
        (("sweep", "s.yaml", "--workers=1"), "outputs/sweeps/s/work/00000.0/s-00000.csv"),
    ],
)
def test_ctrl_c_is_answered_before_the_end(
    tmp_path: Path, words: tuple[str, ...], file: str
) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP.replace("EPOCHS", "3000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", *words],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: list(tmp_path.glob(file)), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    lines = err.splitlines()
    assert lines.count(SAID) == 1
    end = next(i for i, line in enumerate(lines) if line.startswith("Interrupted; go on with:"))
    assert lines.index(SAID) < end


def test_ctrl_c_ends_a_download(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # A proxy that never answers.
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "deep_cnn", "--model=resnet18", f"--data_dir={SAMPLE}"],
            cwd=tmp_path, env=environment(https_proxy=proxy, TORCH_HOME=str(tmp_path / "t")),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        server.settimeout(PATIENCE)
        connection, _ = server.accept()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        connection.close()
    assert process.returncode == 130, err
    lines = err.splitlines()
    assert lines[-2:] == [SAID, "Interrupted; go on with: the same command"]

"""Users without a name, and homes that are missing or cannot be written."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, SAMPLE, Command, environment

DIGITS = ["--task=digits", "--train_samples=60", "--epochs=1", "--run_name=d"]
SWEEP = """\
method: grid
metric: {name: loss_val}
parameters:
  lr: {values: [0.1, 0.2]}
  task: {value: digits}
  train_samples: {value: 60}
  epochs: {value: 1}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""
# A user without an entry, who may read the interpreter wherever it is, but write nowhere.
STRANGER = [
    "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups",
    *(f"--{caps}=-all,+dac_read_search" for caps in ("inh-caps", "ambient-caps", "bounding-set")),
]  # fmt: skip


def run(
    folder: Path, *words: str, prefix: tuple[str, ...] = (), env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "deep_cnn", *words]
    return subprocess.run(
        command, cwd=folder, env=dict(env), capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for temporary files, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def stranger(tmp_path: Path, short: Path) -> Path:
    """A folder that the stranger may write, with a sweep file."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    # Optuna asks whether it may read its own folder, which the capability does not answer.
    readable = "import os, optuna; raise SystemExit(not os.access(optuna.__path__[0], os.R_OK))"
    done = subprocess.run([*STRANGER, sys.executable, "-c", readable], capture_output=True)
    if done.returncode != 0:
        pytest.skip("may not become another user, or the packages are private")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "s.yaml").write_text(SWEEP)
    short.chmod(0o777)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/"])
def test_a_user_without_a_name_and_a_home_can_do_everything(
    stranger: Path, short: Path, home: str | None
) -> None:
    env = {k: v for k, v in environment().items() if k not in ("HOME", "USER", "LOGNAME")}
    env |= {"TMPDIR": str(short)} | ({} if home is None else {"HOME": home})
    who = tuple(STRANGER)
    online = {**env, "WANDB_MODE": "offline"}
    for words, each in (
        (DIGITS, env),
        ([*DIGITS, "--wandb=True"], online),
        (["sweep", "s.yaml", "--workers=2"], env),
        (["check", "s.yaml", "--probe"], env),
        (["report", "outputs"], env),
    ):
        done = run(stranger, *words, prefix=who, env=each)
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        assert not any(word in text for word in ("Traceback", "rror", "WandbTracker", "INFO")), text
    assert "W&B: kept offline" in (stranger / "outputs/logger/d-2.log").read_text()
    assert not (stranger / "~").exists()
    left = short / "deep_cnn-54321"
    assert left.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_not_trusted(stranger: Path, short: Path) -> None:
    trap = short / "deep_cnn-54321"
    trap.mkdir()
    trap.chmod(0o777)
    env = {**environment(HOME="/nonexistent"), "TMPDIR": str(short)}
    done = run(
        stranger, *DIGITS, "--wandb=True", prefix=tuple(STRANGER),
        env={**env, "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(trap.iterdir()) == []


def test_weights_in_a_home_that_cannot_be_written_are_used(stranger: Path, short: Path) -> None:
    home = stranger / "home"
    (home / ".cache/torch/hub/checkpoints").mkdir(parents=True)
    file = home / ".cache/torch/hub/checkpoints/resnet18-f37072fd.pth"
    file.write_text("damaged")
    env = {**environment(HOME=str(home)), "TMPDIR": str(short)}
    env.pop("TORCH_HOME", None)
    done = run(
        stranger, "--model=resnet18", f"--data_dir={SAMPLE}",
        prefix=tuple(STRANGER), env=env,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"--weights={file} is not a file of weights" in done.stderr


def test_a_home_that_does_not_exist_costs_nothing(deep_cnn: Command, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    done = deep_cnn(
        *DIGITS, "--wandb=True",
        HOME=str(tmp_path / "file" / "home"), WANDB_MODE="offline", TMPDIR=str(tmp_path / "tmp"),
        XDG_CACHE_HOME="", XDG_DATA_HOME="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "outputs/results/d.json").read_text())["unsynced"]
    if os.getuid() != 0:  # Root may make the folder.
        assert list((tmp_path / "tmp").glob(f"deep_cnn-{os.getuid()}/.cache"))

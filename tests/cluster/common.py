"""What the tests of both schedulers share: sweeps that take seconds, and how they stand."""

import csv
import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

from tests.conftest import PATIENCE, environment

# Of this process alone: others run tests at the same time, and all processes are searched.
SECRETS = {
    name: secrets.token_hex(20) for name in ("WB_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")
}
SWEEP = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  lr: {values: %s}
  epochs: {value: %d}
  wandb: {value: False}
command: ["${env}", python, -m, deep_cnn, --task=digits, --train_samples=120, "${args}"]
"""


def write_sweep(folder: Path, rates: str = "[0.1, 0.03, 0.01, 0.003]", epochs: int = 2) -> None:
    (folder / "s.yaml").write_text(SWEEP % (rates, epochs))


def submit(folder: Path, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "deep_cnn", "submit", *words],
        cwd=folder,
        env=environment(OMP_NUM_THREADS="1", **extra),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def states(folder: Path) -> list[str]:
    """How the trials stand, as trials.csv has it."""
    try:
        with (folder / "outputs/sweeps/s/trials.csv").open(newline="") as file:
            return [row["state"] for row in csv.DictReader(file)]
    except OSError:
        return []


def rows(folder: Path, trial: int) -> int:
    """How many epochs a trial has logged, wherever its table is by now."""
    tables = [
        *folder.glob(f"outputs/sweeps/s/work/{trial:05d}.*/s-{trial:05d}.csv"),
        *folder.glob(f"outputs/results/s-{trial:05d}.csv"),
    ]
    counts = [0]
    for path in tables:
        try:
            counts.append(path.read_text().count("\n") - 1)
        except OSError:  # It has just moved.
            continue
    return max(counts)


def files(folder: Path, kind: str) -> list[str]:
    """The state files of all trials of a kind, such as claim."""
    return sorted(p.name for p in folder.glob(f"outputs/sweeps/s/trials/*/*.{kind}*"))


def printed(folder: Path, *suffixes: str) -> list[str]:
    """What each job has printed on stdout."""
    paths = [p for suffix in suffixes for p in (folder / "outputs/jobs").glob(f"*{suffix}")]
    return [path.read_text() for path in sorted(paths)]


def ends(texts: list[str]) -> int:
    """How many jobs have printed the end of the sweep, with its table."""
    return sum(bool(re.search(r"^ trial +loss_val +run$", text, re.M)) for text in texts)


def results(folder: Path) -> list[int]:
    """The trials of the sweep that have a finished run."""
    paths = (p for p in (folder / "outputs/results").glob("s-0*.json") if ".args" not in p.name)
    about = [json.loads(path.read_text()) for path in paths]
    return sorted(a["sweep"]["trial"] for a in about if a["state"] == "finished")


def secrets_in(folder: Path) -> list[str]:
    """The files under a folder that hold a secret."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(v.encode() in path.read_bytes() for v in SECRETS.values()):
            found.append(str(path))
    return found


def secrets_of_processes(mark: str) -> list[str]:
    """What the command lines of all processes, and the environment of marked ones, tell."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
            environ = (folder / "environ").read_bytes()
        except OSError:  # It has just ended, or is another user's.
            continue
        seen = line + (environ if mark.encode() in environ else b"")
        if any(value.encode() in seen for value in SECRETS.values()):
            found.append(f"{folder.name}: {line!r}")
    return found


def path_with(folder: Path) -> str:
    return f"{folder}:{os.environ['PATH']}"

"""Checkpoints of small networks, trained once."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import PATIENCE, environment, make_classes, make_scored, read_checkpoint

TRAIN = ("--weights=none", "--model=lenet", "--epochs=1", "--wandb=False", "--tensorboard=False")
Predict = Callable[..., subprocess.CompletedProcess[str]]


def deep_cnn_in(folder: Path, *words: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m deep_cnn ARGS` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "deep_cnn", *map(str, words)],
        cwd=folder, env=environment(**extra), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and in outputs/models: three seeds, another data set, two classes."""
    folder = tmp_path_factory.mktemp("trained")
    make_scored(folder / "scored", 40)
    make_scored(folder / "others", 30)
    make_classes(folder / "classes")
    runs = [("scored", f"seed{k}", f"--seed={k}") for k in range(3)]
    runs += [("others", "others", "--seed=0"), ("classes", "classes", "--seed=0")]
    for data, name, seed in runs:
        done = deep_cnn_in(folder, f"--data_dir={data}", f"--run_name={name}", seed, *TRAIN)
        assert done.returncode == 0, done.stderr
    return folder


def checkpoint(folder: Path, name: str) -> Path:
    return folder / "outputs" / "models" / f"{name}.best.pt"


def changed(source: Path, target: Path, **values: Any) -> Path:
    """Write a checkpoint with other values; options and labels are merged."""
    content = read_checkpoint(source)
    for name, value in values.items():
        merged = name in ("config", "labels") and isinstance(value, dict)
        content[name] = {**content[name], **value} if merged else value
    torch.save(content, target)
    return target


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

"""What many tests share: the sample data, tiny data sets, and the command line as a process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "places_test_input"

Command = Callable[..., subprocess.CompletedProcess[str]]


def environment(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "WB_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


@pytest.fixture
def deep_cnn(tmp_path: Path) -> Command:
    """Run `python -m deep_cnn ARGS` in an empty folder."""

    def run(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deep_cnn", *map(str, words)],
            cwd=tmp_path,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A folder with 24 small pictures, brighter ones with higher scores, and scores.csv."""
    return make_scored(tmp_path / "scored")


def make_scored(folder: Path, count: int = 24) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["image,score"]
    for i in range(count):
        level = 255 * i / count
        noise = random.normal(level, 20, (40, 50, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"p{i:03d}.png")
        lines.append(f"p{i:03d}.png,{i / 2}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_classes(folder: Path, parts: tuple[str, ...] = ("train", "val"), count: int = 6) -> Path:
    random = np.random.default_rng(1)
    for part in parts:
        for name, level in (("dark", 50), ("light", 200)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.normal(level, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder

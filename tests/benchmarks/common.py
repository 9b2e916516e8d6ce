"""What the benchmarks share: pictures, processes, and numbers as a table."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def make_pictures(folder: Path, count: int, size: tuple[int, int] = (640, 480)) -> None:
    """JPEG with soft structure, brighter ones with higher scores; a fifth is val, one is test."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["image,score,split"]
    for i in range(count):
        coarse = random.integers(0, 200, (12, 16, 3)) + 55 * i // count
        image = Image.fromarray(coarse.astype(np.uint8)).resize(size)
        image.save(folder / f"p{i:05d}.jpg", quality=90)
        split = "test" if i == count - 1 else "train" if i % 5 else "val"
        lines.append(f"p{i:05d}.jpg,{10 * i / count:.3f},{split}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")


def timed(folder: Path, *words: str) -> float:
    """Seconds that `python -m deep_cnn WORDS` takes."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "deep_cnn", *words],
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begun


def environment() -> dict[str, str]:
    """This process's, with the repository importable from anywhere and W&B out of sight."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "WB_"))}
    return {**kept, "PYTHONPATH": str(Path.cwd())}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (least to most)`."""
    least, middle, most = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def ratios(dividends: Sequence[float], divisors: Sequence[float]) -> list[float]:
    """The ratio in each repeat, so that what slows a whole repeat does not count."""
    return [a / b for a, b in zip(dividends, divisors, strict=True)]

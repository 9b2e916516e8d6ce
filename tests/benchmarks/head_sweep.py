"""What a sweep over the head costs: one warm sweep against a process for each trial.

    python -m tests.benchmarks.head_sweep [--trials 30] [--epochs 5] [--pictures 1000]

Both fine-tune the last layer of efficientnet_lite0 (bundled weights) on the same pictures. The
processes keep nothing (--cache=off): three trials are run, and their median stands for each.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

FLAGS = {"freeze": "trunk", "batch_size": 32, "wandb": False}


def make_pictures(folder: Path, count: int) -> None:
    """JPEG of 640 x 480 with soft structure, brighter ones with higher scores."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["image,score"]
    for i in range(count):
        coarse = random.integers(0, 200, (12, 16, 3)) + 55 * i // count
        image = Image.fromarray(coarse.astype(np.uint8)).resize((640, 480))
        image.save(folder / f"p{i:05d}.jpg", quality=90)
        lines.append(f"p{i:05d}.jpg,{10 * i / count:.3f}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")


def timed(folder: Path, *words: str) -> float:
    """Seconds that `python -m deep_cnn WORDS` takes."""
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "deep_cnn", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begun


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_pictures(folder / "data", given.pictures)
        flags = {**FLAGS, "data_dir": str(folder / "data"), "epochs": given.epochs}
        rates = [float(lr) for lr in np.geomspace(1e-4, 1e-1, given.trials)]
        sweep = {
            "method": "grid",
            "parameters": {**{k: {"value": v} for k, v in flags.items()}, "lr": {"values": rates}},
            "command": ["python", "-m", "deep_cnn", "${args}"],
        }
        (folder / "head.yaml").write_text(yaml.safe_dump(sweep))
        words = [f"--{name}={value}" for name, value in flags.items()]
        apart = [
            timed(folder, *words, "--cache=off", f"--lr={lr}", f"--run_name=alone{i}")
            for i, lr in enumerate(rates[:: max(1, given.trials // 3)][:3])
        ]
        alone = statistics.median(apart)
        cold = timed(folder, "sweep", "head.yaml", "--out_dir=cold")
        warm = timed(folder, "sweep", "head.yaml", "--out_dir=warm", "--workers=2")
        print(f"a process: {alone:.1f} s (of {min(apart):.1f} to {max(apart):.1f})")
        for name, seconds in (("1 worker, nothing kept yet", cold), ("2 workers, likewise", warm)):
            ratio = given.trials * alone / seconds
            print(f"sweep of {given.trials}, {name}: {seconds:.1f} s, {ratio:.0f} times less")


if __name__ == "__main__":
    main()

"""A sweep over the last layer: one warm sweep against a process for each trial.

    python -m tests.benchmarks.head_sweep [--trials 30] [--epochs 5] [--pictures 1000] [--sampled 3]

All train the last layer of efficientnet_lite0 (bundled weights) on the same pictures. Of the
processes some are sampled, and their median stands for each. They are of two kinds: ours without a
store (--cache=off), which computes the features once in each process, and the loop that everybody
writes first, which decodes and runs the frozen trunk in each epoch (float32, four loader workers).
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import yaml

from tests.benchmarks.common import make_pictures, spread, timed
from tests.benchmarks.loops import apart, head_reference

FLAGS = {"freeze": "trunk", "batch_size": 32, "wandb": False}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--sampled", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_pictures(folder / "data", given.pictures)
        flags = {**FLAGS, "data_dir": "data", "epochs": given.epochs}
        rates = [float(lr) for lr in np.geomspace(1e-4, 1e-1, given.trials)]
        sweep = {
            "method": "grid",
            "parameters": {**{k: {"value": v} for k, v in flags.items()}, "lr": {"values": rates}},
            "command": ["python", "-m", "deep_cnn", "${args}"],
        }
        words = [f"--{name}={value}" for name, value in flags.items()]
        off = [timed(folder, *words, "--cache=off", f"--lr={lr}") for lr in rates[: given.sampled]]
        plain = [apart(head_reference, folder, given.epochs).whole for _ in range(given.sampled)]
        for workers in (1, 2):
            for kept in ("nothing kept yet", "all kept"):
                name = f"{workers} {kept}".replace(" ", "-")
                (folder / f"{name}.yaml").write_text(yaml.safe_dump(sweep))
                words = [f"--workers={workers}", f"--out_dir=out{workers}"]
                seconds = timed(folder, "sweep", f"{name}.yaml", *words)
                less = [given.trials * statistics.median(way) / seconds for way in (off, plain)]
                print(f"{given.trials} trials, {workers} workers, {kept}: {seconds:.1f} s;", end="")
                print(f" processes {less[0]:.0f}, plain loops {less[1]:.0f} times that")
        print(f"a process without store {spread(off, 1)} s, a plain loop {spread(plain, 1)} s")


if __name__ == "__main__":
    main()

"""Memory: four workers of a sweep, all their processes together, against one run.

    python -m tests.benchmarks.memory [--pictures 1000] [--epochs 60]

The proportional set size (PSS, Linux) counts a page that n processes share as 1/n in each. Both
train the last layer of efficientnet_lite0; the peak of the sum is reported.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import yaml

from tests.benchmarks.common import environment, make_pictures, spread


def peak(folder: Path, *words: str) -> float:
    """The largest summed PSS of `python -m deep_cnn WORDS` and all below it, in MiB."""
    command = [sys.executable, "-m", "deep_cnn", *words]
    found = 0.0
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        pause = threading.Event()
        while process.poll() is None:
            found = max(found, sum(pss(pid) for pid in family(process.pid)))
            pause.wait(0.05)
    assert process.returncode == 0, words
    return found / 1024


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in below for found in family(int(child)))]


def pss(pid: int) -> int:
    """In KiB; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    flags = {"data_dir": "data", "freeze": "trunk", "epochs": given.epochs, "wandb": False}
    sweep = {
        "method": "grid",
        "parameters": {
            **{name: {"value": value} for name, value in flags.items()},
            "lr": {"values": [0.001, 0.002, 0.003, 0.004]},
        },
        "command": ["python", "-m", "deep_cnn", "${args}"],
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_pictures(folder / "data", given.pictures)
        words = [f"--{name}={value}" for name, value in flags.items()]
        one, four = [], []
        peak(folder, *words)  # Fills the store.
        for i in range(given.repeats):
            one.append(peak(folder, *words))
            (folder / f"s{i}.yaml").write_text(yaml.safe_dump(sweep))
            four.append(peak(folder, "sweep", f"s{i}.yaml", "--workers=4"))
    print(f"one run: {spread(one, 0)} MiB; a sweep with four workers: {spread(four, 0)} MiB")
    print(f"ratio {spread([a / b for a, b in zip(four, one, strict=True)])}")


if __name__ == "__main__":
    main()

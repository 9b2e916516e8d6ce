"""What a trial costs beside its training: four ways to run the same grid, in one measurement.

    python -m tests.benchmarks.overhead [--runs 5] [--repeats 3]

The trials are one epoch of a LeNet on digits. The overhead of a trial is the time from
one trial's start to the next one's, less what the trial itself says that it took (`seconds` in its
result). The agents ask a stand-in for W&B's server on this machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.wandb_server import WandbServer


def sweep(runs: int) -> dict[str, Any]:
    """A grid of so many short trials."""
    return {
        "method": "grid",
        "metric": {"name": "loss_val"},
        "parameters": {
            "task": {"value": "digits"},
            "epochs": {"value": 1},
            "lr": {"values": [0.01 + 0.001 * i for i in range(runs)]},
        },
        "command": ["${env}", "python", "-m", "deep_cnn", "${args}"],
    }


def run(folder: Path, words: Sequence[str], extra: dict[str, str] | None = None) -> float:
    """Seconds that a command takes."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "WB_"))}
    env = {**kept, "PYTHONPATH": str(Path.cwd()), "PATH": path, **(extra or {})}
    begun = time.perf_counter()
    subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True)
    return time.perf_counter() - begun


def own_seconds(folder: Path) -> float:
    """The median of what the trials in a folder say of themselves."""
    results = (folder / "outputs" / "results").glob("*.json")
    found = [json.loads(p.read_text()) for p in results if not p.name.endswith(".args.json")]
    return statistics.median(result["seconds"] for result in found)


def apart(folder: Path, runs: int) -> float:
    """A process for each trial."""
    words = [sys.executable, "-m", "deep_cnn", "--task=digits", "--epochs=1", "--wandb=False"]
    return statistics.median(run(folder, words) for _ in range(runs))


def local(folder: Path, runs: int) -> float:
    """The local engine: what more trials take, so that its start is not counted."""
    times = []
    for count in (1, runs + 1):
        (folder / f"s{count}.yaml").write_text(yaml.safe_dump(sweep(count)))
        times.append(run(folder, [sys.executable, "-m", "deep_cnn", "sweep", f"s{count}.yaml"]))
    return (times[1] - times[0]) / runs


def agent(words: Sequence[str]) -> Callable[[Path, int], float]:
    """An agent on a server: the same."""

    def measure(folder: Path, runs: int) -> float:
        times = []
        for count in (1, runs + 1):
            with WandbServer() as server:
                home = server.environment(folder / "home")
                extra = {"WANDB_API_KEY": server.key, "WB_KEY": server.key, "WB_PROJECT": "p"}
                extra |= {"WB_USER": "tester", "WANDB_PROJECT": "p", **home}
                path = f"tester/p/{server.add_sweep(sweep(count))}"
                times.append(run(folder, [sys.executable, *words, path], extra))
        return (times[1] - times[0]) / runs

    return measure


WAYS: dict[str, Callable[[Path, int], float]] = {
    "local engine": local,
    "warm agent": agent(["-m", "deep_cnn", "agent"]),
    "process per trial": apart,
    "wandb agent": agent(["-c", "from wandb.cli.cli import cli; cli()", "agent"]),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(given.repeats):
        for name, measure in WAYS.items():
            with tempfile.TemporaryDirectory() as place:
                whole = measure(Path(place), given.runs)
                found[name].append(max(whole - own_seconds(Path(place)), 1e-3))
    least = statistics.median(found["local engine"])
    print("| way | overhead of a trial, median (least to most) | times the local engine |")
    print("| --- | --- | --- |")
    for name, times in found.items():
        middle = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"| {name} | {middle:.2f} s ({spread}) | {middle / least:.1f} |")


if __name__ == "__main__":
    main()

"""Measure how long the program takes to start.

    python -m tests.benchmarks.start_up [--repeats 5]

`-h` is compared with a Python that imports nothing. The first step of an optimizer is compared with
that of torch's own classes, whose methods are wrapped for torch.compile: the wrapping imports
torch._dynamo, which deep_cnn does not use.
"""

import argparse
import subprocess
import sys
import time

from tests.benchmarks.common import environment, ratios, spread

STEP = """
import torch
from deep_cnn.training import optim
kind = {kind}
parameter = torch.nn.Parameter(torch.zeros(3))
optimizer = kind([parameter], 1e-3, fused=True)
parameter.sum().backward()
optimizer.step()
"""
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -m deep_cnn -h": ["-m", "deep_cnn", "-h"],
    "first step, deep_cnn's Adam": ["-c", STEP.format(kind="optim._ADAM")],
    "first step, torch's Adam": ["-c", STEP.format(kind="torch.optim.Adam")],
}


def seconds(arguments: list[str]) -> float:
    """Return the seconds that a new Python takes."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], env=environment(), check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for arguments in COMMANDS.values():
        seconds(arguments)  # Once, so that files are cached.
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    for name, values in times.items():
        print(f"{name:<30} {spread(values)} s")
    first, second = times["first step, torch's Adam"], times["first step, deep_cnn's Adam"]
    print(f"{'torch / deep_cnn':<30} {spread(ratios(first, second))}")


if __name__ == "__main__":
    main()

"""One trial with all threads, or as many trials as cores with one thread each?

    python -m tests.benchmarks.workers [--trials 4] [--repeats 3]

For the last layer of efficientnet_lite0 (features kept), and for a whole ResNet-18.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.common import make_pictures, ratios, spread, timed

KINDS: dict[str, dict[str, Any]] = {
    "the last layer": {"freeze": "trunk", "epochs": 40, "model": "efficientnet_lite0"},
    "a whole network": {"weights": "none", "epochs": 2, "model": "resnet18"},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=200)
    given = parser.parse_args()
    many = os.cpu_count() or 1
    print(f"| what is trained | 1 worker, s | {many} workers, s | times faster |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_pictures(folder / "data", given.pictures)
        for kind, flags in KINDS.items():
            fixed = {"data_dir": "data", "wandb": False, **flags}
            sweep = {
                "method": "grid",
                "parameters": {
                    **{name: {"value": value} for name, value in fixed.items()},
                    "lr": {"values": [0.001 * (i + 1) for i in range(given.trials)]},
                },
                "command": ["python", "-m", "deep_cnn", "${args}"],
            }
            times: dict[int, list[float]] = {1: [], many: []}
            for repeat in range(given.repeats + 1):
                for workers, found in times.items():
                    name = f"{flags['model']}-{repeat}-{workers}"
                    (folder / f"{name}.yaml").write_text(yaml.safe_dump(sweep))
                    found.append(timed(folder, "sweep", f"{name}.yaml", f"--workers={workers}"))
            one, more = times[1][1:], times[many][1:]  # The first of each filled the store.
            print(f"| {kind} | {spread(one)} | {spread(more)} | {spread(ratios(one, more))} |")


if __name__ == "__main__":
    main()

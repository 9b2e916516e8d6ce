"""An epoch after the first one on large pictures, with and without the store of decoded ones.

    python -m tests.benchmarks.store [--pictures 160] [--repeats 3]

JPEG of 1024 x 768, a ResNet-18. The limit is the same arithmetic on tensors in memory.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.common import make_pictures, ratios, spread
from tests.benchmarks.loops import apart, initial_weights, limit, ours

EPOCHS = 4


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {"store": [], "no store": [], "limit": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_pictures(folder / "data", given.pictures, (1024, 768))
        initial_weights(folder / "start.pt")
        for _ in range(given.repeats):
            for way, timing in (
                ("store", ours(folder, EPOCHS)),
                ("no store", ours(folder, EPOCHS, "--cache=off")),
                ("limit", apart(limit, folder, EPOCHS)),
            ):
                found[way].append(statistics.median(timing.epochs[1:]))
    print("| later epoch | s | times the limit |")
    print("| --- | --- | --- |")
    for name, times in found.items():
        print(f"| {name} | {spread(times)} | {spread(ratios(times, found['limit']))} |")


if __name__ == "__main__":
    main()

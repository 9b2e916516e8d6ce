"""Fine-tuning a whole network: against a plain loop, and against the arithmetic alone.

    python -m tests.benchmarks.fine_tune [--pictures 320] [--epochs 3] [--repeats 3]

The epochs are compared without the first one, `everything` with the process's start and the first
decoding. What the loops are is in `loops.py`.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.common import make_pictures, ratios, spread
from tests.benchmarks.loops import Timing, apart, initial_weights, limit, ours, reference


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[Timing]] = {"reference": [], "ours": [], "limit": []}
    for seed in range(given.repeats):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make_pictures(folder / "data", given.pictures)
            initial_weights(folder / "start.pt")
            found["reference"].append(apart(reference, folder, given.epochs))
            found["ours"].append(ours(folder, given.epochs, f"--seed={seed}"))
            found["limit"].append(apart(limit, folder, given.epochs))
    epoch = {k: [statistics.median(t.epochs[1:]) for t in times] for k, times in found.items()}
    whole = {k: [t.whole for t in times] for k, times in found.items()}
    print("| loop | an epoch, s | everything, s | mean squared error of validation |")
    print("| --- | --- | --- | --- |")
    for name, times in found.items():
        losses = spread([t.loss for t in times], 3)
        print(f"| {name} | {spread(epoch[name])} | {spread(whole[name])} | {losses} |")
    faster = spread(ratios(epoch["reference"], epoch["ours"]))
    print(f"times the reference's speed: an epoch {faster},", end=" ")
    print(f"everything {spread(ratios(whole['reference'], whole['ours']))}")
    print(f"of the limit's speed: an epoch {spread(ratios(epoch['limit'], epoch['ours']))}")


if __name__ == "__main__":
    main()

"""What the trial store costs for each trial, in sweeps of 100, 1,000 and 10,000 trials.

    python -m tests.benchmarks.store_scale [--trials 100 1000 10000] [--repeats 3]

Two workers take turns; a third process looks at the store as the engine does. Nothing is trained.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from deep_cnn.results import EpochRecord
from tests.benchmarks.common import ratios, spread
from tests.sweep.run.test_store import SWEEP, Hooked, Worker, open_sweep

EPOCHS = 3


def cost(count: int) -> tuple[float, float, float]:
    """Return CPU ms, operations of the worker that runs it, and of each other, for each trial."""
    with tempfile.TemporaryDirectory() as place:
        text = SWEEP.replace("run_cap: 3", f"run_cap: {count}")
        sweep = open_sweep(Path(place), text)
        operations: Counter[str] = Counter()
        workers = [
            Worker(sweep.config, Hooked(lambda name, i=i: operations.update([i]))) for i in "ab"
        ]
        history = tuple(EpochRecord(i, 0.1, {"loss_val": 1 / (i + 1)}) for i in range(EPOCHS))
        run = seen = in_files = 0.0
        begun = time.process_time()
        for number in range(count):
            worker, name = workers[number % 2], "ab"[number % 2]
            before = operations[name]
            claim = worker.take()
            assert claim is not None
            started = time.process_time()
            files = worker.begin(claim)
            in_files += time.process_time() - started  # What training writes is not the store's.
            for epoch in range(EPOCHS):
                worker._check_claim(claim)
                worker.search.stop_reason(claim.trial.number, history[: epoch + 1])
            worker.end(claim, files, epochs=0)
            run += operations[name] - before
            other, other_name = workers[1 - number % 2], "ba"[number % 2]
            before = operations[other_name]
            other.search.look()
            seen += operations[other_name] - before
            sweep.store.look()
            sweep.store.changes()
        cpu = time.process_time() - begun - in_files
        return 1e3 * cpu / count / 3, (run / count), seen / count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    costs: dict[int, list[tuple[float, float, float]]] = {count: [] for count in given.trials}
    for _ in range(given.repeats):
        for count in given.trials:
            costs[count].append(cost(count))
    first = [cpu for cpu, _, _ in costs[given.trials[0]]]
    print(
        "| trials | CPU ms per trial and process | times the first row | operations, own | other |"
    )
    print("| --- | --- | --- | --- | --- |")
    for count, found in costs.items():
        times = [cpu for cpu, _, _ in found]
        own, other = found[0][1:]
        print(
            f"| {count:,} | {spread(times)} | {spread(ratios(times, first))} |"
            f" {own:.1f} | {other:.1f} |"
        )


if __name__ == "__main__":
    main()

"""Choose the one pilot that ends a sweep: it runs the repeats and the refit, and prints the end."""

import json
from collections.abc import Callable, Sequence

from deep_cnn.sweep.run.engine import LocalSweep
from deep_cnn.sweep.run.records import Trial
from deep_cnn.sweep.run.writer import Writer


def end_once(
    sweep: LocalSweep, trials: Sequence[Trial], what: str, end: Callable[[], int]
) -> int | None:
    """Call `end` in one of the pilots of a sweep, and return its exit status, or None elsewhere.

    The file `end.k` names the pilot that does it. If that one dies or is interrupted, the next
    pilot does it again. Afterwards `ended.json` says what was done.

    Args:
        sweep: The sweep; its trials are over, or were given up.
        trials: The trials.
        what: The options that say what belongs to the end.
        end: Does it, and may be called again after it was interrupted.
    """
    store, path = sweep.store, sweep.config.folder / "ended.json"
    states = [(trial.number, trial.state) for trial in trials]
    text = json.dumps({"end": what, "trials": len(states), "states": dict(states)})
    right = Writer(store.io, sweep.config.folder, store.owners, is_pilot=True, kind="end")

    def is_done() -> bool:
        return store.io.read(path) == text.encode()

    try:
        # The other pilot may have come to its end between the two looks.
        if is_done() or not right.take() or is_done():
            return None
        with right.renewed():
            status = end()
        if sweep.options.stop.signum is None:
            store.io.replace(path, text)
        return status
    finally:
        right.release()

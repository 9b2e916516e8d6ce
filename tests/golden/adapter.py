"""Call what is inside of deep_cnn: the only place to change when that is rebuilt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deep_cnn import fetch, names
from deep_cnn.argv import parse_run
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.data.array_cache import fingerprint
from deep_cnn.errors import DeepCnnError
from deep_cnn.report import verb as report
from deep_cnn.resolve import resolve
from deep_cnn.sweep import verbs
from deep_cnn.sweep.run.identity import SweepRecord
from deep_cnn.sweep.run.store import FolderStore
from deep_cnn.sweep.search.propose import Observation, propose
from deep_cnn.sweep.spec import values
from deep_cnn.sweep.spec.parse import read_sweep

# Raised for every mistake of a user; its text begins with the option where one is at fault.
Refused = DeepCnnError


def option_tables() -> dict[str, dict[str, tuple[type, Any, tuple[str, ...]]]]:
    """Tell type, default and choices of each option, by verb; training is `train TASK`."""
    tables: dict[str, Mapping[str, Any]] = {
        f"train {task}": all_options(task) for task in names.TASKS
    }
    models = {**verbs.OPTIONS, **report.OPTIONS, **fetch.OPTIONS}
    tables |= {verb: model.table() for verb, model in models.items()}
    return {
        verb: {name: (flag.kind, flag.default, flag.choices) for name, flag in table.items()}
        for verb, table in tables.items()
    }


def given_options(argv: Sequence[str], *, sweep: bool = False) -> dict[str, Any]:
    """Tell the options that a training command line changes from the task's defaults."""
    return resolve(TrainConfig.parse(parse_run(argv, from_agent=sweep))).delta()


def next_point(file: Path, seed: int, seen: Sequence[tuple[Mapping[str, Any], Any, bool]]) -> Any:
    """Tell what the search of a sweep file tries after (point, value or None, failed) trials."""
    proposal = propose(read_sweep(file), seed, [Observation(*one) for one in seen])
    return proposal and proposal.point


def stored_trials(folder: Path) -> list[tuple[Mapping[str, Any], str, Any]]:
    """Tell (point, state, value or None) of each trial in the folder of a sweep, by number."""
    store = FolderStore(folder)
    store.open(lambda known: known or SweepRecord({}, 0))  # It moves files of earlier versions.
    return [
        (trial.point or {}, trial.state, trial.outcome.value if trial.outcome else None)
        for trial in store.trials()
    ]


def canonical_key(point: Mapping[str, Any]) -> str:
    """Tell the text that is the same for two points when they are the same configuration."""
    return values.canonical_key(point)


def cache_key(parts: Sequence[Any]) -> str:
    """Tell the fingerprint under which the cache keeps what is made of these parts."""
    return fingerprint(parts)

"""Run what W&B's server asks for: a trial of a sweep that is kept there."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deep_cnn.config import TrainConfig
from deep_cnn.errors import DeepCnnError
from deep_cnn.runs import RunFiles, RunResult, claim_run, safe_name
from deep_cnn.sweep.objective import record_failure, run_trial
from deep_cnn.writing import write_text

# Where results go, whatever else was given.
_PLACE = ("root_dir", "out_dir", "wandb")


def run_served(
    config: TrainConfig,
    sweep: Mapping[str, Any],
    signalled: Callable[[], int | None],
    remote: Mapping[str, Any] | None = None,
) -> RunResult:
    """Run `config` as the trial `sweep`, `{name, trial}`: W&B's ids of the sweep and of the run.

    A run that the server asks for again goes on from its checkpoint. SIGTERM ends it as stopped.
    A DeepCnnError is told to the server, and raised.
    """
    note = _note(config.out_path, sweep)
    config = config.replace(run_name=config.run_name or config.short_name())
    return run_trial(
        config,
        sweep,
        _named(note),
        lambda name: write_text(note, name + "\n"),
        signalled,
        sigterm_stops=True,
        remote=remote,
    )


def report_failure(
    given: Mapping[str, Any],
    sweep: Mapping[str, Any],
    error: str,
    remote: Mapping[str, Any] | None = None,
) -> None:
    """Mark the trial as failed on the server where what was given makes no configuration."""
    kept = {name: value for name, value in given.items() if name in _PLACE}
    with suppress(DeepCnnError):  # The error itself is what its user must see.
        config = TrainConfig.parse(
            {**kept, "task": "digits", "run_name": f"failed-{sweep['trial']}"}
        )
        record_failure(config, claim_run(config), sweep, error, remote, flags=given)


def report_death(
    config: TrainConfig, sweep: Mapping[str, Any], error: str, remote: Mapping[str, Any]
) -> None:
    """Mark the trial as failed, on the server and here, whose process died while it ran."""
    files = RunFiles(config.out_path, _named(_note(config.out_path, sweep)) or config.short_name())
    with suppress(DeepCnnError):
        record_failure(config.replace(run_name=files.name), files, sweep, error, remote)


def _note(out: Path, sweep: Mapping[str, Any]) -> Path:
    """Where the name of a trial's run is kept, so that the same trial finds its checkpoint."""
    return out / "sweeps" / safe_name(str(sweep["name"])) / f"{safe_name(str(sweep['trial']))}.run"


def _named(note: Path) -> str | None:
    try:
        return note.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None

"""Run a trial that W&B's server has assigned, and report failures."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deep_cnn.config import TrainConfig, format_options
from deep_cnn.errors import DeepCnnError
from deep_cnn.files import RunFiles, claim_run, safe_name, write_text
from deep_cnn.results import RunResult, SweepTrial
from deep_cnn.sweep.run.trial import TrialRun, record_failure, run_trial
from deep_cnn.tracking import RemoteRun
from deep_cnn.training.stop import StopToken

# The options that say where results go; they count even if another option is wrong.
_OUTPUT_OPTIONS = ("root_dir", "out_dir", "wandb")


def run_assigned(
    config: TrainConfig,
    sweep: SweepTrial,
    stop: StopToken,
    remote: RemoteRun | None = None,
    searched: Sequence[str] | None = None,
) -> RunResult:
    """Run the trial `sweep`: W&B's ids of the sweep and of the run.

    Its name consists of the options that are `searched`; None: ask W&B's server for them.
    If the server assigns a run again, it continues from its checkpoint. SIGTERM ends it as stopped.

    Raises:
        DeepCnnError: The run failed; it is marked as failed on the server.
    """
    path = _run_name_file(config.out_path, sweep)
    name = _read_run_name(path)
    if name is None:
        if searched is None and not config.run_name:
            from deep_cnn.sweep.wandb_agent.api import (
                searched_by,
            )  # W&B's client is slow to import.

            searched = searched_by(config, sweep)
        options = config.to_dict()
        varied = {key: options[key] for key in searched or () if key in options}
        named = config.replace(
            run_name=config.run_name or format_options(varied) or config.short_name()
        )
        files = claim_run(named)
        write_text(path, files.name + "\n")
    else:
        files = RunFiles(config.out_path, name)
    return run_trial(TrialRun(config, sweep, files, stop.final_on_sigterm(), remote))


def report_failure(
    options: Mapping[str, Any], sweep: SweepTrial, error: str, remote: RemoteRun | None = None
) -> None:
    """Mark the trial as failed on the server if its `options` are not legal."""
    output = {name: value for name, value in options.items() if name in _OUTPUT_OPTIONS}
    with suppress(DeepCnnError):  # The error itself is what its user must see.
        config = TrainConfig.parse(
            {**output, "task": "digits", "run_name": f"failed-{sweep.trial}"}
        )
        record_failure(config, claim_run(config), sweep, error, remote, options=options)


def report_death(config: TrainConfig, sweep: SweepTrial, error: str, remote: RemoteRun) -> None:
    """Mark a trial as failed, on the server and on disk, after its process has died."""
    run_name = _read_run_name(_run_name_file(config.out_path, sweep)) or config.short_name()
    files = RunFiles(config.out_path, run_name)
    with suppress(DeepCnnError):
        record_failure(config.replace(run_name=files.name), files, sweep, error, remote)


def _run_name_file(out: Path, sweep: SweepTrial) -> Path:
    """Return the file that holds a trial's run name, with which it finds its checkpoint again."""
    return out / "sweeps" / safe_name(sweep.name) / f"{safe_name(str(sweep.trial))}.run"


def _read_run_name(path: Path) -> str | None:
    try:
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return name if name and safe_name(name) == name else None

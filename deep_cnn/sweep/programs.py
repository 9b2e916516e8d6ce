"""Check and describe sweeps whose command runs another program than deep_cnn."""

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from deep_cnn.errors import ConfigError
from deep_cnn.files import safe_name
from deep_cnn.options import SWITCH_VALUES
from deep_cnn.sweep.options import SharedSweepOptions, SweepOptions
from deep_cnn.sweep.run.program.environment import (
    Attempt,
    ProgramOptions,
    program_command,
    program_environment,
)
from deep_cnn.sweep.spec.command import DEEP_CNN_COMMAND, expand
from deep_cnn.sweep.spec.parse import read_unchecked
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.tracking.access import access_of

# The number of command lines that --dry_run prints.
_SHOWN = 5


def program_options(
    file: Path, options: SharedSweepOptions, constants: Mapping[str, str]
) -> tuple[ProgramOptions, Mapping[str, str]]:
    """Return how the programs of a file are run, and the options that are not about that.

    Raises:
        ConfigError: An option is for other programs, or does not fit to another.
    """
    spec = read_unchecked(file)
    if spec is None:
        return ProgramOptions(), constants
    if spec.runs_deep_cnn:
        if options.metric_file is not None:
            raise ConfigError("--metric_file is for other programs than deep_cnn; remove it")
        return ProgramOptions(), constants
    if options.metric_file and "$" not in options.metric_file and (options.workers or 1) > 1:
        raise ConfigError(
            f"--metric_file={options.metric_file} is one file for {options.workers} programs at"
            " a time; name one for each, such as --metric_file='log/$WANDB_RUN_ID.csv'"
        )
    others = {name: value for name, value in constants.items() if name != "wandb"}
    online = SWITCH_VALUES.get(constants.get("wandb", "false").lower()) is True
    if online:
        access_of(True, os.environ)  # Otherwise each program would fail.
    return ProgramOptions(online, options.metric_file), others


def program_problem(spec: SweepSpec, options: SharedSweepOptions) -> str | None:
    """Return why a sweep of programs cannot run from here with these options, or None."""
    if options.refit:
        return "--refit trains deep_cnn; leave it out for another program"
    program = str(spec.content.get("program") or "")
    if isinstance(options, SweepOptions) and (word := _missing_command(spec)):
        return f"{word}, with which the command begins, is not on PATH; correct one of them"
    if "${program}" in spec.command:
        if not program:
            return f"no program to run; add program: FILE.py, or for deep_cnn {DEEP_CNN_COMMAND}"
        before = spec.command[spec.command.index("${program}") - 1]
        is_module = before == "-m" or (Path(program) / "__main__.py").is_file()
        if Path(program).is_dir() and not is_module:
            return f"program {program} is a folder; name a file"
        if program.endswith(".py") and before != "-m" and not Path(program).is_file():
            return (
                f"program {program} is not in {Path.cwd()}, where this command was given; give it"
                " in the folder in which `wandb agent` would be started"
            )
    return None


def _missing_command(spec: SweepSpec) -> str | None:
    """Return the first word of the command if no program of this name can be started."""
    words = expand(spec.command, str(spec.content.get("program") or ""), {})
    word = words[0] if words else ""
    return word if word and shutil.which(word) is None else None


def describe_programs(spec: SweepSpec, out: Path, seed: int, options: ProgramOptions) -> list[str]:
    """Return the first command lines and what is added to the environment, as --dry_run shows."""
    folder = out / "sweeps" / safe_name(spec.name)
    attempt = Attempt(0, 0, "SWEEP_ID", folder, out, folder / "work" / "00000.0")
    points = first_points(spec, seed, _SHOWN)
    commands = (program_command(spec, p, attempt, hides_variables=True) for p in points)
    lines = list(map(shlex.join, commands))
    before = dict(os.environ)
    after = program_environment(spec, attempt, options, before)
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    changed["WANDB_RUN_ID"] = "RUN_ID"
    lines += ["", "# with these variables in the environment:"]
    if "WANDB_API_KEY" in changed:
        changed["WANDB_API_KEY"] = "***"
    lines += [f"{name}={shlex.quote(value)}" for name, value in sorted(changed.items())]
    if options.metric_path(after) is not None:
        lines.append(f"# the metric is read from {options.metric_path(changed)}")
    return lines

"""Describe a job for a cluster, whichever scheduler gets it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deep_cnn.errors import ConfigError

# The warning before the end of the walltime, in seconds: time for an epoch to be saved.
WARNING = 300
_WALLTIME = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")
_MEMORY = re.compile(r"([1-9]\d*)([kmgt])b?", re.IGNORECASE)
_JOBS = re.compile(r"([1-9]\d*)(?:%([1-9]\d*))?")
# What may stand in a directive or a command without quotes.
_WORD = re.compile(r"[A-Za-z0-9_][\w.@/+-]*")


@dataclass(frozen=True, slots=True)
class Environment:
    """The Python environment that a job uses.

    Attributes:
        prefix: Its folder.
        kind: venv, conda or system.
        base: The folder of conda itself, if that is known.
        python: The command that runs its Python once it is active.
    """

    prefix: Path
    kind: str
    base: Path | None = None
    python: str = "python"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job of a cluster, or an array of jobs that all run the same command.

    Attributes:
        name: The sweep or the run.
        command: The arguments after `python -m deep_cnn`.
        folder: The folder for the script and for what the jobs print.
        progress: A file or folder with the checkpoints that the jobs write.
        environment: The Python environment.
        jobs: The number of jobs.
        at_once: How many of them may run at once, or None for all.
        walltime: The longest duration in seconds, or None for the cluster's own limit.
        gpus, gpu_type, cpus: The GPUs and cores of each job.
        memory: A number and its unit, K, M, G or T, or None for the cluster's own.
        queue: The queue of PBS, or the partition of Slurm.
        modules: The modules to load.
        variables: What the jobs find in their environment.
        wandb_hosts: The servers whose key jobs look for in ~/.netrc; (): they need none.
        checkpoint: The last checkpoint of a single run, from which it continues.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    progress: Path
    environment: Environment
    jobs: int = 1
    at_once: int | None = None
    walltime: int | None = None
    gpus: int = 0
    gpu_type: str | None = None
    cpus: int = 1
    memory: tuple[int, str] | None = None
    queue: str | None = None
    modules: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    wandb_hosts: tuple[str, ...] = ()
    checkpoint: Path | None = None

    @property
    def warning(self) -> int:
        """How many seconds before the end of the walltime a job is warned."""
        return WARNING if self.walltime is None else min(WARNING, self.walltime // 2)


def parse_walltime(text: str) -> int:
    """Return the seconds of `HH:MM:SS`; raise ConfigError."""
    match = _WALLTIME.fullmatch(text)
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]) if match else 0
    if seconds == 0:
        raise ConfigError(f"--walltime={text} is not HH:MM:SS, as in --walltime=24:00:00")
    return seconds


def parse_memory(text: str) -> tuple[int, str]:
    """Return the number and the unit of `24gb` or `24G`; raise ConfigError."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ConfigError(f"--mem={text} is not a whole number with a unit, as in --mem=24gb")
    return int(match[1]), match[2].upper()


def parse_jobs(text: str) -> tuple[int, int | None]:
    """Return the number of jobs and how many may run at once, of `8` or `8%4`; ConfigError."""
    match = _JOBS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--jobs={text} is not a number of jobs; write --jobs=8, or --jobs=8%4 for at most four"
            " at once"
        )
    return int(match[1]), int(match[2]) if match[2] else None


def parse_queue(text: str) -> str:
    """Return the name of a queue, or of several partitions of Slurm with commas; ConfigError."""
    return ",".join(parse_word(name, "queue") for name in text.split(","))


def parse_word(text: str, option: str) -> str:
    """Return the name of a queue, a GPU or a module; raise ConfigError for other characters."""
    if not _WORD.fullmatch(text):
        raise ConfigError(f"--{option}={text} is no name: it has a space or another such character")
    return text

"""Call the commands of PBS and Slurm, and keep a list of the jobs of a sweep."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from deep_cnn.errors import ConfigError, OutputError
from deep_cnn.files import unwritable
from deep_cnn.text import printable

_SUBMIT = {"pbs": ["qsub"], "slurm": ["sbatch", "--parsable", "--export=NONE"]}
SHOW = {"pbs": ["qstat", "-t"], "slurm": ["squeue", "--array", "--states=all", "--jobs"]}
CANCEL = {"pbs": ["qdel"], "slurm": ["scancel"]}
# The schedulers' words for a job that is over.
_OVER = re.compile(r"unknown|invalid job id|finished|completed", re.IGNORECASE)
_LINE = re.compile(r"(pbs|slurm),(\d[\w.@\[\]-]*),(\d+),(\d+)")
# Credentials stay here, also where a site sets -V or --export=ALL for all jobs.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A line of the list of jobs: the job, and what its pilots were started with."""

    scheduler: str
    job: str
    jobs: int
    retries: int


def submit_script(scheduler: str, script: Path) -> str:
    """Submit a script and return the id of its job; raise ConfigError."""
    done = _call([*_SUBMIT[scheduler], str(script)])
    lines = done.stdout.strip().splitlines() or [""]
    job = lines[-1].strip() if scheduler == "pbs" else "".join(re.findall(r"\d+", lines[-1])[:1])
    if done.returncode != 0 or not job:
        raise ConfigError(
            f"{_SUBMIT[scheduler][0]} refused {script}: {_reason(done)}; change the options that it"
            " names, or ask the cluster's administrators what it allows"
        )
    return job


def ask(commands: Mapping[str, Sequence[str]], submission: Submission) -> str | None:
    """Return what a command of SHOW or CANCEL prints about a job, or None if the job is over.

    Raises:
        ConfigError: The command fails; the message has its reason.
    """
    done = _call([*commands[submission.scheduler], submission.job])
    if done.returncode != 0 and not _OVER.search(done.stderr):
        raise ConfigError(_reason(done))
    return done.stdout.strip("\n") if done.returncode == 0 else None


def secret_in(text: str) -> str | None:
    """Return the variable of this process whose secret value a text contains, if any does."""
    # A path is none, even if a variable such as KEY_FOLDER names it.
    values = {k: v for k, v in os.environ.items() if _SECRET.search(k) and not v.startswith("/")}
    return next((k for k, v in values.items() if len(v) >= _SHORTEST_SECRET and v in text), None)


def note_submission(path: Path, submission: Submission | None) -> None:
    """Append a job to a list of jobs, or only make the list; raise OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = "" if path.exists() else f"{','.join(field.name for field in fields(Submission))}\n"
        if submission is not None:
            line += f"{','.join(map(str, astuple(submission)))}\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise unwritable(path, error) from error


def read_submissions(path: Path) -> list[Submission]:
    """Return the jobs of a list, without lines that are damaged; raise OutputError."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror})") from None
    found = (match for line in lines if (match := _LINE.fullmatch(line)))
    return [Submission(one[1], one[2], int(one[3]), int(one[4])) for one in found]


def _call(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    environ = {k: v for k, v in os.environ.items() if not _SECRET.search(k)}
    try:
        return subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except FileNotFoundError:
        raise ConfigError(
            f"{command[0]} is not on this machine; log in to a node of the cluster that has it"
            " (--dry_run prints the script anywhere)"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]} does not answer ({error}); try again later") from None


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return printable(lines[-1] if lines else f"status {done.returncode}")

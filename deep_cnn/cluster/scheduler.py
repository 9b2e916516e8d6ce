"""Call the commands of PBS and Slurm, and keep a list of the jobs of a sweep."""

import csv
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from pathlib import Path

from deep_cnn.errors import ConfigError
from deep_cnn.files import unwritable
from deep_cnn.text import printable

_SUBMIT = {"pbs": ["qsub"], "slurm": ["sbatch", "--parsable", "--export=NONE"]}
_SHOW = {"pbs": ["qstat", "-t"], "slurm": ["squeue", "--array", "--states=all", "--jobs"]}
_CANCEL = {"pbs": ["qdel"], "slurm": ["scancel"]}
# The schedulers' words for a job that is over.
_OVER = re.compile(r"unknown|invalid job id|finished|completed|no longer", re.IGNORECASE)
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


def show(submission: Submission) -> str | None:
    """Return the scheduler's own lines about a job, or None if the job is over."""
    done = _call([*_SHOW[submission.scheduler], submission.job])
    text = done.stdout.strip("\n")
    if done.returncode == 0:
        return text if len(text.splitlines()) > 1 else None
    if _OVER.search(done.stderr):
        return None
    return _reason(done)


def cancel(submission: Submission) -> str | None:
    """Cancel a job; return None, or the reason why it could not be cancelled."""
    done = _call([*_CANCEL[submission.scheduler], submission.job])
    return _reason(done) if done.returncode != 0 else None


def is_over(reason: str) -> bool:
    """Return whether a scheduler's message says that the job is over."""
    return _OVER.search(reason) is not None


def secret_in(text: str) -> str | None:
    """Return the variable of this process whose secret value a text contains, if any does."""
    secrets = {k: v for k, v in os.environ.items() if _SECRET.search(k)}
    return next((k for k, v in secrets.items() if len(v) >= _SHORTEST_SECRET and v in text), None)


def note_submission(path: Path, submission: Submission | None) -> None:
    """Append a job to a list of jobs, or only make the list; raise OutputError."""
    row = StringIO()
    writer = csv.writer(row, lineterminator="\n")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size == 0:
            writer.writerow(field.name for field in fields(Submission))
        if submission is not None:
            writer.writerow(asdict(submission).values())
        with path.open("a", encoding="utf-8") as file:
            file.write(row.getvalue())
    except OSError as error:
        raise unwritable(path, error) from error


def read_submissions(path: Path) -> list[Submission]:
    """Return the jobs of a list, without lines that are damaged; none if there is no list."""
    try:
        rows = list(csv.DictReader(StringIO(path.read_text(encoding="utf-8", errors="replace"))))
    except (OSError, csv.Error):
        return []
    submissions = []
    for row in rows:
        try:
            one = Submission(row["scheduler"], row["job"], int(row["jobs"]), int(row["retries"]))
        except (KeyError, TypeError, ValueError):
            continue
        if one.scheduler in _SUBMIT and not one.job.startswith("-"):
            submissions.append(one)
    return submissions


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

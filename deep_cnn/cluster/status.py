"""Show and cancel the jobs of a sweep or a run."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deep_cnn.cluster.scheduler import CANCEL, SHOW, Submission, ask, read_submissions
from deep_cnn.errors import ConfigError, choose_from
from deep_cnn.files import safe_name
from deep_cnn.streams import required_stdout
from deep_cnn.sweep.run.owner import Owner
from deep_cnn.sweep.run.records import Trial, read_record
from deep_cnn.sweep.run.store import FolderStore, lease_seconds
from deep_cnn.sweep.run.submitted import SUBMITTED
from deep_cnn.sweep.spec.parse import read_unchecked
from deep_cnn.sweep.verbs import base_out
from deep_cnn.text import printable


def list_of_jobs(out: Path, name: str, *, is_sweep: bool) -> Path:
    """Return the file with the jobs of a sweep or a run."""
    return out / "sweeps" / name / SUBMITTED if is_sweep else out / "jobs" / f"{name}.{SUBMITTED}"


def show_status(name: str, out_dir: str | None) -> int:
    """Print the jobs of a sweep or a run, and the trials of a sweep."""
    path, submissions = _find(name, out_dir)
    lines = []
    for submission in submissions:
        try:
            text = ask(SHOW, submission) or ""
        except ConfigError as error:  # The trials can be shown without the scheduler.
            text = f"job {submission.job}: {error}"
        # Of a job that is over, there is at most the head of a table.
        rows = text.splitlines() if submission.job.partition("[")[0] in text else []
        lines.append(f"{_name(submission)}:{'' if rows else ' over'}")
        lines += [f"  {row}" for row in rows]
    if path.name == SUBMITTED:
        retries = submissions[-1].retries if submissions else 1
        lines += _trials(FolderStore(path.parent, retries=retries, lease=lease_seconds()))
    with required_stdout():
        print("\n".join(map(printable, lines)))
    return 0


def cancel_jobs(name: str, out_dir: str | None) -> int:
    """Cancel the jobs of a sweep or a run; they save before they end."""
    path, submissions = _find(name, out_dir)
    status = 0
    for submission in submissions:
        try:
            text = "was over" if ask(CANCEL, submission) is None else "cancelled"
        except ConfigError as error:
            text, status = f"not cancelled ({error})", 1
        print(printable(f"{_name(submission)}: {text}"))
    if path.name == SUBMITTED:
        text = "the same submit command again runs what is left"
        print(printable(f"{path.parent.name}: {text}"), file=sys.stderr)
    return status


def _find(name: str, out_dir: str | None) -> tuple[Path, list[Submission]]:
    """Return the list of jobs of a sweep, by its name or its file, or of a run; ConfigError."""
    out = Path(out_dir or "outputs")
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        spec = read_unchecked(Path(name))
        if spec is not None:
            name = spec.name
            with suppress(ConfigError):  # A wrong command.
                out = Path(out_dir) if out_dir else base_out(spec)
    for is_sweep in (True, False):
        path = list_of_jobs(out, safe_name(name), is_sweep=is_sweep)
        if path.exists():
            return path, read_submissions(path)
    there = [folder.parent.name for folder in out.glob(f"sweeps/*/{SUBMITTED}")]
    way = choose_from(name, there) if there else "--out_dir names another folder for results"
    raise ConfigError(f"{out} has no jobs of {name!r}; {way}")


def _name(submission: Submission) -> str:
    count = f", {submission.jobs} jobs" if submission.jobs > 1 else ""
    return f"{submission.scheduler} {submission.job}{count}"


def _trials(store: FolderStore) -> list[str]:
    """Return lines with the number of trials in each state, and those that run or have failed."""
    trials = store.trials()
    states = Counter(trial.state for trial in trials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"{store.folder.name}: {len(trials)} trials{', ' if counts else ''}{counts}"]
    unfinished = [trial for trial in trials if trial.state not in ("finished", "stopped")]
    if unfinished:
        lines.append(f"{'trial':>6}  {'state':<12}  {'job':<16}  machine")
    return lines + [_row(store, trial) for trial in unfinished]


def _row(store: FolderStore, trial: Trial) -> str:
    claim = store.io.read(store.path(trial.number, f"claim.{trial.claim}"))
    owner = read_record(Owner, claim)
    where: Sequence[str] = ("", "")
    if owner is not None:
        where = (owner.job or f"process {owner.pid}", owner.host.partition("/")[0])
    return f"{trial.number:>6}  {trial.state:<12}  {where[0]:<16}  {where[1]}".rstrip()

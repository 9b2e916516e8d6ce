"""Send to W&B what it lacks of a run that is over."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb
from wandb.errors import CommError

from deep_cnn.errors import DeepCnnError
from deep_cnn.files import RunFiles
from deep_cnn.results import RunResult, State
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.base import Start, WandbRun
from deep_cnn.tracking.files import change_result
from deep_cnn.tracking.journal import Journal, digest_of, new_run_id, summary_of
from deep_cnn.tracking.wandb_client import (
    FINISH_TIMEOUT,
    WandbClient,
    add_checkpoint,
    define_metrics,
    finish,
)
from deep_cnn.tracking.wandb_file import Media, folder_of, read_media
from deep_cnn.tracking.wandb_server import Received, probe, query_sweep, wait_until_visible

# The lowest rate at which a checkpoint is uploaded, in bytes/s.
SLOWEST = 2.0**19
# Until the server accepts a checkpoint, in seconds; here, nothing else waits.
_PATIENCE = 30.0
# What the client says when the server takes no key.
_REFUSED = re.compile(r"not logged in|401|403|unauthori[sz]ed|permission", re.IGNORECASE)
# These belong to the process of the user, who may have started it in a run.
_OF_OTHER_RUNS = (
    "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RESUME", "WANDB_NAME",
    "WANDB_SERVICE",
)  # fmt: skip


class UploadError(DeepCnnError):
    """A run of which W&B still lacks something."""


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that is over.

    Attributes:
        files: Its files.
        result: Its result.
        title: What W&B displays instead of its name.
        before: The run on W&B that it was logged to by a version that kept no journal.
    """

    files: RunFiles
    result: RunResult
    title: str | None = None
    before: WandbRun | None = None


def prepare() -> None:
    """Prepare this process for uploads; raise OSError if no server answers."""
    for name in _OF_OTHER_RUNS:
        os.environ.pop(name, None)
    wandb.setup(wandb.Settings(silent=True))
    probe()


def upload_run(run: FinishedRun, access: Access, *, full: bool = False) -> str | None:
    """Send what W&B lacks of a run; return a description of it, or None if W&B lacks nothing.

    With `full`, a run of which W&B lacks rows before its last step is uploaded as another run.
    Raises UploadError.
    """
    try:
        return _upload(run, access, full=full)
    except DeepCnnError:
        raise
    except Exception as error:  # The client's are many kinds.
        reason = redacted(str(error) or type(error).__name__, access)
        first = "check WB_KEY or `wandb login`, then " if _REFUSED.search(reason) else ""
        raise UploadError(
            f"{reason}; the files have everything, {first}repeat the command"
        ) from None


def _upload(run: FinishedRun, access: Access, *, full: bool) -> str | None:
    files, result = run.files, run.result
    rows, values = _read_rows(files.table), {**summary_of(result), **(result.test or {})}
    setting = result.config.get("wandb_artifacts") or ("none" if result.sweep else "best")
    has_artifact = setting == "best" and result.best is not None and files.best.exists()
    content = {"rows": len(rows), "summary": digest_of(values)}
    if has_artifact:
        content["artifact"] = digest_of(files.best)
    journal = _journal(run, access)
    if not result.unsynced and all(getattr(journal, k) == v for k, v in content.items()):
        return None
    journal = journal.write(files)
    account = replace(access, project=journal.project, entity=journal.entity)
    received = wait_until_visible(account, journal, patiently=True)
    if problem := _gap(journal, rows, received):
        other = f"{journal.run_id}-full"
        if not full:
            raise UploadError(f"{problem}; --full uploads the run as another one, {other}")
        journal = replace(
            journal, run_id=other, sweep_id=None, contact=None, rows=0, summary=None, artifact=None
        )
    journal.opened().write(files)
    session = _Session(run, account, journal)
    try:
        is_known = content.get("artifact", journal.artifact) == journal.artifact
        session.send(rows, values, is_known=is_known)
    finally:  # Without a session, nothing was sent.
        (session.journal.opened() if session.is_open else journal).write(files)
    session.journal.closed(**content).write(files)
    change_result(files, lambda known: replace(known, unsynced=()))
    return session.description


def _journal(run: FinishedRun, access: Access) -> Journal:
    """Return the journal of a run, or a new one if it is not on this server."""
    server = str(wandb.setup().settings.base_url)
    kept = Journal.read(run.files)
    if kept and kept.server == server and kept.contact is not None:
        return kept
    project, run_id, sweep = access.project, new_run_id(), run.result.sweep
    if kept:
        run_id = kept.run_id
    elif sweep and isinstance(sweep.trial, str):  # W&B's server has chosen it.
        run_id = sweep.trial
    elif run.before:
        project, run_id = run.before.project or project, run.before.id
    sweep_id = sweep.name if sweep and isinstance(sweep.trial, str) else None
    title = run.title or run.files.name
    return Journal(server, project, run_id, access.entity, title, sweep_id)


def _gap(journal: Journal, rows: Sequence[Mapping[str, Any]], received: Received) -> str | None:
    """Return what W&B lacks that can no longer be added to its run, if anything."""
    if received.lines < journal.rows:
        text = f"W&B shows {received.lines} of the {journal.rows} rows that it has taken"
        return f"{text}; repeat the command later"
    lacks = sum(row["epoch"] <= received.last_step for row in rows) - received.lines
    if lacks <= 0:
        return None
    return f"W&B lacks {lacks} rows before its last step {received.last_step}, and takes none there"


class _Session:
    """One opening of a run on W&B, in which all that it lacks is sent."""

    def __init__(self, run: FinishedRun, account: Access, journal: Journal) -> None:
        self.run, self.account, self.journal = run, account, journal
        self.description, self.is_open = "", False

    def send(
        self, rows: Sequence[dict[str, Any]], values: Mapping[str, Any], *, is_known: bool
    ) -> None:
        """Send the rows that W&B lacks, the summary and, unless it `is_known`, the checkpoint.

        Raises UploadError.
        """
        files, result = self.run.files, self.run.result
        folders = [folder_of(text, files) for text in result.unsynced]
        media = [read_media(folder) for folder in folders]
        with TemporaryDirectory(prefix="deep_cnn-", ignore_cleanup_errors=True) as root:
            run = self._open(root, 0 if is_known else files.best.stat().st_size)
            self.is_open, is_uploaded = True, None
            self.journal = replace(self.journal, entity=run.entity)
            try:
                define_metrics(run)
                count = _log_rows(run, rows, media)
                summary = {k: v for k, v in values.items() if v is not None or run.resumed}
                metrics = {k: v for k, v in result.metrics.items() if v is not None}
                pictures = {k: v for each in media for k, v in each.summary.items()}
                run.summary.update({**metrics, **pictures, **summary})
                _save_files(run, files, folders)
                if not is_known:
                    is_uploaded = add_checkpoint(run, files.best, result, patience=_PATIENCE)
            finally:
                is_failure = result.state in (State.FAILED, State.INTERRUPTED)
                problem = finish(run, int(is_failure), is_uploaded)
            if problem:
                raise UploadError(
                    f"W&B did not take everything ({redacted(problem, self.account)});"
                    " repeat the command"
                )
        texts = [f"{count} rows", *(["the checkpoint"] if is_uploaded else [])]
        self.description = f"{', '.join(texts)}: {run.url}"

    def _open(self, root: str, size: int) -> Any:
        """Open the run, in its sweep if the server knows it, because it would refuse another."""
        files, result = self.run.files, self.run.result
        client = WandbClient(self.account, result.sweep, None, lambda: None)
        start = Start(files, result.config)
        bound = FINISH_TIMEOUT + size / SLOWEST
        settings: dict[str, Any] = {
            "root_dir": root,
            "reinit": "create_new",
            "console": "off",
            "finish_timeout": float(os.environ.get("WANDB_FINISH_TIMEOUT") or bound),
            # The machine that uploads is not the one that trained.
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
        }
        if sweep := self.journal.sweep_id:
            with suppress(CommError):
                query_sweep(self.account, sweep)
                settings["sweep_id"] = sweep
        return client.init(start, self.journal, **settings)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of results/<run>.csv, or none if the run has not trained."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
            return [
                {k: int(v) if k == "epoch" else float(v) for k, v in row.items() if v}
                for row in rows
            ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UploadError(f"{path} is no table of a run ({error}); restore it") from None


def _log_rows(run: Any, rows: Sequence[dict[str, Any]], media: Sequence[Media]) -> int:
    """Log the rows from the first step that W&B lacks, and return their number."""
    missing = [row for row in rows if row["epoch"] >= run.starting_step]
    for row in missing:
        pictures = {k: v for each in media for k, v in each.steps.get(row["epoch"], {}).items()}
        run.log({**pictures, **row}, step=row["epoch"], commit=True)
    return len(missing)


def _save_files(run: Any, files: RunFiles, folders: Sequence[Path]) -> None:
    """Upload the files of pictures and tables under their names, and the tables of a test."""
    for folder in folders:
        base = folder / "files"
        for path in sorted((base / "media").rglob("*")):
            if path.is_file():
                run.save(str(path), base_path=str(base), policy="now", glob=False)
    for path in (files.predictions, files.confusion):
        if path.exists():
            run.save(str(path), base_path=str(path.parent), policy="now", glob=False)

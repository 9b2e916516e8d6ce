"""Hand runs of other programs that W&B lacks to `wandb sync`, each of them once."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from deep_cnn.errors import DeepCnnError
from deep_cnn.files import RunFiles, unwritable
from deep_cnn.results import RunResult
from deep_cnn.tracking.access import DEFAULT_PROJECT, Access, redacted
from deep_cnn.tracking.files import change_result
from deep_cnn.tracking.wandb_client import failed_upload
from deep_cnn.tracking.wandb_file import RecordFile, copy_without_sweep, folder_of
from deep_cnn.tracking.wandb_upload import SLOWEST

# What W&B's client names the project of a run if nothing names it.
_NO_PROJECT = "uncategorized"
_ERROR = re.compile(r"^wandb: (?:ERROR|WARNING) +(.*)$", re.MULTILINE)
# A server that is down is called again and again; this is the limit, in seconds, beside the data.
_PATIENCE = 120.0
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class SyncError(DeepCnnError):
    """A run that `wandb sync` did not upload."""


def sync_run(files: RunFiles, result: RunResult, access: Access) -> str | None:
    """Upload what W&B's client keeps of a trial, or return None if W&B lacks nothing of it.

    The copy that is uploaded has no sweep, because W&B's server does not know it. The group of the
    run is the name of the sweep.

    Raises:
        SyncError: W&B's client did not upload it.
        OutputError: The folder of W&B's runs cannot be written.
    """
    folders = [folder for text in result.unsynced if (folder := folder_of(text, files)).is_dir()]
    todo = [path for folder in folders for path in sorted(folder.glob("run-*.wandb"))]
    done = [path for path in todo if not _marker(path).exists()]
    for path in done:
        _sync(path, access)
    change_result(files, lambda known: replace(known, unsynced=()))
    return "with wandb sync" if done else None


def _marker(path: Path) -> Path:
    """Return the file that W&B's client makes beside the file of a run that it has uploaded."""
    return path.with_name(f"{path.name}.synced")


def _sync(path: Path, access: Access) -> None:
    # It stays until its original is marked: what a killed upload had sent is not sent again.
    copy = path.parents[1] / "copies" / path.parent.name / path.name
    try:
        if not _marker(copy).exists():
            rmtree(copy.parent, ignore_errors=True)
            copy.parent.mkdir(parents=True)
            (copy.parent / "files").symlink_to((path.parent / "files").resolve())
            copy_without_sweep(path, copy)
            _call(copy, access)
        _marker(path).touch()
        rmtree(copy.parent)
        with suppress(OSError):  # Others may be in it.
            copy.parents[1].rmdir()
    except OSError as error:
        raise unwritable(copy, error) from error


def _call(copy: Path, access: Access) -> None:
    """Run `wandb sync` for one file; raise SyncError if it did not upload it."""
    run = next((r.run for r in RecordFile(copy).read() if r.HasField("run")), None)
    if run is None:
        return  # Its program was killed before W&B's client wrote anything.
    words = [] if run.entity or not access.entity else [f"--entity={access.entity}"]
    if run.project in ("", _NO_PROJECT) and access.project != DEFAULT_PROJECT:
        words.append(f"--project={access.project}")
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *words, str(copy.parent)]
    size = sum(path.stat().st_size for path in (copy.parent / "files").rglob("*"))
    try:
        done = subprocess.run(
            command,
            env=_environment(access, copy.parent),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE + (size + copy.stat().st_size) / SLOWEST,
        )
    except subprocess.TimeoutExpired:
        raise SyncError("wandb sync took too long; repeat the command") from None
    logs = (copy.parent / "wandb" / "logs").glob("*.log")
    problem = next(filter(None, map(failed_upload, logs)), None)
    if done.returncode or problem or not _marker(copy).exists():
        _marker(copy).unlink(missing_ok=True)  # It is there even if an upload broke off.
        raise SyncError(
            f"wandb sync: {redacted(problem or _reason(done), access)}; repeat the command"
        )


def _environment(access: Access, folder: Path) -> Mapping[str, str]:
    """Return the environment of `wandb sync`, which writes its log to a folder."""
    kept = {k: v for k, v in os.environ.items() if k not in ("WANDB_MODE", "WANDB_DISABLED")}
    key = {"WANDB_API_KEY": access.key} if access.key else {}
    return {**kept, **key, "WANDB_DIR": str(folder)}


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last problem that W&B's client names, or its last line."""
    text = _COLORS.sub("", done.stdout + done.stderr)
    lines: Sequence[str] = _ERROR.findall(text) or text.strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"

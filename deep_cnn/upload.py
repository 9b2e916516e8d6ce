"""Run the verb upload: send to W&B what it lacks of the runs on disk."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from deep_cnn.argv import parse_verb
from deep_cnn.config import format_options
from deep_cnn.errors import CheckpointError, ConfigError, DataError, DeepCnnError
from deep_cnn.files import RunFiles, read_text, safe_name, unwritable
from deep_cnn.options import OptionModel, option
from deep_cnn.results import RunResult
from deep_cnn.sweep.spec.parse import searched_options
from deep_cnn.text import printable
from deep_cnn.tracking.access import Access, access_of

if TYPE_CHECKING:  # They import W&B's client, which takes a second.
    from deep_cnn.tracking.base import WandbRun
    from deep_cnn.tracking.wandb_upload import FinishedRun

# Most of the time of an upload is spent waiting for the server.
_PARALLEL = 8
_SUFFIXES = (".args.json", ".best.pt", ".json", ".pt", ".csv", ".log")


class UploadOptions(OptionModel):
    """Options of the verb upload."""

    full: bool = option(
        False, "upload a run as another one, ID-full, if W&B lacks rows that cannot be added"
    )


OPTIONS: Mapping[str, type[OptionModel]] = {"upload": UploadOptions}


def upload(argv: list[str]) -> int:
    """Send to W&B what it lacks of the runs in PATH ..., by default in outputs, or of some runs.

    Rows, summaries, tests, pictures and checkpoints that W&B has are not sent again. Runs that are
    not over are skipped.
    """
    options, texts = parse_verb(UploadOptions, argv)
    runs = [files for text in texts or ["outputs"] for files in _runs(text)]
    runs = list({files.result.resolve(): files for files in runs}.values())
    access = access_of(True, _online(), needed_by="upload")
    assert access is not None, "it is an error where W&B was asked for"
    from deep_cnn.tracking import wandb_upload

    with ExitStack() as locks:
        for out in dict.fromkeys(files.out.resolve() for files in runs):
            locks.enter_context(_locked(out))
        try:
            wandb_upload.prepare()
        except (OSError, ValueError) as error:
            text = f"W&B cannot be reached ({error}); check the network and WANDB_BASE_URL"
            raise ConfigError(text) from None
        return _upload_all(runs, access, full=options.full)


def _online() -> Mapping[str, str]:
    """Return the environment, without what keeps W&B's client offline; runs are what is wanted."""
    return {k: v for k, v in os.environ.items() if k not in ("WANDB_MODE", "WANDB_DISABLED")}


def _upload_all(runs: Sequence[RunFiles], access: Access, *, full: bool) -> int:
    """Upload runs, print one line for each, and return the exit status."""
    status, todo = 0, iter(runs)
    waiting: dict[Future[str | None], RunFiles] = {}
    with ThreadPoolExecutor(_PARALLEL) as pool:
        while True:
            for files in todo:
                result = RunResult.read(files.result)
                if result is None or files.work is not None:
                    _print(files.name, "skipped: it is not over; resume it, or let it end")
                    continue
                waiting[pool.submit(_send, files, result, access, full=full)] = files
                if len(waiting) == _PARALLEL:
                    break
            if not waiting:
                return status
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                name = waiting.pop(future).name
                try:
                    text = future.result()
                except DeepCnnError as error:
                    status = 1
                    _print(name, f"failed: {error}")
                    continue
                _print(name, "complete" if text is None else f"uploaded {text}")


def _send(files: RunFiles, result: RunResult, access: Access, *, full: bool) -> str | None:
    """Upload a run; return a description of what W&B lacked, or None if it lacked nothing."""
    from deep_cnn.tracking.wandb_sync import sync_run
    from deep_cnn.tracking.wandb_upload import upload_run

    if result.program is not None:
        return sync_run(files, result, access)
    return upload_run(_finished(files, result), access, full=full)


def _print(name: str, text: str) -> None:
    print(printable(f"{name} {text}"), flush=True)


def _runs(text: str) -> list[RunFiles]:
    """Return the files of the run that `text` names, or of all runs in a folder; raise DataError.

    A run is named by one of its files, or by its name if it is in outputs.
    """
    path = Path(text)
    if path.is_dir():
        if path.absolute().parent.name == "sweeps" and (path / "sweep.json").is_file():
            whole = _runs(str(path.absolute().parents[1]))
            return [files for files in whole if _sweep_of(files) == path.absolute().name]
        out = path if (path / "results").is_dir() else path.parent
        if out != path and path.name != "results":
            raise DataError(f"{text} has no results of runs; name a folder such as outputs")
        files = [RunFiles(out, name) for name in _names(out / "results")]
        # A trial that is not over has its files in the folder of its sweep.
        works = [work for work in out.glob("sweeps/*/work/*.*") if not work.name.startswith(".")]
        open_runs = {name: RunFiles(out, name, work=w) for w in sorted(works) for name in _names(w)}
        return files + list(open_runs.values())  # Of several attempts, the last one.
    out, name = Path("outputs"), text
    if path.is_file():
        suffix = next((each for each in _SUFFIXES if path.name.endswith(each)), "")
        out, name = path.parent.parent, path.name.removesuffix(suffix)
    files_of_run = RunFiles(out, name)
    if "/" in name or not files_of_run.exist():
        raise DataError(f"{text} is no folder, no file of a run and no run in outputs; name one")
    return [files_of_run]


def _sweep_of(files: RunFiles) -> str | None:
    result = RunResult.read(files.result)
    return safe_name(result.sweep.name) if result and result.sweep else None


def _names(results: Path) -> list[str]:
    """Return the names of the runs with arguments or a result in a folder."""
    # Of these, args.json is for a program that runs as a trial.
    others = (".args.json", ".upload.json", "args.json")
    names = {path.name.removesuffix(".args.json") for path in results.glob("*.args.json")}
    names |= {p.stem for p in results.glob("*.json") if not p.name.endswith(others)}
    return sorted(names)


def _finished(files: RunFiles, result: RunResult) -> "FinishedRun":
    from deep_cnn.tracking.wandb_upload import FinishedRun

    return FinishedRun(files, result, _title(files, result), _before(files, result))


def _title(files: RunFiles, result: RunResult) -> str | None:
    """Return the searched options of a trial of a local sweep."""
    if result.sweep is None or isinstance(result.sweep.trial, str):
        return None
    searched = _searched(files.out / "sweeps" / safe_name(result.sweep.name))
    values = {name: result.config[name] for name in searched if name in result.config}
    return format_options(values) or None


@cache
def _searched(sweep: Path) -> tuple[str, ...]:
    try:
        return tuple(searched_options(json.loads(read_text(sweep / "sweep.json"))["content"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _before(files: RunFiles, result: RunResult) -> "WandbRun | None":
    """Return the run on W&B of a version that kept no journal: its checkpoint knows it."""
    from deep_cnn.tracking.base import WandbRun

    if files.journal.exists():
        return None
    if result.unsynced:
        # The name of the folder is run-TIME-ID.
        run_id = Path(result.unsynced[-1]).name.removeprefix("offline-").partition("-")[2]
        return WandbRun(run_id.partition("-")[2], "")
    if result.config.get("wandb") is False:
        return None
    from deep_cnn.training.checkpoint import load_checkpoint  # It imports torch.

    for path in (files.last, files.best):
        if path.exists():
            try:
                return load_checkpoint(path).tracking.wandb
            except CheckpointError:
                continue
    return None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Let no other process upload the runs in a folder."""
    path = out / ".upload.lock"
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{printable(out)}: waiting for another upload", file=sys.stderr)
            lock.acquire()
    except NotImplementedError:  # A file system without locks.
        pass
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()

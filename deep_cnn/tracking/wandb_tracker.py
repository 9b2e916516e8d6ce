"""Log a run to W&B with its own client, and never let the run suffer from it."""

import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from shlex import quote
from signal import Signals
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import build_opener

import wandb

from deep_cnn.errors import ConfigError
from deep_cnn.files import safe_name
from deep_cnn.results import EpochRecord, RunResult, SweepTrial, assigned_trial
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.base import (
    FOR_USER,
    Example,
    RemoteRun,
    Start,
    Tracker,
    TrackingState,
    WandbRun,
    is_agents_stop,
)

_LOGGER = logging.getLogger("deep_cnn")
# The client would wait 90 seconds for its server at the start of a run, and for ever at its end.
# An agent kills 30 seconds after it has asked to stop. W&B's own variables change them.
_INIT_TIMEOUT = 20.0
_FINISH_TIMEOUT = 25.0
# A checkpoint may take longer, as long as the server answers: this many bytes a second are slow.
_SLOWEST = 2.0**19
_PATIENCE = 5.0
# A sweep of short trials must not wait for a server that is down again and again.
_DOWN_FOR = 120.0
_OUT_OF_REACH = re.compile(
    r"timed? ?out|retrying|giving up|connection (refused|reset)|\bEOF\b|deadline|no such host"
    r"|unreachable|busy",
    re.IGNORECASE,
)
# What the client says in its own log, and nowhere else, when it does not upload something.
_NOT_UPLOADED = re.compile(
    r'"level":"ERROR.*(fatal|upload|artifact|runfiles|giving up)', re.IGNORECASE
)
_down_until = 0.0


class WandbTracker(Tracker):
    """One run of W&B: config, metrics per epoch, pictures, the best checkpoint, how it ended.

    Where the server cannot be reached the run is kept offline. `artifacts` is best or none.
    """

    def __init__(
        self,
        access: Access,
        artifacts: str = "none",
        sweep: SweepTrial | None = None,
        remote: RemoteRun | None = None,
    ) -> None:
        self.access, self.artifacts = access, artifacts
        self.sweep, self.remote = sweep, remote
        self.run: Any = None
        self.stop = False
        self.whole = True
        self.unsynced_folder: str | None = None
        self.pictures: dict[str, Any] = {}

    @property
    def state(self) -> TrackingState:
        """The run's id, so that it is the same run after a resume."""
        if self.run is None:
            return TrackingState()
        return TrackingState(WandbRun(self.run.id, self.access.project))

    @property
    def unsynced(self) -> tuple[str, ...]:
        """The run's folder, if it was kept offline or not everything was uploaded."""
        return (self.unsynced_folder,) if self.unsynced_folder else ()

    @property
    def asked_to_stop(self) -> bool:
        """Whether the run was stopped on its page, or by the sweep that it belongs to."""
        return self.stop

    def start(self, start: Start) -> None:
        """Begin the run, or go on with it; ConfigError where W&B refuses and was insisted on."""
        self.files = start.files
        self.run = self._open(start, "train")
        if self.run is None:
            return
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        if start.parameters is not None:
            self.run.summary["parameters"] = start.parameters
        # What the server has not seen: all of a new run, or what an outage kept from it.
        seen = self.run.starting_step if self.run.resumed else 0
        for record in start.history:
            if record.epoch >= seen:
                self.log(record)

    def log(self, record: EpochRecord) -> None:
        """A row of the history, sent at once; every column of results/<run>.csv.

        The epoch is its step, so an epoch that a killed run has logged is not logged twice.
        """
        if self.run is not None:
            self.run.log({**self.pictures, **record.row()}, step=record.epoch, commit=True)
            self.pictures = {}

    def images(self, epoch: int, examples: Callable[[], Sequence[Example]]) -> None:
        """Pictures with truth and prediction in the caption, in the next row of the history."""
        if self.run is None:
            return
        pictures = [wandb.Image(each.image, caption=_caption(each)) for each in examples()]
        if pictures:
            self.pictures = {"examples": pictures, "epoch": epoch}

    def tested(self, start: Start, metrics: Mapping[str, float]) -> None:
        """The test result, in the summary of the run that was trained."""
        self.files = start.files
        self.run = self._open(start, "test")
        if self.run is not None:
            self.run.summary.update(dict(metrics))
            self._finish(0)

    def close(self, result: RunResult) -> None:
        """How the run ended, and its best checkpoint."""
        if self.run is None:
            return
        summary: dict[str, Any] = {"state": str(result.state)}
        if result.best:
            summary |= {f"best_{result.best.metric}": result.best.value}
            summary |= {"best_epoch": result.best.epoch}
        if result.stop_reason or self.run.resumed:  # It may have been stopped before it went on.
            reason = result.stop_reason
            summary["stop_reason"] = asdict(reason) if reason else None
        if result.error or self.run.resumed:
            summary["error"] = result.error
        if "examples" in self.pictures:  # The run ended early: its rows are sent already.
            summary["examples"] = self.pictures["examples"]
        self.run.summary.update(summary)
        if result.signal is not None:
            if result.signal == getattr(Signals, "SIGUSR1", None):
                self.run.mark_preempting()
        elif self.artifacts == "best" and result.best and self.files.best.exists():
            try:
                self._keep_checkpoint(result)
            except Exception as error:  # The client's are many kinds; the run must be finished.
                if is_agents_stop(error):
                    raise
                text = redacted(str(error) or type(error).__name__, self.access)
                message = "W&B did not take the checkpoint %s (%s)"
                _LOGGER.warning(message, self.files.best, text, extra=FOR_USER)
                self.whole = False
        self._finish(result.exit_status)

    def abandon(self) -> None:
        """A run that was begun is marked as failed."""
        if self.run is not None:
            self._finish(1)

    def _open(self, start: Start, job: str) -> Any:
        """The run; offline where the server is out of reach, None where it refuses."""
        global _down_until
        if self.access.offline:
            return self._init(start, job, offline=True)
        try:
            # An agent's run comes from the server: it is there.
            if self.remote or time.monotonic() > _down_until:
                self._probe()
                return self._init(start, job)
            reason = "it was out of reach a moment ago"
        except (wandb.Error, OSError, ValueError) as error:
            reason = redacted(str(error), self.access)
            wandb.teardown()  # Or the client would offer the failed run again.
            if not isinstance(error, OSError) and not _OUT_OF_REACH.search(reason):
                if self.access.insist:
                    raise ConfigError(
                        f"W&B cannot be used ({reason}); check WB_KEY, WB_PROJECT and WB_USER, or"
                        " use --wandb=False"
                    ) from None
                message = "W&B cannot be used (%s); the numbers go to files"
                _LOGGER.warning(message, reason, extra=FOR_USER)
                return None
            _down_until = time.monotonic() + _DOWN_FOR
        message = "W&B is out of reach (%s); the run is kept offline"
        _LOGGER.warning(message, reason, extra=FOR_USER)
        return self._init(start, job, offline=True)

    def _init(self, start: Start, job: str, *, offline: bool = False) -> Any:
        before = start.state.wandb
        known = before.id if before and before.project == self.access.project else None
        if job == "test" and offline:  # An upload would put it in the place of what was trained.
            known = None
        sweep = self.sweep.name if self.sweep else None
        tags = [str(start.options[name]) for name in ("task", "model") if name in start.options]
        tags += [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
        return wandb.init(
            name=start.files.name,
            group=os.environ.get("WANDB_RUN_GROUP") or sweep,
            job_type="train" if known else job,
            tags=[tag[:64] for tag in tags],
            config={**start.options, **(self.remote.arguments if self.remote else {})},
            dir=_folder(start.files.out),
            reinit="finish_previous",
            settings=wandb.Settings(**self._settings(known, offline)),
        )

    def _settings(self, known: str | None, offline: bool) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "mode": "offline" if offline else "online",
            "stop_fn": self._ask_to_stop,
            "finish_timeout_raises": True,
            "api_key": None if offline else self.access.key,
            "resume": None if offline else "allow",
        }
        for name, bound in (("init_timeout", _INIT_TIMEOUT), ("finish_timeout", _FINISH_TIMEOUT)):
            if not os.environ.get(f"WANDB_{name.upper()}"):
                settings[name] = bound
        code = Path(__file__).parents[2]
        if (code / ".git").exists():
            settings["git_root"] = str(code)
        if self.remote:
            settings |= asdict(self.remote)
            del settings["arguments"]
        elif self.sweep is None or self.sweep != assigned_trial():  # Else its agent has set them.
            settings |= {
                "project": self.access.project,
                "entity": self.access.entity,
                "run_id": known,
            }
        return {name: value for name, value in settings.items() if value is not None}

    def _ask_to_stop(self) -> None:
        self.stop = True

    def _probe(self) -> None:
        """OSError where nothing answers: at once on a node without internet."""
        try:
            # Its own opener, because the shared one keeps the proxies of the first who asked.
            with build_opener().open(str(wandb.setup().settings.base_url), timeout=10):
                return
        except HTTPError:
            return  # It answers.
        except HTTPException as error:
            raise OSError(f"what answers is no W&B: {type(error).__name__}") from None
        except URLError as error:
            if not isinstance(error.reason, ssl.SSLError):
                raise OSError(str(error.reason)) from None
        except ValueError as error:
            raise wandb.Error(str(error)) from None

    def _keep_checkpoint(self, result: RunResult) -> None:
        best = result.best
        assert best is not None
        artifact = wandb.Artifact(
            f"model-{self.run.id}",
            "model",
            metadata={"run_name": result.run_name, **asdict(best), "config": dict(result.config)},
        )
        # Uploaded at once it need not be copied; offline it must be as it is now.
        online = self.run.settings.mode == "online"
        artifact.add_file(
            str(self.files.best), policy="immutable" if online else "mutable", skip_cache=online
        )
        aliases = ["best", f"epoch-{best.epoch}", safe_name(result.run_name)]
        if online:
            self._probe()  # The client would wait for longer than it is worth.
        logged = self.run.log_artifact(artifact, aliases=aliases)
        if online:
            self._wait(logged, self.files.best.stat().st_size)

    def _wait(self, logged: Any, size: int) -> None:
        """Wait for an upload as long as the server answers, and as its size may take."""
        bound = float(os.environ.get("WANDB_FINISH_TIMEOUT") or _FINISH_TIMEOUT + size / _SLOWEST)
        failed: list[Exception] = []
        done = threading.Event()

        def wait() -> None:
            try:
                logged.wait(timeout=int(bound) + 1)
            except Exception as error:  # The client's are many kinds.
                failed.append(error)
            done.set()

        threading.Thread(target=wait, daemon=True).start()
        end = time.monotonic() + bound
        while not done.wait(_PATIENCE) and time.monotonic() < end:
            self._probe()
        if failed:
            raise failed[0]
        self.whole = self.whole and done.is_set()

    def _finish(self, status: int) -> None:
        run, self.run = self.run, None
        folder = Path(run.settings.sync_dir)
        offline = run.settings.mode == "offline"
        try:
            run.finish(exit_code=status)
        except TimeoutError:
            self.whole = False
        relative = os.path.relpath(folder)
        if offline:
            message = "W&B: kept offline; upload it with: wandb sync %s"
            _LOGGER.info(message, quote(relative), extra=FOR_USER)
        elif not self.whole or _upload_broke_off(folder):
            _LOGGER.warning(
                "W&B did not take everything, the files have it; upload the rest with:"
                " wandb sync --include-online %s",
                quote(relative),
                extra=FOR_USER,
            )
        else:
            return
        self.unsynced_folder = relative


def _folder(out: Path) -> str | None:
    """Beside the other results, unless WANDB_DIR says where."""
    if os.environ.get("WANDB_DIR"):
        return None
    out.mkdir(parents=True, exist_ok=True)
    return str(out)


def _upload_broke_off(folder: Path) -> bool:
    """Whether the client has given up uploading: it says so in its own log only."""
    try:
        log = folder / "logs" / "debug-internal.log"
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return _NOT_UPLOADED.search(text) is not None


def _caption(example: Example) -> str:
    return f"truth {_short(example.truth)}, prediction {_short(example.prediction)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

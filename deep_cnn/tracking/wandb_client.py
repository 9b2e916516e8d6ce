"""Open and end runs of W&B's client, with limits on the time to wait for its server."""

import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import build_opener

import wandb

from deep_cnn.errors import ConfigError
from deep_cnn.files import safe_name
from deep_cnn.results import RunResult, SweepTrial, assigned_trial
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.base import FOR_USER, RemoteRun, Start

_LOGGER = logging.getLogger("deep_cnn")
# By default, the client waits 90 seconds for its server at the start, and forever at the end.
# An agent kills a run 30 seconds after asking it to stop. W&B's variables change the limits.
_INIT_TIMEOUT = 20.0
_FINISH_TIMEOUT = 25.0
# A checkpoint may take longer while the server answers; this is the lowest rate, in bytes/s.
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


@dataclass(frozen=True, slots=True)
class WandbClient:
    """The settings with which runs of W&B's client are opened.

    Attributes:
        access: How W&B is reached.
        sweep: The sweep that the run belongs to.
        remote: The run on W&B's server, if the server created it.
        on_stop: Called in another thread if the run is asked to stop on its web page.
        title: What is displayed instead of the run's name.
    """

    access: Access
    sweep: SweepTrial | None
    remote: RemoteRun | None
    on_stop: Callable[[], None]
    title: str | None = None

    def open_run(self, start: Start, job: str) -> Any:
        """Return the run, offline if the server is not reachable, or None if W&B refuses.

        Raises ConfigError if it refuses and --wandb=True was set.
        """
        global _down_until
        if self.access.offline:
            return self._init(start, job, offline=True)
        reason = "it was out of reach a moment ago"
        try:
            # An agent's run comes from the server, so the server is reachable.
            if self.remote or time.monotonic() > _down_until:
                probe()
                return self._init(start, job)
        except (wandb.Error, OSError, ValueError) as error:
            reason = redacted(str(error), self.access)
            wandb.teardown()  # Or the client would offer the failed run again.
            if not isinstance(error, OSError) and not _OUT_OF_REACH.search(reason):
                if self.access.insist:
                    raise ConfigError(
                        f"W&B cannot be used ({reason}); check WB_KEY, WB_PROJECT and WB_USER, or"
                        " use --wandb=False"
                    ) from None
                text = "W&B cannot be used (%s); the numbers go to files"
                _LOGGER.warning(text, reason, extra=FOR_USER)
                return None
            _down_until = time.monotonic() + _DOWN_FOR
        text = "W&B is out of reach (%s); the run is kept offline"
        _LOGGER.warning(text, reason, extra=FOR_USER)
        return self._init(start, job, offline=True)

    def _init(self, start: Start, job: str, *, offline: bool = False) -> Any:
        before = start.state.wandb
        earlier = before.id if before and before.project == self.access.project else None
        if job == "test" and offline:  # An upload would put it in the place of what was trained.
            earlier = None
        start.files.out.mkdir(parents=True, exist_ok=True)
        tags = [str(start.options[name]) for name in ("task", "model") if name in start.options]
        tags += [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
        return wandb.init(
            name=self.title or start.files.name,
            group=os.environ.get("WANDB_RUN_GROUP") or (self.sweep.name if self.sweep else None),
            job_type="train" if earlier else job,
            tags=[tag[:64] for tag in tags],  # W&B refuses longer ones.
            config={**start.options, **(self.remote.arguments if self.remote else {})},
            # Beside the results, unless the user has chosen a folder.
            dir=None if os.environ.get("WANDB_DIR") else str(start.files.out),
            reinit="finish_previous",  # One process of an agent has many runs.
            settings=wandb.Settings(**self._settings(earlier, offline)),
        )

    def _settings(self, run_id: str | None, offline: bool) -> dict[str, Any]:
        code = Path(__file__).parents[2]
        settings: dict[str, Any] = {
            "mode": "offline" if offline else "online",
            "stop_fn": self.on_stop,
            # Otherwise an upload that took too long would look complete.
            "finish_timeout_raises": True,
            "api_key": None if offline else self.access.key,
            "resume": None if offline else "allow",
            # The commit of this code, not of the folder that it runs in.
            "git_root": str(code) if (code / ".git").exists() else None,
        }
        for name, bound in (("init_timeout", _INIT_TIMEOUT), ("finish_timeout", _FINISH_TIMEOUT)):
            if not os.environ.get(f"WANDB_{name.upper()}"):
                settings[name] = bound
        if self.remote:
            settings |= asdict(self.remote)
            del settings["arguments"]
        elif self.sweep is None or self.sweep != assigned_trial():  # Else its agent has set them.
            access = self.access
            settings |= {"project": access.project, "entity": access.entity, "run_id": run_id}
        return {name: value for name, value in settings.items() if value is not None}


def probe() -> None:
    """Raise OSError if no server answers, immediately on a node without internet."""
    try:
        # Use a new opener, because the shared one keeps the proxies of its first use.
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


def upload_checkpoint(run: Any, file: Path, result: RunResult) -> bool:
    """Add the best checkpoint to a run, and return whether it was uploaded completely."""
    best = result.best
    assert best is not None
    metadata = {"run_name": result.run_name, **asdict(best), "config": dict(result.config)}
    artifact = wandb.Artifact(f"model-{run.id}", "model", metadata=metadata)
    # If it is uploaded now, no copy is needed; offline, a copy must keep its current content.
    online = run.settings.mode == "online"
    artifact.add_file(str(file), policy="immutable" if online else "mutable", skip_cache=online)
    if online:
        probe()  # The client would wait for longer than it is worth.
    aliases = ["best", f"epoch-{best.epoch}", safe_name(result.run_name)]
    logged = run.log_artifact(artifact, aliases=aliases)
    return _wait(logged, file.stat().st_size) if online else True


def _wait(logged: Any, size: int) -> bool:
    """Wait for an upload as long as the server answers; return whether it is complete."""
    bound = float(os.environ.get("WANDB_FINISH_TIMEOUT") or _FINISH_TIMEOUT + size / _SLOWEST)
    failed: list[Exception] = []

    def wait() -> None:
        try:
            logged.wait(timeout=int(bound) + 1)
        except Exception as error:  # The client's are many kinds.
            failed.append(error)

    # If the client's wait times out, the upload is cancelled. So wait only once, in a thread.
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    end = time.monotonic() + bound
    thread.join(_PATIENCE)
    while thread.is_alive() and time.monotonic() < end:
        probe()
        thread.join(_PATIENCE)
    if failed:
        raise failed[0]
    return not thread.is_alive()


def upload_broke_off(folder: Path) -> bool:
    """Return whether the client has given up uploading, which only its own log says."""
    log = folder / "logs" / "debug-internal.log"
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return _NOT_UPLOADED.search(text) is not None

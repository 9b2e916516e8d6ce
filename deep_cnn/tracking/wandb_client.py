"""Open and end runs of W&B's client, with limits on the time to wait for its server."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import wandb

from deep_cnn.errors import ConfigError, OutputError
from deep_cnn.files import safe_name
from deep_cnn.results import RunResult, SweepTrial, assigned_trial
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.base import FOR_USER, RemoteRun, Start, is_agents_stop
from deep_cnn.tracking.journal import Journal, new_run_id
from deep_cnn.tracking.wandb_server import probe, wait_until_visible

_LOGGER = logging.getLogger("deep_cnn")
# By default, the client waits 90 seconds for its server at the start, and forever at the end.
# An agent kills a run 30 seconds after asking it to stop. W&B's variables change the limits.
_INIT_TIMEOUT = 20.0
_LONGEST = 64  # The server refuses longer tags, such as the path of a network of the user.
# The limits at the end sum up to 25 seconds: until a checkpoint is accepted, and until it is sent.
_PATIENCE = 5.0
FINISH_TIMEOUT = 20.0
# A sweep of short trials must not wait for a server that is down again and again.
_DOWN_FOR = 120.0
_OUT_OF_REACH = re.compile(
    r"timed? ?out|retrying|giving up|connection (refused|reset)|\bEOF\b|deadline|no such host"
    r"|unreachable|busy|invalid character|end of JSON",
    re.IGNORECASE,
)
# What the client says in its own log, and nowhere else, when it does not upload something.
_NOT_UPLOADED = re.compile(
    r'"level":"ERROR[^"]*","msg":"(?:[^"\\]|\\.)*'
    r"(?:fatal|upload|artifact|runfiles|giving up|json decode)",
    re.IGNORECASE,
)
_PROGRAM = "-m deep_cnn"
# Settings that W&B's variables change.
_DEFAULTS: Mapping[str, Any] = {
    "init_timeout": _INIT_TIMEOUT,
    "finish_timeout": FINISH_TIMEOUT,
    "console": "off",  # The tracker passes on our log, with the level of each line.
}
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

    def open_run(self, start: Start, *, is_test: bool = False) -> tuple[Any, Journal] | None:
        """Return the run and its journal, which is written before the first contact.

        The run is offline if the server is not reachable. The result is None if W&B refuses the
        run, or if it is opened for a test and the server is not reachable. Raises ConfigError if
        W&B refuses and --wandb=True was set.
        """
        global _down_until
        try:
            # The client's own messages would drown ours.
            wandb.setup(wandb.Settings(silent=True))
            journal = self._journal(start)
        except ValueError as error:
            self._refuse(start, redacted(str(error), self.access))
            return None
        reason = "it was out of reach a moment ago"
        try:
            # An agent's run comes from the server, so the server is reachable.
            if not self.access.offline and (self.remote or time.monotonic() > _down_until):
                return self._open_online(start, journal, is_test)
        except OutputError:
            raise
        except (wandb.Error, OSError, ValueError) as error:
            reason = redacted(str(error), self.access)
            wandb.teardown()  # Or the client would offer the failed run again.
            if journal.contact is None:  # An upload may choose another project.
                start.files.journal.unlink(missing_ok=True)
            else:
                journal.write(start.files)
            if not isinstance(error, OSError) and not _OUT_OF_REACH.search(reason):
                self._refuse(start, reason)
                return None
            _down_until = time.monotonic() + _DOWN_FOR
        if not self.access.offline:
            later = f"upload the test later with: {upload_command(start.files.out)}"
            text = f"W&B is out of reach (%s); {later if is_test else 'the run is kept offline'}"
            _LOGGER.warning(text, reason, extra=FOR_USER)
        journal.write(start.files)
        return None if is_test else (self.init(start, journal, offline=True), journal)

    def _open_online(self, start: Start, journal: Journal, is_test: bool) -> tuple[Any, Journal]:
        probe()
        if start.is_continued:
            wait_until_visible(self.access, journal)
        journal.opened().write(start.files)
        run = self.init(start, journal, is_test=is_test)
        _LOGGER.info("W&B: %s", run.url, extra=FOR_USER)
        return run, replace(journal.opened(), entity=run.entity).write(start.files)

    def _refuse(self, start: Start, reason: str) -> None:
        if self.access.insist:
            raise ConfigError(
                f"W&B cannot be used ({reason}); check WB_KEY, WB_PROJECT and WB_USER, or use"
                " --wandb=False"
            ) from None
        text = "W&B cannot be used (%s); the numbers go to files; upload them later with: %s"
        _LOGGER.warning(text, reason, upload_command(start.files.out), extra=FOR_USER)

    def _journal(self, start: Start) -> Journal:
        """Return the journal of the run that continues, or of a new one."""
        server, project = str(wandb.setup().settings.base_url), self.access.project
        kept = Journal.read(start.files) if start.is_continued else None
        if kept and (kept.server, kept.project) != (server, project):
            kept = None
        before, trial = start.state.wandb, assigned_trial()
        if self.remote:
            run_id, sweep_id = self.remote.run_id, self.remote.sweep_id
        elif self.sweep and self.sweep == trial:  # Its agent has set them.
            run_id, sweep_id = str(trial.trial), trial.name
        else:
            same = before.id if before and before.project == project else None
            own = (kept.run_id if kept else None) or os.environ.get("WANDB_RUN_ID")
            run_id, sweep_id = same or own or new_run_id(), None
        if kept and kept.run_id == run_id:
            return kept
        title = self.title or start.files.name
        return Journal(server, project, run_id, self.access.entity, title, sweep_id)

    def init(
        self,
        start: Start,
        journal: Journal,
        *,
        offline: bool = False,
        is_test: bool = False,
        **settings: Any,
    ) -> Any:
        """Return a run of W&B's client; `settings` take precedence over the usual ones."""
        start.files.out.mkdir(parents=True, exist_ok=True)
        tags = [str(v)[-_LONGEST:] for k, v in start.options.items() if k in ("task", "model")]
        tags += [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
        # The options of a test must not replace those of the run that it tests.
        is_there = is_test and (start.state.wandb is not None or journal.contact is not None)
        arguments = {**start.options, **(self.remote.arguments if self.remote else {})}
        if is_test:
            arguments["test_net"] = None
        return wandb.init(
            name=None if is_there else journal.title,
            group=os.environ.get("WANDB_RUN_GROUP") or (self.sweep.name if self.sweep else None),
            job_type="train",
            tags=[tag[:64] for tag in tags],  # W&B refuses longer ones.
            config=None if is_there else arguments,
            settings=wandb.Settings(**{**self._settings(start, journal, offline), **settings}),
        )

    def _settings(self, start: Start, journal: Journal, offline: bool) -> dict[str, Any]:
        code = Path(__file__).parents[2]
        settings: dict[str, Any] = {
            "mode": "offline" if offline else "online",
            "silent": True,
            "stop_fn": self.on_stop,
            "program": _PROGRAM,
            "reinit": "finish_previous",  # One process of an agent has many runs.
            # Otherwise an upload that took too long would look complete.
            "finish_timeout_raises": True,
            "api_key": None if offline else self.access.key,
            "resume": None if offline else "allow",
            # The commit of this code, not of the folder that it runs in.
            "git_root": str(code) if (code / ".git").exists() else None,
        }
        for name, value in _DEFAULTS.items():
            if not os.environ.get(f"WANDB_{name.upper()}"):
                settings[name] = value
        if not os.environ.get("WANDB_DIR"):
            settings["root_dir"] = str(start.files.out)  # Beside the results.
        if self.remote:
            settings |= asdict(self.remote)
            del settings["arguments"]
        elif self.sweep is None or self.sweep != assigned_trial():  # Else its agent has set them.
            names = ("project", "entity", "run_id")
            settings |= {name: getattr(journal, name) for name in names}
        return {name: value for name, value in settings.items() if value is not None}


def upload_command(out: Path) -> str:
    """Return the command that uploads what W&B lacks of the runs in a folder for results."""
    return f"python -m deep_cnn upload {quote(os.path.relpath(out))}"


def define_metrics(run: Any) -> None:
    """Let W&B plot every metric over the epochs."""
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")


def add_checkpoint(
    run: Any, file: Path, result: RunResult, *, patience: float = _PATIENCE
) -> Callable[[], bool]:
    """Add the best checkpoint to a run, if the server takes it within `patience` seconds.

    Return a function to call after finish(), which waits for the upload. The function returns
    whether the checkpoint was uploaded, and raises what went wrong.
    """
    best = result.best
    assert best is not None
    metadata = {"run_name": result.run_name, **asdict(best), "config": dict(result.config)}
    aliases = ["best", f"epoch-{best.epoch}", safe_name(result.run_name)]
    # If it is uploaded now, no copy is needed; offline, a copy must keep its current content.
    online = run.settings.mode == "online"
    policy = {"policy": "immutable" if online else "mutable", "skip_cache": online}
    logged: list[Any] = []
    problems: list[Exception] = []

    def log() -> None:
        try:
            artifact = wandb.Artifact(f"model-{run.id}", "model", metadata=metadata)
            artifact.add_file(str(file), **policy)
            logged.append(run.log_artifact(artifact, aliases=aliases))
        except Exception as error:  # The client's are many kinds; the run must be finished.
            problems.append(error)

    # The client first asks for the user, and has no limit of time for that.
    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(patience if online else None)

    def is_uploaded() -> bool:
        if problems or not logged:
            raise problems[0] if problems else wandb.Error("W&B does not answer")
        if not online:
            return False
        # `wait` of the artifact would ask the server again, which may fail although it has it.
        answer = logged[0]._save_handle.wait_or(timeout=_PATIENCE).response.log_artifact_response
        if answer.error_message:
            raise wandb.Error(answer.error_message)
        return True

    return is_uploaded


def finish(run: Any, status: int, is_uploaded: Callable[[], bool] | None = None) -> str | None:
    """End a run with this exit status; return why W&B does not have everything, or None.

    `is_uploaded` is what `add_checkpoint` has returned.
    """
    problem = None
    try:
        run.finish(exit_code=status)
    except TimeoutError:
        problem = "it took too long"
    try:
        if is_uploaded is not None and not is_uploaded():
            problem = "not the checkpoint"
    except Exception as error:  # The client's are many kinds.
        if is_agents_stop(error):
            raise
        problem = f"the checkpoint: {error or type(error).__name__}"
    return problem or failed_upload(Path(run.settings.sync_dir) / "logs" / "debug-internal.log")


def failed_upload(log: Path) -> str | None:
    """Return whether the client has given up uploading, which only its own log says."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return "an upload broke off" if _NOT_UPLOADED.search(text) else None

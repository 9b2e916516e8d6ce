"""Call W&B's API for one sweep, as an agent does."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import wandb
import yaml
from wandb.apis.public.sweeps import _register_agent, _sweep_with_runs, _upsert_sweep
from wandb.errors import AuthenticationError, CommError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.results import SweepTrial
from deep_cnn.sweep.spec.command import DEFAULT_COMMAND, program_end
from deep_cnn.sweep.spec.parse import searched_options
from deep_cnn.sweep.wandb_agent.wandb_source import WandbConfig
from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.wandb_server import probe, query_sweep

# After this time in seconds without an answer, a warning says that the server does not answer.
AWAY_AFTER = 4.0
_REQUEST_TIMEOUT = 60.0
# W&B's own function hides whether the server has answered.
_HEARTBEAT = """
mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
    agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) {
        agent { id }
        commands
    }
}"""


def create_sweep(access: Access, content: Mapping[str, Any]) -> str:
    """Create a sweep with the content of a sweep file; return its path ENTITY/PROJECT/SWEEP_ID.

    Raises:
        ConfigError: The server cannot be reached, or refuses the sweep.
    """
    try:
        owner = {"entity": access.entity, "project": access.project}
        api = wandb.Api({k: v for k, v in owner.items() if v}, api_key=access.key)
        entity = access.entity or api.default_entity
        answer, _ = _upsert_sweep(api, dict(content), entity=entity, project=access.project)
    except (wandb.Error, ValueError, OSError) as error:
        reason = redacted(str(error), access)
        raise ConfigError(
            f"W&B does not create the sweep ({reason}); check WB_KEY, WB_USER, WB_PROJECT and the"
            " network"
        ) from None
    return f"{entity}/{access.project}/{answer['name']}"


class WandbSweep:
    """The sweep `name` on W&B's server.

    Raises:
        ConfigError: The sweep is not available.
    """

    def __init__(self, access: Access, name: str) -> None:
        self.access, self.name = access, name
        try:
            wandb.setup(wandb.Settings(silent=True))
            with _told_when_away():
                probe(AWAY_AFTER)
                owner = {"entity": access.entity, "project": access.project}
                self.api = wandb.Api({k: v for k, v in owner.items() if v}, api_key=access.key)
                if access.entity is None:
                    self.api.settings["entity"] = self.api.default_entity
                record = _sweep_with_runs(self.api, name, "{}")
        except (CommError, AuthenticationError, ValueError, OSError) as error:
            raise ConfigError(
                f"the sweep {self.path} cannot be had ({redacted(str(error), access)}); check"
                " ENTITY/PROJECT/SWEEP_ID, WB_KEY and the network"
            ) from None
        self.entity: str | None = self.api.settings["entity"]
        self.content: Mapping[str, Any] = yaml.safe_load(record["config"]) or {}

    @property
    def path(self) -> str:
        """The path ENTITY/PROJECT/SWEEP_ID."""
        parts = (self.access.entity, self.access.project, self.name)
        return "/".join(part for part in parts if part)

    @property
    def url(self) -> str:
        """The address of the sweep's page."""
        owner = f"{self.api._service_api.app_url}{self.entity}/{self.access.project}"
        return f"{owner}/sweeps/{self.name}"

    def config(self) -> WandbConfig:
        """Return the settings for a worker; raise ConfigError if the sweep runs another program."""
        command = [str(word) for word in self.content.get("command") or DEFAULT_COMMAND]
        program = str(self.content.get("program") or "")
        # The worker reads no file; it gets the same arguments on its command line.
        same = {"${program}": program, "${args_json_file}": "${args_json}"}
        command = [same.get(word, word) for word in command]
        if not program_end(command):
            raise ConfigError(
                f"the sweep {self.path} runs another program ({' '.join(command)}); use: wandb"
                f" agent {self.path}"
            )
        searched = tuple(searched_options(self.content))
        owner = (self.entity, self.access.project)
        return WandbConfig(*owner, self.name, tuple(command), program, searched)

    def register(self) -> str:
        """Register a new agent and return its id."""
        try:
            return str(_register_agent(self.api, socket.gethostname(), sweep_id=self.name)["id"])
        except (wandb.Error, ValueError, OSError) as error:
            reason = redacted(str(error), self.access)
            raise ConfigError(
                f"{self.path} takes no agent ({reason}); check the permissions of WB_KEY"
            ) from None

    def poll(self, agent: str, run_id: str | None) -> list[dict[str, Any]] | None:
        """Return the server's commands for an agent with this run, or None if the sweep is gone.

        A command has a `type`: run, resume, stop or exit. Raises OSError if no server answers.
        """
        state = json.dumps({run_id: True} if run_id else {})
        variables = {"id": agent, "metrics": "{}", "runState": state}
        try:
            answer: Any = self.api._service_api.execute_graphql(
                _HEARTBEAT, variables, timeout=_REQUEST_TIMEOUT
            )
            return list(json.loads(answer["agentHeartbeat"]["commands"]))
        except WandbApiFailedError as error:
            if error.response is not None and error.response.http_status == 404:
                return None
            raise OSError(str(error)) from None
        except (LookupError, TypeError, ValueError) as error:
            raise OSError(f"an answer that is not W&B's ({type(error).__name__})") from None


@contextmanager
def _told_when_away() -> Iterator[None]:
    """Print that the server does not answer, if that takes long."""
    text = "W&B does not answer yet; waiting for it"
    notice = threading.Timer(AWAY_AFTER, lambda: print(text, file=sys.stderr))
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def searched_by(config: TrainConfig, sweep: SweepTrial) -> tuple[str, ...]:
    """Return the options that the sweep of W&B's own agent searches.

    If the server does not say, or is not used, there are none.
    """
    environ = os.environ
    project = environ.get("WANDB_PROJECT")
    is_off = environ.get("WANDB_MODE", "online") != "online" or config.wandb is False
    if is_off or environ.get("WANDB_DISABLED") or not project:
        return ()
    key = environ.get("WANDB_API_KEY") or environ.get("WB_KEY")
    try:
        wandb.setup(wandb.Settings(silent=True))
        probe(AWAY_AFTER)
        content = query_sweep(Access(project, environ.get("WANDB_ENTITY"), key), sweep.name)
        return tuple(searched_options(yaml.safe_load(content) or {}))
    except (wandb.Error, OSError, ValueError, TypeError, yaml.YAMLError):
        return ()

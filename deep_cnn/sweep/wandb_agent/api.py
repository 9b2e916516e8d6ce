"""Call W&B's API for one sweep, as an agent does."""

import logging
import socket
from collections.abc import Mapping
from typing import Any

import wandb
import yaml
from wandb.apis.public.sweeps import (
    _agent_heartbeat,
    _register_agent,
    _sweep_with_runs,
    _upsert_sweep,
)
from wandb.errors import AuthenticationError, CommError
from wandb.sdk.sweeps import SweepNotFoundError

from deep_cnn.errors import ConfigError
from deep_cnn.sweep.spec.command import DEFAULT_COMMAND, program_end
from deep_cnn.sweep.wandb_agent.wandb_source import WandbConfig
from deep_cnn.tracking.access import Access, redacted


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
        # It reports a lost connection with a traceback; the next poll tries again.
        logging.getLogger("wandb").addHandler(logging.NullHandler())
        logging.getLogger("wandb").propagate = False
        try:
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
        return WandbConfig(self.entity, self.access.project, self.name, tuple(command), program)

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

        A command has a `type`: run, resume, stop or exit.
        """
        try:
            return list(_agent_heartbeat(self.api, agent, {}, {run_id: True} if run_id else {}))
        except SweepNotFoundError:
            return None

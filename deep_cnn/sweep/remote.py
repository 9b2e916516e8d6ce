"""A sweep that is kept on W&B's server, as an agent asks for it."""

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import wandb
import yaml
from wandb.apis.public.sweeps import _agent_heartbeat, _register_agent, _sweep_with_runs
from wandb.errors import AuthenticationError, CommError
from wandb.sdk.sweeps import SweepNotFoundError

from deep_cnn.errors import ConfigError
from deep_cnn.sweep.process import threads_each
from deep_cnn.sweep.spec.command import DEFAULT_COMMAND, program_end
from deep_cnn.tracking.access import Access, redacted


@dataclass(frozen=True, slots=True)
class ServedJob:
    """What a worker must know of a sweep on W&B's server; plain values."""

    entity: str | None
    project: str
    sweep: str
    command: tuple[str, ...]
    program: str
    threads: int


class SweepServer:
    """The sweep `name` on W&B's server; ConfigError where it cannot be had."""

    def __init__(self, access: Access, name: str) -> None:
        self.access, self.name = access, name
        # It reports a lost connection with a traceback; the next poll tries again.
        logging.getLogger("wandb").addHandler(logging.NullHandler())
        logging.getLogger("wandb").propagate = False
        try:
            place = {"entity": access.entity, "project": access.project}
            self.api = wandb.Api({k: v for k, v in place.items() if v}, api_key=access.key)
            if access.entity is None:
                self.api.settings["entity"] = self.api.default_entity
            found = _sweep_with_runs(self.api, name, "{}")
        except (CommError, AuthenticationError, ValueError, OSError) as error:
            raise ConfigError(
                f"the sweep {self.path} cannot be had ({redacted(str(error), access)}); check"
                " ENTITY/PROJECT/SWEEP_ID, WB_KEY and the network"
            ) from None
        self.entity: str | None = self.api.settings["entity"]
        self.content: Mapping[str, Any] = yaml.safe_load(found["config"]) or {}
        self.over = found.get("state") in ("FINISHED", "CANCELED", "STOPPED")

    @property
    def path(self) -> str:
        """ENTITY/PROJECT/SWEEP_ID."""
        parts = (self.access.entity, self.access.project, self.name)
        return "/".join(part for part in parts if part)

    def job(self, workers: int) -> ServedJob:
        """What a worker must know; ConfigError for a sweep over another program."""
        command = tuple(str(word) for word in self.content.get("command") or DEFAULT_COMMAND)
        program = str(self.content.get("program") or "")
        # The worker reads no file: the same arguments come as a word.
        same = {"${program}": program, "${args_json_file}": "${args_json}"}
        words = [same.get(word, word) for word in command]
        if not program_end(words):
            raise ConfigError(
                f"the sweep {self.path} runs another program ({' '.join(words)}); use: wandb agent"
                f" {self.path}"
            )
        project = self.access.project
        return ServedJob(
            self.entity, project, self.name, tuple(words), program, threads_each(workers)
        )

    def register(self) -> str:
        """The id of a new agent."""
        try:
            return str(_register_agent(self.api, socket.gethostname(), sweep_id=self.name)["id"])
        except (wandb.Error, ValueError, OSError) as error:
            reason = redacted(str(error), self.access)
            raise ConfigError(
                f"{self.path} takes no agent ({reason}); check the permissions of WB_KEY"
            ) from None

    def ask(self, agent: str, runs: Mapping[str, bool]) -> list[dict[str, Any]] | None:
        """What the agent is to do, given the runs that it has; None where the sweep is gone."""
        try:
            return list(_agent_heartbeat(self.api, agent, {}, dict(runs)))
        except SweepNotFoundError:
            return None

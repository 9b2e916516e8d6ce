"""Make the command line and the environment of a program as W&B's agent does."""

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from deep_cnn.errors import ConfigError
from deep_cnn.files import write_text
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.spec.command import expand
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, to_jsonable
from deep_cnn.tracking.access import VARIABLES

# Names a trial to its processes: whoever has this variable belongs to it.
COOKIE = "DEEP_CNN_TRIAL"
_ID = re.compile(r"[a-z0-9]{8}")
# How often W&B's client writes what was logged, in seconds; its default is 15.
_FLUSH = "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL"
# A server of the client's own that belongs to another process, and what would change W&B's run.
_REMOVED = ("WANDB_SERVICE", "WANDB_RESUME", "WANDB_SWEEP_ID")


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """How the programs of a sweep are run.

    Attributes:
        online: Whether W&B's runs go to its server.
        metric_file: The table that each program writes, with variables such as $WANDB_RUN_ID.
    """

    online: bool = False
    metric_file: str | None = None

    def metric_path(self, environment: Mapping[str, str]) -> Path | None:
        """Return the table of a program with this environment."""
        text = self.metric_file
        return None if text is None else Path(Template(text).safe_substitute(environment))


def sweep_id(io: FolderIO, folder: Path) -> str:
    """Return the id of the sweep in a folder for W&B's client, which is made at the first call."""
    path = folder / "wandb_id"
    for _ in range(2):
        text = (io.read(path) or b"").decode(errors="replace").strip()
        if _ID.fullmatch(text):
            return text
        io.create(path, secrets.token_hex(4))
    raise ConfigError(f"{path} holds no id of 8 letters and digits; remove it")


def run_id(sweep: str, number: int) -> str:
    """Return the id of W&B's run of a trial, whatever its attempt."""
    return hashlib.sha256(f"{sweep}/{number}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the program of a trial.

    Attributes:
        number: The trial.
        claim: How many starts there were before.
        sweep_id: The id of the sweep.
        folder: The folder of the sweep.
        out: The folder for results.
        work: The folder for files of the attempt.
    """

    number: int
    claim: int
    sweep_id: str
    folder: Path
    out: Path
    work: Path

    @property
    def run_id(self) -> str:
        """The id of W&B's run."""
        return run_id(self.sweep_id, self.number)

    @property
    def cookie(self) -> str:
        """What the environment of each process of the trial has as COOKIE."""
        return f"{self.folder.resolve()}/{self.number:05d}"


def program_environment(
    spec: SweepSpec, attempt: Attempt, options: ProgramOptions, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a program; `environ` is that of the user."""
    project, entity = (str(spec.content.get(key) or "") for key in ("project", "entity"))
    environment = {k: v for k, v in environ.items() if k not in _REMOVED}
    defaults = {
        **{theirs: environ[ours] for ours, theirs in VARIABLES.items() if environ.get(ours)},
        "WANDB_RUN_GROUP": spec.name,
        _FLUSH: "0.1",
        "PYTHONUNBUFFERED": "1",  # Otherwise the output of a program that is killed is lost.
    }
    own = {
        **({"WANDB_PROJECT": project} if project else {}),
        **({"WANDB_ENTITY": entity} if entity else {}),
        **({} if options.online else {"WANDB_SWEEP_ID": attempt.sweep_id, "WANDB_MODE": "offline"}),
        "WANDB_RUN_ID": attempt.run_id,
        "WANDB_SWEEP_PARAM_PATH": str(_parameters_path(attempt)),
        "WANDB_DIR": str(attempt.out.resolve()),
        "DEEP_CNN_ATTEMPT": str(attempt.claim),
        COOKIE: attempt.cookie,
    }
    return {"WANDB_PROJECT": "uncategorized", **defaults, **environment, **own}


def program_command(
    spec: SweepSpec, point: Point, attempt: Attempt, *, hides_variables: bool = False
) -> list[str]:
    """Return the command line; with `hides_variables`, without the values of ${envvar:...}."""
    return expand(
        spec.command,
        str(spec.content.get("program", "")),
        spec.arguments(point),
        json_file=str(_json_path(attempt)),
        hides_variables=hides_variables,
    )


def _parameters_path(attempt: Attempt) -> Path:
    return attempt.work.resolve() / f"config-{attempt.run_id}.yaml"


def _json_path(attempt: Attempt) -> Path:
    return attempt.work.resolve() / "args.json"


def write_parameters(spec: SweepSpec, point: Point, attempt: Attempt) -> None:
    """Write the parameters as W&B's client reads them, and for ${args_json_file}. OutputError."""
    arguments = to_jsonable(spec.arguments(point))
    content = {"wandb_version": 1, **{k: {"value": v} for k, v in arguments.items()}}
    write_text(_parameters_path(attempt), yaml.safe_dump(content), make_folder=False)
    write_text(_json_path(attempt), json.dumps(arguments), make_folder=False)

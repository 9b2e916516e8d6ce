"""Whether and how W&B is reached, from --wandb and the environment; no W&B client is needed."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.results import assigned_trial
from deep_cnn.tracking.base import FOR_USER

_LOGGER = logging.getLogger("deep_cnn")
# Ours, and the name that W&B itself has for it.
_NAMES = {
    "key": ("WB_KEY", "WANDB_API_KEY"),
    "project": ("WB_PROJECT", "WANDB_PROJECT"),
    "entity": ("WB_USER", "WANDB_ENTITY"),
}
_OURS = tuple(ours for ours, _ in _NAMES.values())
_DEFAULT_PROJECT = "deep_cnn"
# What `wandb login` writes where no server of one's own is named.
_DEFAULT_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
_SHORTEST_KEY = 40
_HOW = "set WB_KEY, WB_PROJECT and WB_USER"
_OR_WITHOUT = ", or use --wandb=False"
# What W&B refuses in a project's name, and spaces, which its sweep commands cannot pass on.
_BAD_PROJECT = re.compile(r"[/\\#?%:\s]")


@dataclass(frozen=True, slots=True)
class Access:
    """Where W&B's numbers go. `insist`: --wandb=True was said, so that a refusal is an error."""

    project: str
    entity: str | None = None
    key: str | None = field(default=None, repr=False)
    offline: bool = False
    insist: bool = False


def find_access(config: TrainConfig) -> Access | None:
    """Return how this run reaches W&B; log one line and return None if only files are written.

    ConfigError where --wandb=True was said and something is missing or malformed.
    """
    return access_of(config.wandb, os.environ)


def access_of(
    wanted: bool | None, environ: Mapping[str, str], *, needed_by: str | None = None
) -> Access | None:
    """Do as `find_access`, for the value of --wandb and an environment.

    `needed_by` is what requires W&B, if it is not an option that could be left out.
    """
    without = "" if needed_by else _OR_WITHOUT
    if wanted is False:
        return None
    mode = environ.get("WANDB_MODE", "").lower()
    if mode == "disabled" or environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        _LOGGER.info("W&B: disabled by the environment, the numbers go to files")
        return None
    found = {name: _first(environ, *names) for name, names in _NAMES.items()}
    if mode in ("offline", "dryrun"):
        project = found["project"] or _DEFAULT_PROJECT
        return _sound(Access(project, found["entity"], offline=True, insist=bool(wanted)), without)
    given = [name for name in _OURS if environ.get(name)]
    missing = [ours for ours, standard in _NAMES.values() if not _first(environ, ours, standard)]
    if "WB_KEY" in missing and _in_netrc(environ):
        missing.remove("WB_KEY")
    asked = wanted or assigned_trial(environ) is not None
    standard = "WB_KEY" not in missing and not given
    if standard and (asked or "WB_PROJECT" not in missing):
        missing = []  # W&B's own login: it knows the user, and a project has a default.
    if not missing:
        project = found["project"] or _DEFAULT_PROJECT
        return _sound(Access(project, found["entity"], found["key"], insist=bool(wanted)), without)
    if wanted:
        who = f"{needed_by} needs W&B" if needed_by else "--wandb=True"
        raise ConfigError(f"{who}, but {_listed(missing)} not set; {_HOW}{without}")
    if given or asked:
        text = "W&B: %s not set, the numbers go to files; %s"
        _LOGGER.warning(text, _listed(missing), f"{_HOW}{_OR_WITHOUT}", extra=FOR_USER)
    else:
        _LOGGER.info("W&B: WB_KEY, WB_PROJECT and WB_USER are not set, the numbers go to files")
    return None


def _first(environ: Mapping[str, str], *names: str) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _listed(missing: list[str]) -> str:
    return f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'}"


def _sound(access: Access, without: str) -> Access | None:
    """`access`, unless W&B would refuse what it says."""
    problem = _problem(access)
    if problem is None:
        return access
    if access.insist:
        raise ConfigError(f"{problem}; correct it{without}")
    _LOGGER.warning("W&B: %s; the numbers go to files", problem, extra=FOR_USER)
    return None


def _problem(access: Access) -> str | None:
    key = access.key
    if key is not None:
        secret = key.partition("-")[2] or key
        is_token = re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", key)
        if not is_token and not (len(secret) >= _SHORTEST_KEY and re.fullmatch(r"[\w-]+", secret)):
            return (
                f"WB_KEY has the wrong shape ({len(key)} characters; a key has"
                f" {_SHORTEST_KEY} letters and digits or more)"
            )
    bad = _BAD_PROJECT.search(access.project)
    if bad or len(access.project) > 128:
        what = f"has {bad[0]!r} in it" if bad else "is longer than 128 characters"
        return f"the project name WB_PROJECT={access.project!r} {what}, which W&B does not take"
    if access.entity is not None and re.search(r"[/\s]", access.entity):
        return f"WB_USER={access.entity!r} is no user or team of W&B"
    return None


def _in_netrc(environ: Mapping[str, str]) -> bool:
    """Whether `wandb login` has been here."""
    home = Path(environ.get("HOME", "~")).expanduser()
    named = [Path(environ["NETRC"])] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]
    own = urlsplit(environ.get("WANDB_BASE_URL", "")).netloc
    hosts = (own,) if own else _DEFAULT_HOSTS
    for path in named:
        try:
            logins = netrc(path).hosts
        except (OSError, NetrcParseError, UnicodeDecodeError):
            continue
        if any(host in logins for host in hosts):
            return True
    return False


def redacted(text: str, access: Access | None) -> str:
    """`text` in one line, without the key."""
    line = " ".join(text.split())
    return line.replace(access.key, "***") if access and access.key else line

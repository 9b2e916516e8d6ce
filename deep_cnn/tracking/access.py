"""Find out whether and how to reach W&B, from --wandb and the environment."""

import configparser
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from deep_cnn.errors import ConfigError
from deep_cnn.results import assigned_trial
from deep_cnn.tracking.base import FOR_USER

_LOGGER = logging.getLogger("deep_cnn")
# Our name of each variable, and the name that W&B itself has for it.
VARIABLES = {"WB_KEY": "WANDB_API_KEY", "WB_PROJECT": "WANDB_PROJECT", "WB_USER": "WANDB_ENTITY"}
# The names in W&B's settings files, where `wandb init` and `wandb login` write them.
_SETTINGS = {"WB_PROJECT": "project", "WB_USER": "entity"}
DEFAULT_PROJECT = "deep_cnn"
# The server of `wandb login` if the user has set no other one.
_DEFAULT_HOSTS = {"api.wandb.ai", "api.forge.coreweave.com"}
_SHORTEST_KEY = 40
_HOW = "set WB_KEY, WB_PROJECT and WB_USER"
_OR_WITHOUT = ", or use --wandb=False"
# What W&B refuses in a project's name, and spaces, which its sweep commands cannot pass on.
_BAD_PROJECT = re.compile(r"[/\\#?%:\s]")


@dataclass(frozen=True, slots=True)
class Access:
    """How W&B is reached; with `insist` (--wandb=True), a refusal is an error."""

    project: str
    entity: str | None = None
    key: str | None = field(default=None, repr=False)
    offline: bool = False
    insist: bool = False


def access_of(
    wanted: bool | None, environ: Mapping[str, str], *, needed_by: str | None = None
) -> Access | None:
    """Return how W&B is reached; log one line and return None if only files are written.

    `wanted` is the value of --wandb. `needed_by` names what requires W&B, if it is not an option
    of the user. Raises ConfigError if W&B is wanted and a variable is missing or malformed.
    """
    if wanted is False:
        return None
    mode = environ.get("WANDB_MODE", "").lower()
    if mode == "disabled" or environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        _LOGGER.info("W&B: disabled by the environment, the numbers go to files")
        return None
    offline = mode in ("offline", "dryrun")
    values, host = _values(environ)
    has_ours = any(environ.get(name) for name in VARIABLES)
    asked = wanted or assigned_trial(environ) is not None
    missing = [] if offline else _missing(values, environ, host)
    if not has_ours and "WB_KEY" not in missing and (asked or "WB_PROJECT" not in missing):
        missing = []  # W&B's own login: it knows the user, and a project has a default.
    without = "" if needed_by else _OR_WITHOUT
    if not missing:
        key, project, entity = values.values()
        key = None if offline else key
        access = Access(project or DEFAULT_PROJECT, entity, key, offline, bool(wanted))
        problem = _problem(access)
        if problem and wanted:
            raise ConfigError(f"{problem}; correct it{without}")
        if problem:
            _LOGGER.warning("W&B: %s; the numbers go to files", problem, extra=FOR_USER)
        return None if problem else access
    names = f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'}"
    if wanted:
        who = f"{needed_by} needs W&B" if needed_by else "--wandb=True"
        raise ConfigError(f"{who}, but {names} not set; {_HOW}{without}")
    if has_ours or asked:
        text = "W&B: %s not set, the numbers go to files; %s"
        _LOGGER.warning(text, names, f"{_HOW}{_OR_WITHOUT}", extra=FOR_USER)
    elif len(missing) == len(VARIABLES):
        _LOGGER.info("W&B: WB_KEY, WB_PROJECT and WB_USER are not set, the numbers go to files")
    else:
        what = names if "WB_KEY" in missing else "a login, but no project: WANDB_PROJECT is"
        _LOGGER.info("W&B: %s not set, the numbers go to files", what)
    return None


def _values(environ: Mapping[str, str]) -> tuple[dict[str, str | None], str]:
    """Return the value of each variable, None if it has none, and the address of the server."""
    settings = _settings(environ)
    values = {
        k: environ.get(k) or environ.get(v) or settings.get(_SETTINGS.get(k, "")) or None
        for k, v in VARIABLES.items()
    }
    return values, environ.get("WANDB_BASE_URL") or settings.get("base_url", "")


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what W&B's settings files hold: of the user, and of the current folder."""
    home = _home(environ)
    config = Path(environ.get("WANDB_CONFIG_DIR") or home / ".config" / "wandb")
    here = Path(environ.get("WANDB_DIR") or ".")
    folder = here / (".wandb" if (here / ".wandb").exists() else "wandb")
    parser = configparser.ConfigParser(interpolation=None)
    with suppress(OSError, configparser.Error, UnicodeDecodeError):
        parser.read([config / "settings", folder / "settings"])
    return dict(parser["default"]) if parser.has_section("default") else {}


def _home(environ: Mapping[str, str]) -> Path:
    return Path(os.path.expanduser(environ.get("HOME", "~")))  # noqa: PTH111 - or it may fail.


def _missing(values: Mapping[str, str | None], environ: Mapping[str, str], host: str) -> list[str]:
    """Return the variables without a value; a key for `host` may be in ~/.netrc instead."""
    has_login = not values["WB_KEY"] and _in_netrc(environ, host)
    return [k for k, v in values.items() if not v and not (k == "WB_KEY" and has_login)]


def _problem(access: Access) -> str | None:
    """Return the reason why W&B would refuse, or None."""
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


def hosts_of_keys(environ: Mapping[str, str]) -> set[str]:
    """Return the hosts under which `wandb login` may have stored a key in ~/.netrc."""
    own = urlsplit(_values(environ)[1]).netloc
    return {own} if own else _DEFAULT_HOSTS


def is_logged_in(environ: Mapping[str, str]) -> bool:
    """Return whether `wandb login` has stored a key."""
    return _in_netrc(environ, _values(environ)[1])


def _in_netrc(environ: Mapping[str, str], host: str) -> bool:
    """Return whether `wandb login` has stored a key for the server at `host`."""
    home = _home(environ)
    named = [Path(environ["NETRC"])] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]
    own = urlsplit(host).netloc
    hosts = {own} if own else _DEFAULT_HOSTS
    for path in named:
        with suppress(OSError, NetrcParseError, UnicodeDecodeError):
            if hosts & netrc(path).hosts.keys():
                return True
    return False


def redacted(text: str, access: Access) -> str:
    """Return `text` in one line, without the key."""
    line = " ".join(text.split())
    return line.replace(access.key, "***") if access.key else line

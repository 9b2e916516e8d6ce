"""Ask whether W&B's server answers, and what it shows of a run or of a sweep."""

import json
import ssl
import time
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener, getproxies

import wandb
from wandb.apis.public.service_api import ServiceApi
from wandb.errors import CommError
from wandb.sdk.lib import wbauth
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from deep_cnn.tracking.access import Access, redacted
from deep_cnn.tracking.journal import Journal

_TIMEOUT = 10.0
# The client asks the same when it resumes a run.
_RESUME_STATUS = """
query RunResumeStatus($project: String, $entity: String, $name: String!) {
    model(name: $project, entityName: $entity) {
        bucket(name: $name, missingOk: true) {
            historyLineCount historyTail wandbConfig(keys: ["t"])
        }
    }
}"""


_SWEEP = """
query SweepWithRuns($project: String, $entity: String, $sweep: String!) {
    project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { config } }
}"""


@dataclass(frozen=True, slots=True)
class Received:
    """What W&B's server shows of the history of a run: the number of rows, and the last step."""

    lines: int = 0
    last_step: int = -1


def wait_until_visible(access: Access, journal: Journal, *, patiently: bool = False) -> Received:
    """Return what W&B shows of a run, once it must show all that it has acknowledged.

    `patiently` waits also for what may have been received without being acknowledged. Raises
    CommError.
    """
    if journal.contact is None and not patiently:
        return Received()
    waits = journal if patiently else replace(journal, is_open=False)
    while True:
        received = query_received(access, journal)
        left = waits.hidden_for(received.lines)
        if left <= 0:
            return received
        time.sleep(min(left, 1.0))


def query_received(access: Access, journal: Journal) -> Received:
    """Return what W&B shows of the history of a run; raise CommError."""
    names = {"project": journal.project, "entity": journal.entity, "name": journal.run_id}
    answer = _query(access, _RESUME_STATUS, names)
    try:
        bucket = (answer.get("model") or {}).get("bucket")
        if not bucket or "t" not in json.loads(bucket["wandbConfig"] or "{}"):
            return Received()
        tail = [json.loads(line) for line in json.loads(bucket["historyTail"] or "[]")]
        last = int(tail[-1].get("_step", -1)) if tail else -1
        return Received(int(bucket["historyLineCount"] or 0), last)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommError(f"an answer that is not W&B's ({type(error).__name__})") from None


def query_sweep(access: Access, name: str) -> str:
    """Return the configuration of a sweep on W&B as YAML; raise CommError."""
    names = {"project": access.project, "entity": access.entity, "sweep": name}
    try:
        return str(_query(access, _SWEEP, names)["project"]["sweep"]["config"])
    except (KeyError, TypeError):
        raise CommError(f"no sweep {name}") from None


def _query(access: Access, query: str, variables: dict[str, Any]) -> Any:
    """Return the answer to a query, without the client's own query for the user."""
    settings = wandb.setup().settings.model_copy()
    host = str(settings.base_url)
    if access.key:
        auth: wbauth.Auth | None = wbauth.AuthApiKey(host=host, api_key=access.key)
    else:
        auth = wbauth.authenticate_session(
            host=host, source="deep_cnn", no_offline=True, update_session=False
        )
    if auth is not None:
        wbauth.set_auth_settings(settings, auth)
    try:
        return ServiceApi(settings).execute_graphql(query, variables, timeout=_TIMEOUT)
    except (WandbApiFailedError, TimeoutError, ValueError) as error:
        raise CommError(redacted(str(error) or type(error).__name__, access)) from None


def probe(timeout: float = _TIMEOUT) -> None:
    """Raise OSError if no W&B answers, immediately on a node without internet.

    A captive portal answers instead of W&B, with a page or with nothing.
    """
    settings = wandb.setup().settings
    proxies = {"http": settings.http_proxy, "https": settings.https_proxy}
    handler = ProxyHandler({**getproxies(), **{k: v for k, v in proxies.items() if v}})
    body = json.dumps({"query": "query ServerInfo { serverInfo { cliVersionInfo } }"}).encode()
    try:
        request = Request(f"{settings.base_url}/graphql", body)
        request.add_header("Content-Type", "application/json")
        # Use a new opener, because the shared one keeps the proxies of its first use.
        with build_opener(handler).open(request, timeout=timeout) as answer:
            if not isinstance(json.loads(answer.read()), dict):
                raise ValueError
    except HTTPError:
        return  # It answers.
    except HTTPException as error:
        raise OSError(f"what answers is no W&B: {type(error).__name__}") from None
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):
            raise OSError(str(error.reason)) from None
    except ValueError:
        text = "what answers is no W&B, perhaps the login page of a network"
        raise OSError(text) from None

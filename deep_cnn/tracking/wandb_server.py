"""Ask whether W&B's server answers, and what it shows of a run."""

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
    settings = wandb.setup().settings.model_copy()
    host = str(settings.base_url)
    auth = (
        wbauth.AuthApiKey(host=host, api_key=access.key)
        if access.key
        else wbauth.authenticate_session(
            host=host, source="deep_cnn", no_offline=True, update_session=False
        )
    )
    if auth is not None:
        wbauth.set_auth_settings(settings, auth)
    names = {"project": journal.project, "entity": journal.entity, "name": journal.run_id}
    try:
        answer: Any = ServiceApi(settings).execute_graphql(_RESUME_STATUS, names, timeout=_TIMEOUT)
        bucket = (answer.get("model") or {}).get("bucket")
        if not bucket or "t" not in json.loads(bucket["wandbConfig"] or "{}"):
            return Received()
        tail = [json.loads(line) for line in json.loads(bucket["historyTail"] or "[]")]
    except (WandbApiFailedError, TimeoutError, ValueError, TypeError, KeyError) as error:
        raise CommError(redacted(str(error) or type(error).__name__, access)) from None
    last = int(tail[-1].get("_step", -1)) if tail else -1
    return Received(int(bucket["historyLineCount"] or 0), last)


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

"""A stand-in for the W&B server, good enough for the unmodified client and its command line.

It keeps in memory what arrives, so that a test can look at it, gives out the runs of sweeps, and
fails on request. What a client only reads back (`wandb.Api().run(...)`) is not there.
"""

import base64
import itertools
import json
import math
import random
import re
import secrets
import socket
import string
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import yaml

Json = dict[str, Any]

_FOLDERS = ("config", "cache", "data")
_RETRIED = ("FILE_STREAM", "FILE_TRANSFER", "GRAPHQL")
_STAMP = re.compile(r"(?:ERROR )?\d{4}-\d\d-\d\dT[\d:.]+ ", re.ASCII)


@dataclass
class Run:
    """A run, as far as its client has told."""

    id: str
    project: str
    entity: str
    name: str = ""
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    config: Json = field(default_factory=dict)
    sweep: str | None = None
    commit: str | None = None
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    exitcode: int | None = None
    preempting: bool = False
    inits: int = 0
    # As it arrived: {"lr": {"value": 0.1}, "_wandb": ...}; a client that resumes wants it back.
    raw_config: Json = field(default_factory=dict, repr=False)
    lines: dict[str, list[str]] = field(default_factory=dict, repr=False)
    stop_by_agent: bool = False
    stop_by_stream: bool = False
    program: str | None = None
    # When each line of the history arrived.
    arrivals: list[float] = field(default_factory=list, repr=False)
    # How many lines a session that resumes the run was not shown: it must not replace them.
    hidden: int = 0

    @property
    def history(self) -> list[Json]:
        """What was logged, in order."""
        return [json.loads(line) for line in self.lines.get("wandb-history.jsonl", []) if line]

    @property
    def summary(self) -> Json:
        """The last summary."""
        lines = self.lines.get("wandb-summary.json")
        summary: Json = json.loads(lines[-1]) if lines else {}
        return summary

    @property
    def output(self) -> list[str]:
        """The lines of the console, without the time that the client puts before each."""
        return [_STAMP.sub("", line, 1) for line in self.lines.get("output.log", [])]

    @property
    def state(self) -> str:
        """One of pending, running, finished, failed, preempted."""
        if not self.inits:
            return "pending"
        if self.exitcode is None:
            return "running"
        if self.exitcode == 0:
            return "finished"
        return "preempted" if self.preempting else "failed"

    def store(self, name: str, offset: int, content: list[str]) -> None:
        """Put lines where they belong: a retry sends the same ones again."""
        lines = self.lines.setdefault(name, [])
        offset += self.hidden if name == "wandb-history.jsonl" else 0
        lines.extend([""] * (offset - len(lines)))
        lines[offset : offset + len(content)] = content
        if name == "wandb-history.jsonl":
            self.arrivals.extend([time.monotonic()] * (len(lines) - len(self.arrivals)))

    def visible(self, lag: float) -> list[str]:
        """The lines of the history that have been there for `lag` seconds."""
        history = self.lines.get("wandb-history.jsonl", [])
        now = time.monotonic()
        return [line for line, at in zip(history, self.arrivals, strict=True) if now - at >= lag]

    def open(self, *, resumed: bool, lag: float) -> None:
        """A program has called init."""
        self.hidden = len(self.arrivals) - len(self.visible(lag)) if resumed else 0
        if self.inits and not resumed:
            self.lines.clear()
            self.arrivals.clear()
        if self.inits:
            self.stop_by_agent = self.stop_by_stream = False
        self.inits += 1
        self.exitcode, self.preempting = None, False


@dataclass
class Sweep:
    """A sweep and the runs that it has given out."""

    id: str
    project: str
    entity: str
    config: Json
    state: str = "PENDING"
    runs: list[str] = field(default_factory=list)
    arguments: dict[str, Json] = field(default_factory=dict)
    points: Iterator[Json] = field(default_factory=lambda: iter(()), repr=False)
    preempted: list[str] = field(default_factory=list, repr=False)


@dataclass
class Artifact:
    """A version of an artifact; -1 until it is committed."""

    name: str
    type: str
    aliases: list[str]
    version: int
    files: dict[str, bytes] = field(repr=False)
    metadata: Json
    run: str
    project: str = ""
    entity: str = ""
    digest: str = ""
    id: str = ""


@dataclass
class Fault:
    """Something that goes wrong until it is lifted."""

    endpoint: str
    status: int
    times: int | None
    hang: float
    body: str
    # The answer has this body with status 200, as from the login page of a network.
    is_portal: bool = False
    hits: int = 0
    lifted: bool = False

    def lift(self) -> None:
        """All is well again."""
        self.lifted = True

    def strikes(self, line: str) -> bool:
        """Whether this request fails; it is counted."""
        spent = self.times is not None and self.hits >= self.times
        if self.lifted or spent or self.endpoint not in line:
            return False
        self.hits += 1
        return True


@dataclass
class _Agent:
    id: str
    sweep: str
    alive: set[str] = field(default_factory=set)


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WandbServer:
    """The server, listening from its creation to `close`."""

    def __init__(self) -> None:
        self.key = f"local-{secrets.token_hex(20)}"
        self.entity = "tester"
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.every_artifact: list[Artifact] = []
        self.requests: list[str] = []
        # Real servers show rows only after some seconds.
        self.lag = 0.0
        # Real servers refuse a run of a sweep that they do not know; many tests have no sweep.
        self.knows_sweeps_only = False
        self._all_artifacts: dict[str, Artifact] = {}
        self._agents: dict[str, _Agent] = {}
        self._faults: list[Fault] = []
        self._random = random.Random(0)
        self._lock = threading.RLock()
        self._operations: dict[str, Callable[[Json], Json]] = {
            "Viewer": self._viewer,
            "GetViewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "UpsertBucket": self._upsert_bucket,
            "RunResumeStatus": self._resume_status,
            "CreateRunFiles": self._create_run_files,
            "UpsertSweep": self._upsert_sweep,
            "SweepWithRuns": self._get_sweep,
            "GetSweepState": self._get_sweep,
            "CreateAgent": self._create_agent,
            "Heartbeat": self._heartbeat,
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._create_manifest,
            "CreateArtifactFiles": self._create_artifact_files,
            "CommitArtifact": self._commit_artifact,
            "ArtifactByID": self._artifact_by_id,
        }
        self._http = _Http(self)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        serve = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)
        serve.start()

    @property
    def artifacts(self) -> list[Artifact]:
        """The checkpoints; W&B keeps the tables of a run as artifacts, too."""
        return [one for one in self.every_artifact if one.type == "model"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # For tests.

    def close(self) -> None:
        """Vanish: nothing listens any more, and what was open is cut."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._http.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def environment(self, home: Path, **extra: str) -> dict[str, str]:
        """What to add to the environment of a client; the key is not in it."""
        home.mkdir(parents=True, exist_ok=True)
        folders = {f"WANDB_{name.upper()}_DIR": str(home / name) for name in _FOLDERS}
        waits = {f"WANDB__{kind}_RETRY_WAIT_MIN_SECONDS": "0.2" for kind in _RETRIED}
        waits |= {f"WANDB__{kind}_RETRY_WAIT_MAX_SECONDS": "1" for kind in _RETRIED}
        return {
            "WANDB_BASE_URL": self.url,
            "HOME": str(home),
            "NETRC": str(home / ".netrc"),
            "WANDB__DISABLE_STATS": "true",
            # Else crashes of the client are reported to a public host.
            "WANDB_ERROR_REPORTING": "false",
            **folders,
            **waits,
            **extra,
        }

    def add_sweep(
        self, config: Json, project: str = "p", points: Iterable[Json] | None = None
    ) -> str:
        """Make a sweep and return its id; the arguments of its runs are `points`, if given."""
        points = _points(config, self._random) if points is None else iter(points)
        with self._lock:
            sweep = Sweep(_short_id(), project, self.entity, config, points=points)
            self.sweeps[sweep.id] = sweep
        return sweep.id

    def add_run(self, sweep: str, history: Sequence[Json]) -> None:
        """Add a run that is over to a sweep."""
        run = Run(_short_id(), self.sweeps[sweep].project, self.entity, inits=1, exitcode=0)
        run.store("wandb-history.jsonl", 0, [json.dumps(row) for row in history])
        self.runs[run.id] = run
        self.sweeps[sweep].runs.append(run.id)

    def stop_run(self, run_id: str, *, by_agent: bool = True) -> None:
        """Ask a run to stop: through the agent, or in the answer to what the run uploads."""
        if by_agent:
            self.runs[run_id].stop_by_agent = True
        else:
            self.runs[run_id].stop_by_stream = True

    def fault(
        self,
        endpoint: str,
        status: int = 500,
        *,
        times: int | None = None,
        hang: float = 0.0,
        body: str = '{"errors": [{"message": "the stand-in was told to fail"}]}',
        is_portal: bool = False,
    ) -> Fault:
        """Let requests fail whose line in `requests` contains `endpoint`.

        Status 0 drops the connection; with status 200 the answer is only late, by `hang` seconds.
        """
        fault = Fault(endpoint, status, times, hang, body, is_portal)
        with self._lock:
            self._faults.append(fault)
        return fault

    # Requests.

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, str]:
        """Status and body for a request."""
        # A client that uses this server as a proxy sends whole addresses.
        path = unquote(re.sub(r"^http://[^/]+", "", path))
        known = method == "POST" and (path == "/graphql" or path.endswith("/file_stream"))
        posted: Json = json.loads(body) if known else {}
        operation = _operation(posted) if path == "/graphql" else ""
        line = f"graphql {operation}" if operation else f"{method} {path}"
        with self._lock:
            self.requests.append(line)
            fault = next((f for f in self._faults if f.strikes(line)), None)
        if fault:
            time.sleep(fault.hang)
            if fault.status != 200 or fault.is_portal:
                return fault.status, fault.body
        try:
            with self._lock:
                if path.startswith("/upload/") and method == "PUT":
                    return 200, json.dumps(self._upload(path, body))
                if not known:
                    # Telemetry, too: after anything but 404 the client would go on sending it.
                    raise _Refused(404, f"there is no {path}")
                if authorization != f"Basic {_encode(f'api:{self.key}')}":
                    raise _Refused(401, "user is not logged in")
                if not operation:
                    return 200, json.dumps(self._file_stream(path, posted))
                if operation not in self._operations:
                    raise _Refused(404, f"there is no operation {operation}")
                data = self._operations[operation](posted.get("variables") or {})
                return 200, json.dumps({"data": data})
        except _Refused as refused:
            return refused.status, json.dumps({"errors": [{"message": str(refused)}]})
        except Exception as error:
            # Not 500: the client would repeat that for hours, and the test would hang.
            traceback.print_exc()
            return 400, json.dumps({"errors": [{"message": f"in the stand-in: {error!r}"}]})

    def _viewer(self, _: Json) -> Json:
        none: Json = {"edges": []}
        names = {"id": "User:1", "name": self.entity, "username": self.entity, "email": ""}
        known = {"entity": self.entity, "flags": "{}", "admin": False, "deletedAt": None}
        return {"viewer": {**names, **known, "teams": none, "apiKeys": none}}

    # Runs.

    def _upsert_bucket(self, v: Json) -> Json:
        run = self.runs.get(v["name"])
        if v.get("sweep") and v["sweep"] not in self.sweeps and self.knows_sweeps_only:
            raise _Refused(404, f"there is no sweep {v['sweep']}")
        inserted = run is None
        if run is None:
            name = v.get("displayName") or f"run-{len(self.runs) + 1}"
            project, entity = v.get("project") or "uncategorized", v.get("entity") or self.entity
            run = self.runs[v["name"]] = Run(v["name"], project, entity, name)
        config: Json = json.loads(v.get("config") or "{}")
        # Some changes come with the host as well; but once it runs, a client is in its config.
        if v.get("host") and not config.get("_wandb", {}).get("value", {}).get("e"):
            run.open(resumed=bool(v.get("id")), lag=self.lag)
        given = {"name": v.get("displayName"), "group": v.get("groupName")}
        given |= {"job_type": v.get("jobType")}
        given |= {key: v.get(key) for key in ("tags", "notes", "commit", "sweep", "program")}
        for key, value in given.items():
            if value is not None:
                setattr(run, key, value)
        if config:
            run.raw_config = config
            run.config = {k: c["value"] for k, c in config.items() if k != "_wandb"}
        sweep = self.sweeps.get(run.sweep or "")
        if sweep and run.id not in sweep.runs:
            sweep.runs.append(run.id)
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _resume_status(self, v: Json) -> Json:
        run = self.runs.get(v["name"])
        bucket = self._bucket(run) if run and run.inits else None
        project = _project(v.get("entity") or self.entity, v.get("project") or "uncategorized")
        return {"model": {**project, "bucket": bucket}}

    def _bucket(self, run: Run) -> Json:
        history = run.visible(self.lag)
        events = run.lines.get("wandb-events.jsonl", [])
        return {
            "id": run.id,
            "name": run.id,
            "displayName": run.name,
            "description": None,
            "config": json.dumps(run.raw_config),
            "sweepName": run.sweep,
            "project": _project(run.entity, run.project),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": len(run.output),
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "tags": run.tags,
            "notes": run.notes,
            "wandbConfig": json.dumps({"t": {}}),  # Without a "t" it would not count as begun.
        }

    def _file_stream(self, path: str, posted: Json) -> Json:
        run = self.runs.get(path.split("/")[-2])
        if run is None:
            raise _Refused(404, f"there is no run {path}")
        for name, part in (posted.get("files") or {}).items():
            run.store(name, part.get("offset", 0), part["content"])
        run.preempting = run.preempting or bool(posted.get("preempting"))
        if posted.get("complete") and run.exitcode is None:
            run.exitcode = posted.get("exitcode", 0)
            sweep = self.sweeps.get(run.sweep or "")
            if sweep and run.state == "preempted":
                sweep.preempted.append(run.id)
        return {"stopped": True} if run.stop_by_stream else {}

    def _create_run_files(self, v: Json) -> Json:
        names = [(name, quote(f"/upload/run/{v['run']}/{name}")) for name in v["files"]]
        files = [{"name": name, "uploadUrl": self.url + path} for name, path in names]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def _upload(self, path: str, body: bytes) -> Json:
        _, _, kind, owner, name = path.split("/", 4)
        holder = self.runs[owner] if kind == "run" else self._all_artifacts[owner]
        if kind != "manifest":  # Which only repeats what the files say.
            holder.files[name] = body
        return {}

    # Sweeps.

    def _upsert_sweep(self, v: Json) -> Json:
        if v.get("config"):
            if v.get("id"):
                raise _Refused(400, "the stand-in cannot change the configuration of a sweep")
            new = self.add_sweep(yaml.safe_load(v["config"]), v.get("projectName") or "p")
            sweep = self.sweeps[new]
            sweep.entity = v.get("entityName") or sweep.entity
        else:
            sweep = self.sweeps[v["id"]]
        sweep.state = v.get("state") or sweep.state
        answer = {"name": sweep.id, "project": _project(sweep.entity, sweep.project)}
        return {"upsertSweep": {"sweep": answer, "configValidationWarnings": []}}

    def _get_sweep(self, v: Json) -> Json:
        sweep = self.sweeps.get(v["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        states = [{"name": run, "state": self.runs[run].state} for run in sweep.runs]
        answer = {
            "id": sweep.id,
            "name": sweep.id,
            "method": sweep.config["method"],
            "state": sweep.state,
            "config": yaml.safe_dump(sweep.config),
            "runs": {"edges": [{"node": state} for state in states]},
        }
        return {"project": {"sweep": answer}}

    def _create_agent(self, v: Json) -> Json:
        if v["sweep"] not in self.sweeps:
            raise _Refused(404, f"there is no sweep {v['sweep']}")
        agent = _Agent(_encode(f"Agent:{len(self._agents)}"), v["sweep"])
        self._agents[agent.id] = agent
        return {"createAgent": {"agent": {"id": agent.id}}}

    def _heartbeat(self, v: Json) -> Json:
        agent = self._agents.get(v["id"])
        sweep = self.sweeps.get(agent.sweep) if agent else None
        if agent is None or sweep is None:
            raise _Refused(404, "there is no such sweep or agent")
        states: Json = json.loads(v.get("runState") or "{}")
        agent.alive = {run for run, lives in states.items() if lives}
        self._stop_early(sweep)
        command = self._command(agent, sweep)
        commands = json.dumps([command] if command else [])
        return {"agentHeartbeat": {"agent": {"id": agent.id}, "commands": commands}}

    def _command(self, agent: _Agent, sweep: Sweep) -> Json | None:
        # One at a time: the agent for functions reads only the first.
        if sweep.state == "CANCELED":
            return {"type": "exit"}
        for run_id in agent.alive:
            if run_id in self.runs and self.runs[run_id].stop_by_agent:
                return {"type": "stop", "run_id": run_id}
        if agent.alive or sweep.state == "PAUSED":
            return None
        if sweep.state not in ("PENDING", "RUNNING"):
            return {"type": "exit"}
        kind = "resume" if sweep.preempted else "run"
        if sweep.preempted:
            run_id = sweep.preempted.pop(0)
        else:
            point = next(sweep.points, None)
            if point is None:
                if self._is_over(sweep, agent):
                    sweep.state = "FINISHED"
                return {"type": "exit"}
            run_id = _short_id()
            name = f"trial-{len(sweep.runs) + 1}"
            run = Run(run_id, sweep.project, sweep.entity, name, config=point, sweep=sweep.id)
            self.runs[run_id] = run
            sweep.runs.append(run_id)
            sweep.arguments[run_id] = point
            sweep.state = "RUNNING"
        agent.alive.add(run_id)
        arguments = {key: {"value": value} for key, value in sweep.arguments[run_id].items()}
        program = sweep.config.get("program")
        return {"type": kind, "run_id": run_id, "program": program, "args": arguments}

    def _is_over(self, sweep: Sweep, agent: _Agent) -> bool:
        """Whether no other agent has a run that may yet be preempted.

        One that was killed with its run is waited for: the sweep then stays RUNNING.
        """
        others = [other for other in self._agents.values() if other is not agent]
        living = {run for other in others for run in other.alive if run in sweep.runs}
        return all(self.runs[run].exitcode is not None for run in living)

    def _stop_early(self, sweep: Sweep) -> None:
        """Hyperband as W&B does it: one rule of successive halving, no brackets."""
        rule, metric = sweep.config.get("early_terminate"), sweep.config.get("metric")
        if not rule or not metric:
            return
        sign = -1 if metric.get("goal") == "maximize" else 1
        curves = {run: _curve(self.runs[run], metric["name"], sign) for run in sweep.runs}
        for run_id, curve in curves.items():
            run = self.runs[run_id]
            band = _last_band(rule, len(curve))
            if not band or run.state != "running":
                continue
            there = sorted(other[band - 1] for other in curves.values() if len(other) >= band)
            value = curve[band - 1] if rule.get("strict", True) else min(curve)
            # 1 / eta comes first, as in W&B: the product may be a hair below a whole number.
            if value > there[int(1 / rule.get("eta", 3) * len(there))]:
                run.stop_by_agent = True

    # Artifacts.

    def _create_artifact(self, v: Json) -> Json:
        given = v["input"]
        new = Artifact(
            given["artifactCollectionName"],
            given["artifactTypeName"],
            [alias["alias"] for alias in given.get("aliases") or []],
            version=-1,
            files={},
            metadata=json.loads(given.get("metadata") or "{}"),
            run=given.get("runName") or "",
            project=given["projectName"],
            entity=given["entityName"],
            digest=given["digest"],
            id=_encode(f"Artifact:{len(self._all_artifacts)}"),
        )
        versions = self._versions(new)
        latest = {"id": versions[-1].id} if versions else None
        same = next((a for a in versions if a.digest == new.digest), None)
        if same and given.get("enableDigestDeduplication"):
            self._move_aliases(same, new.aliases)
            answer: Json = {"id": same.id, "state": "COMMITTED"}
        else:
            self._all_artifacts[new.id] = new
            answer = {"id": new.id, "state": "PENDING"}
        answer["artifactSequence"] = {"latestArtifact": latest}
        return {"createArtifact": {"artifact": answer}}

    def _create_manifest(self, v: Json) -> Json:
        url = self.url + quote(f"/upload/manifest/{v['artifactID']}/{v['name']}")
        file = {"id": _encode("File"), "uploadUrl": url, "uploadHeaders": []}
        manifest = {"id": _encode("Manifest"), "file": file}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _create_artifact_files(self, v: Json) -> Json:
        edges = []
        for file in v["input"]["artifactFiles"]:
            path = quote(f"/upload/artifact/{file['artifactID']}/{file['name']}")
            node = {
                "storagePath": file["name"],
                "uploadUrl": self.url + path,
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, v: Json) -> Json:
        artifact = self._all_artifacts[v["artifactID"]]
        if artifact.version < 0:
            artifact.version = len(self._versions(artifact))
            self.every_artifact.append(artifact)
            self._move_aliases(artifact, [*artifact.aliases, "latest"])
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def _artifact_by_id(self, v: Json) -> Json:
        artifact = self._all_artifacts[v["id"]]
        collection = {
            "__typename": "ArtifactSequence",
            "name": artifact.name,
            "project": _project(artifact.entity, artifact.project),
        }
        aliases = [
            {"id": _encode(f"Alias:{alias}"), "alias": alias, "artifactCollection": collection}
            for alias in artifact.aliases
        ]
        node = {
            "id": artifact.id,
            "artifactSequence": collection,
            "versionIndex": artifact.version,
            "artifactType": {"name": artifact.type},
            "description": None,
            "metadata": json.dumps(artifact.metadata),
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "PENDING" if artifact.version < 0 else "COMMITTED",
            "size": sum(map(len, artifact.files.values())),
            "digest": artifact.digest,
            "commitHash": "0" * 20,
            "fileCount": len(artifact.files),
            "createdAt": "2025-01-01T00:00:00Z",
            "updatedAt": "2025-01-01T00:00:00Z",
            "aliases": aliases,
        }
        return {"artifact": node}

    def _versions(self, artifact: Artifact) -> list[Artifact]:
        key = (artifact.project, artifact.name)
        return [other for other in self.every_artifact if (other.project, other.name) == key]

    def _move_aliases(self, artifact: Artifact, aliases: list[str]) -> None:
        for other in self._versions(artifact):
            if other is not artifact:
                other.aliases = [alias for alias in other.aliases if alias not in aliases]
        artifact.aliases = list(dict.fromkeys([*artifact.aliases, *aliases]))


class _Http(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, owner: WandbServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent about clients that were killed and connections that were cut."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet an answer; else each waits for the acknowledgement of its headers.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorization = self.headers.get("Authorization") or ""
        status, text = self.server.owner.answer(self.command, self.path, authorization, body)
        if status == 0:
            self.close_connection = True
            return
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST


def _operation(posted: Json) -> str:
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", posted.get("query", ""))
    return posted.get("operationName") or (match[1] if match else "unnamed")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _short_id() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _project(entity: str, name: str) -> Json:
    ids = {"id": _encode(f"Project:{name}"), "internalId": _encode(f"ProjectInternal:{name}")}
    return {**ids, "name": name, "entity": {"id": _encode(f"Entity:{entity}"), "name": entity}}


def _curve(run: Run, metric: str, sign: int) -> list[float]:
    logged = (row.get(metric) for row in run.history)
    numbers = (v for v in logged if isinstance(v, int | float) and not isinstance(v, bool))
    return [sign * v for v in numbers if math.isfinite(v)]


def _last_band(rule: Json, count: int) -> int:
    """The last band that `count` values reach, or 0."""
    eta = rule.get("eta", 3)
    if "max_iter" in rule:
        bands = [int(rule["max_iter"] / eta**k) for k in range(1, int(rule["s"]) + 1)]
    else:
        growing = (int(rule["min_iter"] * eta**k) for k in range(100))
        bands = list(itertools.takewhile(lambda band: band <= count, growing))
    return max((band for band in bands if 1 <= band <= count), default=0)


def _points(config: Json, source: random.Random) -> Iterator[Json]:
    """The arguments of one run after the other."""
    parameters = config["parameters"]
    if config["method"] == "grid":
        points = iter(_grid(parameters))
    else:  # Bayes, too: what it would learn does not matter to a client.
        points = (_sample({"parameters": parameters}, source) for _ in itertools.count())
    return itertools.islice(points, config.get("run_cap"))


def _grid(parameters: Json) -> list[Json]:
    """All combinations, the last name fastest."""
    names = sorted(parameters)
    choices = [_choices(name, parameters[name]) for name in names]
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices)]
    return list({json.dumps(point): point for point in points}.values())


def _choices(name: str, parameter: Json) -> list[Any]:
    if "parameters" in parameter:
        return _grid(parameter["parameters"])
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return list(parameter["values"])
    kind = _distribution(parameter)
    if kind == "int_uniform":
        return list(range(parameter["min"], parameter["max"] + 1))
    raise _Refused(400, f"{name}: there is no grid over {kind}")


def _sample(parameter: Json, source: random.Random) -> Any:
    if "parameters" in parameter:
        nested = parameter["parameters"]
        return {name: _sample(nested[name], source) for name in sorted(nested)}
    if "value" in parameter:
        return parameter["value"]
    if "values" in parameter:
        return source.choices(parameter["values"], parameter.get("probabilities"))[0]
    kind = _distribution(parameter)
    value = _DRAWS[kind.removeprefix("q_")](source, parameter)
    if kind.startswith("q_"):
        step = parameter.get("q", 1.0)
        return round(value / step) * step
    return value


def _distribution(parameter: Json) -> str:
    whole = isinstance(parameter.get("min"), int) and isinstance(parameter.get("max"), int)
    return str(parameter.get("distribution") or ("int_uniform" if whole else "uniform"))


def _log_uniform_values(source: random.Random, p: Json) -> float:
    low, high = float(p["min"]), float(p["max"])
    value = math.exp(source.uniform(math.log(low), math.log(high)))
    return min(max(value, low), high)  # exp(log(x)) may miss x by a bit.


_DRAWS: dict[str, Callable[[random.Random, Json], float]] = {
    "uniform": lambda source, p: source.uniform(p["min"], p["max"]),
    "int_uniform": lambda source, p: source.randint(p["min"], p["max"]),
    "log_uniform_values": _log_uniform_values,
    "normal": lambda source, p: source.gauss(p.get("mu", 0), p.get("sigma", 1)),
}

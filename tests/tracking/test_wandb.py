"""Runs, sweeps and agents with W&B's own client, against a stand-in for its server."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import torch
import wandb
import yaml

from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.tracking import wandb_client
from deep_cnn.tracking.access import access_of
from tests.conftest import (
    PATIENCE,
    SHOWS_PROCESSES,
    Command,
    environment,
    make_classes,
    processes,
    until,
    workers,
)
from tests.wandb_server import Run, WandbServer

KEY = "k" * 40
SMALL = ("--task=digits", "--train_samples=64")
DIGITS = (*SMALL, "--epochs=2")
UPLOAD = "python -m deep_cnn upload outputs"
# A run that goes on until the test has seen enough.
ENDLESS = 100_000
COMMAND = ["${env}", "python", "-m", "deep_cnn", "${args}"]
# The agent of W&B asks every 5 seconds; that is not what is tested here.
AGENT = (
    "from wandb import wandb_agent as a; a.Agent.POLL_INTERVAL = 0.2;"
    " from wandb.cli.cli import cli; cli()"
)
# Nor does its client ask only every 15 seconds whether it is to stop.
ATTENTIVE = (
    "from wandb.sdk.lib.run_stopping import RunStopChecker as c;"
    " c.__init__.__kwdefaults__['poll_interval'] = 0.2;"
    " import sys; from deep_cnn.cli import main; sys.exit(main())"
)


class Client:
    """Starts programs that know of the server, in a folder of their own."""

    def __init__(self, server: WandbServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.started: dict[subprocess.Popen[str], tuple[TextIO, ...]] = {}
        self.env = environment(
            **server.environment(folder / "home"),
            WB_KEY=server.key,
            WB_PROJECT="p",
            WB_USER="tester",
            WANDB_API_KEY=server.key,
            WANDB_PROJECT="p",
            # The client tells its server every 15 seconds what is new; a test cannot wait for it.
            WANDB__FILE_STREAM_TRANSMIT_INTERVAL="0.2",
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )

    def start(self, *words: str, **extra: str) -> "subprocess.Popen[str]":
        # Files: a pipe that nobody reads would hold up a run that says much.
        out, err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 - closed with the client
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=environment(**{**self.env, **extra}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
        )
        self.started[process] = out, err
        return process

    def __call__(self, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        """Run `python -m deep_cnn WORDS`."""
        return self.ended(self.start("-m", "deep_cnn", *words, **extra))

    def wandb(self, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        return self.ended(self.start("-c", AGENT, *words, **extra))

    def ended(self, process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
        process.wait(timeout=PATIENCE)
        said = []
        for file in self.started[process]:
            file.seek(0)
            said.append(file.read())
        return subprocess.CompletedProcess(process.args, process.returncode, *said)

    def close(self) -> None:
        """A test that fails leaves nothing running."""
        for process, files in self.started.items():
            process.kill()
            process.wait()
            for file in files:
                file.close()

    def result(self, name: str) -> Any:
        return json.loads((self.folder / "outputs" / "results" / f"{name}.json").read_text())

    def table(self, name: str) -> list[dict[str, float]]:
        path = self.folder / "outputs" / "results" / f"{name}.csv"
        with path.open() as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


@pytest.fixture
def client(server: WandbServer, tmp_path: Path) -> Iterator[Client]:
    client = Client(server, tmp_path)
    yield client
    client.close()


@pytest.fixture
def here(client: Client, here: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run `python -m deep_cnn WORDS` as the client does, but in this very process."""

    def run(*words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        wandb.teardown()
        monkeypatch.setattr(wandb_client, "_down_until", 0.0)
        return here(*words, **{**client.env, **extra})

    yield run
    wandb.teardown()


def only(server: WandbServer) -> Run:
    (run,) = server.runs.values()
    return run


def rows(run: Run) -> list[dict[str, Any]]:
    """The history as it is in the table of results."""
    media = (
        "examples",
        "predictions",
        "confusion_matrix_table",
        "scatter_table",
        "step_loss_table",
    )
    hidden = ("_step", "_runtime", "_timestamp", *media)
    return [{k: v for k, v in row.items() if k not in hidden} for row in run.history]


def no_trace_of_the_key(client: Client) -> None:
    key = client.server.key.encode()
    for path in client.folder.rglob("*"):
        if path.is_file():
            assert key not in path.read_bytes(), path
    for run in client.server.runs.values():
        assert key.decode() not in json.dumps([run.config, run.summary, run.output])
        assert not [name for name, content in run.files.items() if key in content]


# One run.


def test_a_run_carries_all_that_the_dashboard_compares(client: Client, server: WandbServer) -> None:
    done = client(*DIGITS, "--run_name=first", "--lr=0.02")
    assert done.returncode == 0, done.stderr
    run = only(server)
    assert (run.name, run.job_type, run.state) == ("first", "train", "finished")
    assert run.id != "first"
    assert run.project == "p"
    assert run.commit
    assert {"digits", "lenet"} <= set(run.tags)
    arguments = json.loads((client.folder / "outputs/results/first.args.json").read_text())
    assert run.config == arguments
    assert rows(run) == client.table("first")
    best = client.result("first")["best"]
    assert run.summary["best_loss_val"] == best["value"]
    assert run.summary["best_epoch"] == best["epoch"]
    assert run.summary["loss_val"] == run.history[-1]["loss_val"]
    assert run.summary["parameters"] > 1000
    assert run.summary["state"] == "finished"
    captions = run.history[-1]["examples"]["captions"]
    assert len(captions) == 8
    assert captions[0].startswith("truth 0, prediction ")
    (artifact,) = server.artifacts
    assert artifact.type == "model"
    assert {"best", "latest", "first"} <= set(artifact.aliases)
    path = client.folder / "downloaded.pt"
    path.write_bytes(artifact.files["first.best.pt"])
    assert torch.load(path, weights_only=True)["run_name"] == "first"
    assert not (client.folder / "home" / ".netrc").exists()
    no_trace_of_the_key(client)


def test_what_goes_on_and_what_is_tested_stays_one_run(
    client: Client, here: Command, server: WandbServer
) -> None:
    here(*DIGITS, "--run_name=first", "--wandb_artifacts=none")
    resumed = here("--resume=outputs/models/first.pt", "--epochs=3", "--wandb_artifacts=none")
    assert resumed.returncode == 0, resumed.stderr
    tested = here("--test_net=outputs/models/first.best.pt")
    assert tested.returncode == 0, tested.stderr
    run = only(server)
    assert run.inits == 3
    assert rows(run) == client.table("first")
    assert run.summary["loss_test"] == client.result("first")["test"]["loss_test"]
    assert run.state == "finished"
    assert not server.artifacts


def test_what_a_run_does_not_need_is_not_even_imported(client: Client, server: WandbServer) -> None:
    """Without W&B its client; and what makes a run begin late, or a worker large.

    Digits come with scikit-learn, and torchvision imports torch._dynamo: neither is used here.
    """
    make_classes(client.folder / "classes")
    words = ("--data_dir=classes", "--model=efficientnet_lite0", "--epochs=1")
    code = (
        "import sys; from deep_cnn.cli import main;"
        f" status = main([*{words}, '--wandb=False']);"
        " heavy = {'wandb', 'sklearn', 'scipy.stats', 'torch._dynamo'} & set(sys.modules);"
        " assert not heavy, heavy; sys.exit(status)"
    )
    done = client.ended(client.start("-c", code))
    assert done.returncode == 0, done.stderr
    assert not server.requests


# Credentials.


def access(wanted: bool | None = None, **environ: str) -> Any:
    return access_of(wanted, environ)


OURS = {"WB_KEY": KEY, "WB_PROJECT": "p", "WB_USER": "u"}
STANDARD = {"WANDB_API_KEY": KEY, "WANDB_PROJECT": "p", "WANDB_ENTITY": "u"}


def test_wandb_is_on_where_it_can_be(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert access(**home) is None
    assert access(**home, **OURS).key == KEY
    assert access(**home, **STANDARD).entity == "u"
    assert access(False, **home, **OURS) is None
    assert access(**home, **OURS, WANDB_MODE="disabled") is None
    assert access(**home, WANDB_MODE="offline").offline
    assert access(**home, **OURS, WANDB_MODE="offline").project == "p"
    assert access(True, **home, WANDB_API_KEY=KEY).entity is None
    assert KEY not in repr(access(**home, **OURS))


def test_a_login_that_wandb_has_kept_is_enough(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    home = {"HOME": str(tmp_path)}
    assert access(**home) is None
    assert access(**home, WANDB_PROJECT="p").project == "p"
    assert access(True, **home) is not None
    assert access(WANDB_SWEEP_ID="s", WANDB_RUN_ID="r", **home) is not None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({**OURS, "WB_KEY": ""}, "WB_KEY"),
        ({**OURS, "WB_USER": ""}, "WB_USER"),
        ({"WB_KEY": KEY}, "WB_PROJECT and WB_USER"),
        ({**OURS, "WB_KEY": "short"}, "wrong shape"),
        ({**OURS, "WB_KEY": "with space" * 8}, "wrong shape"),
        ({**OURS, "WB_PROJECT": "my project"}, "WB_PROJECT='my project'"),
        ({**OURS, "WB_PROJECT": "a/b"}, "WB_PROJECT='a/b'"),
        ({**OURS, "WB_USER": "a/b"}, "WB_USER='a/b'"),
    ],
)
def test_what_is_missing_or_malformed_is_named(
    environ: dict[str, str], named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = {"HOME": str(tmp_path)}
    assert access(**environ, **home) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert named in record.getMessage()
    with pytest.raises(ConfigError, match=r"--wandb=False") as error:
        access(True, **environ, **home)
    assert named in str(error.value)
    for text in (record.getMessage(), str(error.value)):
        assert not environ.get("WB_KEY") or environ["WB_KEY"] not in text
        assert "\n" not in text


def test_wandb_without_credentials_and_without_a_terminal(client: Client, here: Command) -> None:
    nothing = dict.fromkeys(("WB_KEY", "WB_PROJECT", "WB_USER", "WANDB_API_KEY"), "")
    done = here(*DIGITS, "--wandb=True", **nothing)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "WB_KEY" in line
    assert not (client.folder / "outputs").exists() or not list(
        (client.folder / "outputs" / "logger").iterdir()
    )


def test_a_refused_key_means_files_unless_insisted_on(
    client: Client, here: Command, server: WandbServer
) -> None:
    wrong = {"WB_KEY": KEY, "WANDB_API_KEY": KEY}
    done = here(*DIGITS, "--run_name=first", **wrong)
    assert done.returncode == 0, done.stderr
    assert len(client.table("first")) == 2
    refusals = [line for line in done.stderr.splitlines() if "W&B cannot be used" in line]
    assert len(refusals) == 1
    done = here(*DIGITS, "--run_name=second", "--wandb=True", **wrong)
    assert done.returncode == 2
    assert "W&B cannot be used" in done.stderr.splitlines()[-1]
    assert not list((client.folder / "outputs").rglob("second*"))
    assert KEY not in done.stderr
    assert not server.runs


NO_LOGIN = {
    **dict.fromkeys(("WB_KEY", "WB_PROJECT", "WB_USER"), ""),
    **dict.fromkeys(("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_BASE_URL"), ""),
}


@pytest.mark.parametrize("way", ["WANDB_PROJECT alone", "wandb init -p"])
def test_a_login_at_another_host(client: Client, server: WandbServer, way: str) -> None:
    login = client.wandb("login", "--host", server.url, server.key, **NO_LOGIN)
    assert login.returncode == 0, login.stderr
    project = {}
    if way.startswith("wandb"):
        made = client.wandb("init", "-p", "of_init", "-e", "tester", **NO_LOGIN)
        assert made.returncode == 0, made.stderr
    else:
        project = {"WANDB_PROJECT": "of_init"}
    done = client(*DIGITS, "--run_name=first", **{**NO_LOGIN, **project})
    assert done.returncode == 0, done.stderr
    run = only(server)
    assert (run.project, run.entity, run.state) == ("of_init", "tester", "finished")
    assert rows(run) == client.table("first")


def test_a_proxy_for_the_client_alone(here: Command, server: WandbServer) -> None:
    behind = {"WANDB_BASE_URL": "http://wandb.invalid", "WANDB_HTTP_PROXY": server.url}
    done = here(*DIGITS, "--run_name=first", "--wandb_artifacts=none", **behind)
    assert done.returncode == 0, done.stderr
    assert "out of reach" not in done.stderr
    assert len(only(server).history) == 2


# Faults.


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [("file_stream", 500), ("file_stream", 429), ("file_stream", 0), ("file_stream", 401)],
)
def test_a_server_that_fails_in_mid_run_costs_a_warning(
    client: Client, server: WandbServer, endpoint: str, status: int
) -> None:
    fault = server.fault(endpoint, status)
    done = client(*DIGITS, "--run_name=first", "--wandb_artifacts=none", WANDB_FINISH_TIMEOUT="1")
    assert done.returncode == 0, done.stderr
    assert fault.hits
    table = client.table("first")
    assert len(table) == 2
    assert client.result("first")["state"] == "finished"
    assert done.stderr.count(f"with: {UPLOAD}") == 1
    fault.lift()
    assert client(*UPLOAD.split()[3:]).returncode == 0
    assert rows(only(server)) == table


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [("PUT /upload/artifact", 403), ("PUT /upload/artifact", 500), ("graphql CreateArtifact", 403)],
)
def test_a_checkpoint_that_is_not_taken(
    client: Client, server: WandbServer, endpoint: str, status: int
) -> None:
    server.fault(endpoint, status)
    done = client(*DIGITS, "--run_name=first", WANDB_FINISH_TIMEOUT="2")
    assert done.returncode == 0, done.stderr
    assert not server.artifacts
    assert "Traceback" not in done.stderr
    assert done.stderr.count(f"with: {UPLOAD}") == 1
    assert len(client.table("first")) == 2
    if endpoint.startswith("graphql"):
        assert only(server).state == "finished"


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_in_the_servers_own_words(
    here: Command, server: WandbServer, status: int
) -> None:
    server.fault("UpsertBucket", status, body='{"errors": [{"message": "Go away"}]}')
    done = here(*DIGITS, "--wandb=True", "--run_name=first")
    assert done.returncode == 2
    assert "Go away" in done.stderr.splitlines()[-1]


def test_what_an_outage_kept_from_the_server_comes_with_the_resume(
    client: Client, here: Command, server: WandbServer
) -> None:
    words = (*SMALL, "--wandb=True")
    running = client.start(
        "-m", "deep_cnn", *words, f"--epochs={ENDLESS}", **served(), WANDB_FINISH_TIMEOUT="1"
    )
    until(lambda: server.runs and only(server).history, running)
    fault = server.fault("file_stream", 500)
    until(lambda: fault.hits)
    name = only(server).name
    before = len(client.table(name))
    until(lambda: len(client.table(name)) > before + 1)
    running.send_signal(signal.SIGUSR1)
    assert client.ended(running).returncode == 75
    fault.lift()
    count = len(client.table(name)) + 2
    done = here(*words, f"--epochs={count}", **served())
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in only(server).history] == list(range(count))


def test_the_log_arrives_with_its_levels_and_the_state_is_running_again(
    client: Client, here: Command, server: WandbServer
) -> None:
    assert here(*DIGITS, "--run_name=first", "--hidden=9", "--decay=0.5").returncode == 0
    run = only(server)
    log = (client.folder / "outputs" / "logger" / "first.log").read_text()
    lines = [line.split(" ", 2)[2] for line in log.splitlines()]
    assert run.output == [line for line in lines if not line.startswith("INFO --")]
    assert run.output[0].startswith("INFO Running on ")
    assert any(line.startswith("WARNING Options without effect") for line in run.output)
    more = f"--epochs={ENDLESS}"
    running = client.start("-m", "deep_cnn", "--resume=outputs/models/first.pt", more)
    until(lambda: len(run.history) > 2, running)
    assert run.summary["state"] == "running"
    running.send_signal(signal.SIGTERM)
    done = client.ended(running)
    assert done.returncode == 143
    assert run.summary["state"] == "interrupted"
    # The client's own messages would drown ours.
    assert "wandb:" not in done.stderr
    assert f"W&B: {server.url}/tester/p/runs/{run.id}" in done.stderr


def test_going_on_under_another_name_is_another_run(
    client: Client, here: Command, server: WandbServer
) -> None:
    here(*DIGITS, "--run_name=first", "--wandb_artifacts=none")
    words = ("--resume=outputs/models/first.pt", "--epochs=3", "--run_name=other")
    assert here(*words, "--wandb_artifacts=none").returncode == 0
    first, other = server.runs.values()
    assert (first.name, other.name) == ("first", "other")
    assert rows(first) == client.table("first")
    assert rows(other) == client.table("other")
    assert len(other.history) == 3


def test_a_run_that_patience_ended_goes_on(
    client: Client, here: Command, server: WandbServer
) -> None:
    words = (*SMALL, "--lr=1e-9", "--momentum=0", "--freeze=trunk", "--wandb_artifacts=none")
    done = here(*words, "--run_name=first", "--epochs=30", "--patience=1")
    assert done.returncode == 0, done.stderr
    count = len(client.table("first"))
    assert count < 30
    assert only(server).summary["stop_reason"]["rule"] == "patience"
    assert only(server).summary["examples"]["count"] == 8
    more = f"--epochs={count + 2}"
    done = here("--resume=outputs/models/first.pt", "--patience=None", more)
    assert done.returncode == 0, done.stderr
    assert rows(only(server)) == client.table("first")
    assert only(server).summary.get("stop_reason") is None


def test_a_server_that_is_not_there_leaves_an_offline_run(
    client: Client, here: Command, server: WandbServer
) -> None:
    done = here(*DIGITS, "--run_name=first", WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "W&B is out of reach" in done.stderr
    assert f"W&B: kept offline; upload it with: {UPLOAD}" in done.stderr.splitlines()
    assert client(*UPLOAD.split()[3:]).returncode == 0
    assert rows(only(server)) == client.table("first")
    (artifact,) = server.artifacts
    assert artifact.files["first.best.pt"]


def test_a_server_that_vanishes(client: Client, server: WandbServer) -> None:
    words = ("-m", "deep_cnn", *SMALL, f"--epochs={ENDLESS}", "--run_name=first")
    running = client.start(*words, WANDB_FINISH_TIMEOUT="1")
    until(lambda: server.runs and only(server).history, running)
    server.close()
    before = len(client.table("first"))
    until(lambda: len(client.table("first")) > before + 1)
    running.send_signal(signal.SIGTERM)
    done = client.ended(running)
    assert done.returncode == 143, done.stderr
    assert client.result("first")["state"] == "interrupted"
    assert UPLOAD in done.stderr


def test_a_server_that_hangs_at_the_start(client: Client, server: WandbServer) -> None:
    server.fault("graphql", 200, hang=2 * PATIENCE)
    done = client(*DIGITS, "--run_name=first", WANDB_INIT_TIMEOUT="2")
    assert done.returncode == 0, done.stderr
    assert len(client.table("first")) == 2
    assert UPLOAD in done.stderr


# Under W&B's agent.


def served(run_id: str = "abcd1234") -> dict[str, str]:
    return {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": run_id}


def test_two_agents_share_a_sweep(client: Client, server: WandbServer) -> None:
    parameters = {"batch_size": [32, 64.0], "patience": [None, 3]}
    sweep = {
        "method": "grid",
        "metric": {"name": "loss_val", "goal": "minimize"},
        "parameters": {
            "task": {"value": "digits"},
            "train_samples": {"value": 64},
            "epochs": {"value": 1},
            "opt": {"parameters": {name: {"values": v} for name, v in parameters.items()}},
        },
        "command": COMMAND,
    }
    (client.folder / "grid.yaml").write_text(yaml.safe_dump(sweep))
    made = client.wandb("sweep", "grid.yaml")
    assert made.returncode == 0, made.stderr
    (name,) = server.sweeps
    agents = [client.start("-c", AGENT, "agent", f"tester/p/{name}") for _ in range(2)]
    ended = [client.ended(agent) for agent in agents]
    assert [done.returncode for done in ended] == [0, 0], ended[0].stderr
    runs = list(server.runs.values())
    assert len(runs) == 4
    assert {run.state for run in runs} == {"finished"}
    assert {run.group for run in runs} == {name}
    assert len({run.name for run in runs}) == 4
    assert len({(run.config["batch_size"], run.config["patience"]) for run in runs}) == 4
    for run in runs:
        assert run.config["opt"] == {n: run.config[n] for n in parameters}
        assert client.result(run.name)["sweep"] == {"name": name, "trial": run.id}
        assert rows(run) == client.table(run.name)
    assert not server.artifacts
    no_trace_of_the_key(client)


def test_runs_that_hyperband_stops_are_no_failures(client: Client, server: WandbServer) -> None:
    sweep = grid(lr=[0.01, 0.02], epochs=[ENDLESS])
    sweep["early_terminate"] = {"type": "hyperband", "max_iter": 4, "s": 1, "eta": 2}
    name = server.add_sweep(sweep)
    for _ in range(3):  # Others have been better, and are over.
        server.add_run(name, [{"loss_val": 1e-9}] * 4)
    done = client.wandb("agent", f"tester/p/{name}")
    assert done.returncode == 0, done.stderr
    runs = list(server.runs.values())[3:]
    assert len(runs) == 2
    for run in runs:
        assert (run.exitcode, run.summary["state"]) == (0, "stopped")
        assert client.result(run.name)["state"] == "stopped"
        assert len(run.history) == len(client.table(run.name)) >= 2


def test_preempted_and_asked_for_again(client: Client, here: Command, server: WandbServer) -> None:
    words = (*SMALL, "--wandb=True")
    running = client.start("-m", "deep_cnn", *words, f"--epochs={ENDLESS}", **served())
    until(lambda: server.runs and only(server).history, running)
    running.send_signal(signal.SIGUSR1)
    done = client.ended(running)
    assert done.returncode == 75, done.stderr
    run = only(server)
    assert run.preempting
    assert run.exitcode == 75
    count = len(run.history) + 2
    done = here(*words, f"--epochs={count}", **served())
    assert done.returncode == 0, done.stderr
    assert run.inits == 2
    assert [row["epoch"] for row in run.history] == list(range(count))
    assert rows(run) == client.table(run.name)


@pytest.mark.parametrize("by_agent", [True, False])
def test_a_stop_ends_a_run_cleanly(client: Client, server: WandbServer, by_agent: bool) -> None:
    words = ("-c", ATTENTIVE, *SMALL, f"--epochs={ENDLESS}", "--num_workers=2")
    running = client.start(*words, **(served() if by_agent else {}))
    until(lambda: server.runs and only(server).history, running)
    run = only(server)
    if by_agent:
        running.send_signal(signal.SIGTERM)
    else:
        server.stop_run(run.id, by_agent=False)
    done = client.ended(running)
    assert done.returncode == 0, done.stderr
    assert run.exitcode == 0
    assert run.summary["state"] == "stopped"
    result = client.result(run.name)
    assert result["state"] == "stopped"
    assert result["stop_reason"]["rule"] == "request"
    assert len(run.history) == len(client.table(run.name)) > 0
    content = torch.load(client.folder / "outputs" / "models" / f"{run.name}.pt", weights_only=True)
    assert content["epoch"] == len(run.history)


IN_PROCESS = """
import sys, wandb
from deep_cnn import TrainConfig, fit
from deep_cnn.results import assigned_trial
from deep_cnn.tracking import open_tracker
from wandb.agents import pyagent

pyagent.Agent.HEARTBEAT_SLEEP_SECONDS = 0.3
results = []

def trial():
    config = TrainConfig(task="digits", train_samples=64, epochs=100_000)
    sweep = assigned_trial()
    results.append(fit(config, open_tracker(config, sweep), sweep=sweep))

wandb.agent(sys.argv[1], function=trial, count=1)
print(results[0].state, results[0].stop_reason.rule)
"""


def test_the_agent_in_a_notebook_stops_a_run_by_an_exception(
    client: Client, server: WandbServer
) -> None:
    name = server.add_sweep(grid(lr=[0.01]))
    agent = client.start("-c", IN_PROCESS, f"tester/p/{name}")
    until(lambda: server.runs and only(server).history, agent)
    server.stop_run(only(server).id)
    done = client.ended(agent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "stopped request"
    run = only(server)
    assert (run.exitcode, run.summary["state"]) == (0, "stopped")
    assert run.history


def test_a_parameter_that_is_no_flag_fails_the_run(here: Command, server: WandbServer) -> None:
    done = here("--task=digits", "--learning_rate=0.1", **served())
    assert done.returncode == 2
    assert "--learning_rate is an unknown option" in done.stderr
    run = only(server)
    assert run.state == "failed"
    assert "learning_rate" in run.summary["error"]


def test_data_that_is_not_there_fails_the_run(here: Command, server: WandbServer) -> None:
    done = here("--data_dir=nowhere", **served())
    assert done.returncode == 2
    assert only(server).state == "failed"
    assert "nowhere" in only(server).summary["error"]


# The warm agent. Each test has another of W&B's macros in its command.


def grid(macro: str = "${args}", **values: list[Any]) -> dict[str, Any]:
    return {
        "method": "grid",
        "metric": {"name": "loss_val", "goal": "minimize"},
        "parameters": {
            "task": {"value": "digits"},
            "train_samples": {"value": 64},
            **{k: {"values": v} for k, v in values.items()},
        },
        "command": [*COMMAND[:-1], macro],
    }


def test_the_warm_agent_runs_every_point_once(client: Client, server: WandbServer) -> None:
    sweep = grid("${args_json_file}", lr=[0.01, 0.02], batch_size=[32, 64], epochs=[1])
    name = server.add_sweep(sweep)
    done = client("agent", f"tester/p/{name}", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert f"tester/p/{name}: 4 runs, 0 of them failed" in done.stdout
    runs = list(server.runs.values())
    assert {run.state for run in runs} == {"finished"}
    assert {run.sweep for run in runs} == {run.group for run in runs} == {name}
    assert len({(run.config["lr"], run.config["batch_size"]) for run in runs}) == len(runs) == 4
    for run in runs:
        assert rows(run) == client.table(run.name)
        assert client.result(run.name)["sweep"] == {"name": name, "trial": run.id}
    no_trace_of_the_key(client)


def test_stock_and_warm_agents_side_by_side(client: Client, server: WandbServer) -> None:
    sweep = grid(lr=[0.01, 0.02], batch_size=[32, 64], epochs=[1], hidden=[8])
    name = server.add_sweep(sweep)
    stock = client.start("-c", AGENT, "agent", f"tester/p/{name}")
    warm = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}")
    assert client.ended(stock).returncode == 0
    done = client.ended(warm)
    assert done.returncode == 0, done.stderr
    assert f"Sweep: {server.url}/tester/p/sweeps/{name}" in done.stderr
    runs = list(server.runs.values())
    # The searched values and no constants, whichever agent has run it.
    assert {run.name for run in runs} == {
        f"batch_size={size},lr={lr}" for size in (32, 64) for lr in (0.01, 0.02)
    }
    for run in runs:
        assert run.state == "finished"
        assert rows(run) == client.table(run.name)
        assert run.output[0].startswith("INFO Running on ")
        assert json.loads(run.files["wandb-metadata.json"])["program"] == "-m deep_cnn"
        is_warm = f"{run.id}: begins" in done.stderr
        address = f"{run.id}: W&B: {server.url}/tester/p/runs/{run.id}"
        assert (address in done.stderr) == is_warm


IMPATIENT = (
    "from deep_cnn.sweep.wandb_agent import agent as a; a._GIVE_UP = 20.0;"
    " import sys; from deep_cnn.cli import main; sys.exit(main())"
)


def test_a_server_that_goes_away_is_reported_and_given_up(
    client: Client, server: WandbServer
) -> None:
    name = server.add_sweep(grid(lr=[0.01], epochs=[1]))
    server.sweeps[name].state = "PAUSED"
    words = ("-c", IMPATIENT, "agent", f"tester/p/{name}")
    agent = client.start(*words, PYTHONUNBUFFERED="1")
    until(lambda: "graphql Heartbeat" in server.requests, agent)
    server.fault("Heartbeat", 200, hang=8.0, times=1)
    _, err = client.started[agent]

    def said(text: str) -> bool:
        return text in Path(f"/proc/self/fd/{err.fileno()}").read_text()

    until(lambda: said("W&B does not answer; runs go on"), agent)
    until(lambda: said("W&B answers again"), agent)
    server.close()
    done = client.ended(agent)
    assert done.returncode == 1
    assert "the agent is stopped: W&B has not answered for " in done.stderr
    assert "Traceback" not in done.stderr


@SHOWS_PROCESSES
def test_the_warm_agent_survives_its_fork_server_and_a_long_path(
    client: Client, server: WandbServer, tmp_path: Path
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    name = server.add_sweep(grid("${args_json_file}", lr=[0.01, 0.02], epochs=[ENDLESS]))
    agent = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}", TMPDIR=str(folder))
    for _ in range(2):
        until(lambda: any(run.state == "running" for run in server.runs.values()), agent)
        for pid in {processes()[worker] for worker in workers(agent.pid)}:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not any(run.state == "running" for run in server.runs.values()), agent)
    done = client.ended(agent)
    assert done.returncode == 0, done.stderr
    assert f"tester/p/{name}: 2 runs, 2 of them failed" in done.stdout
    assert done.stderr.count("its fork server is gone") == 2
    assert "Traceback" not in done.stderr


def test_an_outage_costs_the_warm_agent_one_run_offline(
    client: Client, server: WandbServer
) -> None:
    name = server.add_sweep(grid(lr=[0.01, 0.02, 0.03], epochs=[1]))
    fault = server.fault("UpsertBucket", 500)
    agent = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}", WANDB_INIT_TIMEOUT="2")
    until(lambda: len(server.runs) == 2)
    fault.lift()
    done = client.ended(agent)
    assert done.returncode == 0, done.stderr
    first, *others = server.runs.values()
    assert others[-1].state == "finished"
    assert f"{first.id}: W&B: kept offline; upload it with: {UPLOAD}" in done.stderr
    assert client(*UPLOAD.split()[3:]).returncode == 0
    assert first.state == "finished"
    assert rows(first) == client.table("lr=0.01")


def test_a_hanging_server_does_not_make_the_agent_deaf(client: Client, server: WandbServer) -> None:
    name = server.add_sweep(grid("${args_json}", lr=[0.01], epochs=[ENDLESS]))
    agent = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}")
    until(lambda: server.runs and only(server).history, agent)
    fault = server.fault("Heartbeat", 200, hang=2 * PATIENCE)
    until(lambda: fault.hits)
    agent.send_signal(signal.SIGTERM)
    done = client.ended(agent)
    assert done.returncode == 143, done.stderr
    assert only(server).preempting


def test_an_agent_cannot_be_offline(here: Command, server: WandbServer) -> None:
    name = server.add_sweep(grid(lr=[0.01], epochs=[1]))
    done = here("agent", f"tester/p/{name}", WANDB_MODE="offline")
    assert done.returncode == 2
    assert "WANDB_MODE=offline" in done.stderr
    assert not server.runs


def test_an_agent_that_is_refused(here: Command, server: WandbServer) -> None:
    name = server.add_sweep(grid(lr=[0.01], epochs=[1]))
    server.fault("CreateAgent", 403)
    done = here("agent", f"tester/p/{name}")
    assert done.returncode == 2
    assert "takes no agent" in done.stderr


@SHOWS_PROCESSES
def test_a_run_that_dies_or_fails_costs_itself_alone(client: Client, server: WandbServer) -> None:
    lives = [(0.01, ENDLESS), (1e30, 12), (0.02, 2)]
    points = [
        {"task": "digits", "train_samples": 64, "lr": lr, "epochs": epochs} for lr, epochs in lives
    ]
    name = server.add_sweep(grid("${args_no_hyphens}"), points=points)
    agent = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}")
    until(lambda: server.runs and next(iter(server.runs.values())).history)
    (worker,) = workers(agent.pid)
    os.kill(worker, signal.SIGKILL)
    done = client.ended(agent)
    assert done.returncode == 0, done.stderr
    assert f"{name}: 3 runs, 2 of them failed" in done.stdout
    first, second, third = server.runs.values()
    assert [run.state for run in (first, second, third)] == ["failed", "failed", "finished"]
    assert "signal 9" in first.summary["error"]
    assert "loss is" in second.summary["error"]


def test_the_warm_agent_hands_its_run_back(client: Client, server: WandbServer) -> None:
    name = server.add_sweep(grid(lr=[0.01, 0.02], epochs=[ENDLESS]))
    agent = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}")
    until(lambda: server.runs and only(server).history, agent)
    agent.send_signal(signal.SIGUSR1)
    done = client.ended(agent)
    assert done.returncode == 75, done.stderr
    run = only(server)
    assert run.state == "preempted"
    count = len(run.history) + 2
    server.sweeps[name].arguments[run.id]["epochs"] = count
    done = client("agent", f"tester/p/{name}", "--count=1")
    assert done.returncode == 0, done.stderr
    assert f"tester/p/{name}: 1 runs" in done.stdout
    assert [row["epoch"] for row in only(server).history] == list(range(count))


def test_the_warm_agent_stops_what_the_server_stops(client: Client, server: WandbServer) -> None:
    name = server.add_sweep(grid(lr=[0.01, 0.02], epochs=[ENDLESS]))
    agent = client.start("-m", "deep_cnn", "agent", f"tester/p/{name}")
    for count in (1, 2):
        until(
            lambda count=count: len(server.runs) == count and list(server.runs.values())[-1].history
        )
        server.stop_run(list(server.runs)[-1])
    done = client.ended(agent)
    assert done.returncode == 0, done.stderr
    assert {run.summary["state"] for run in server.runs.values()} == {"stopped"}
    assert {run.exitcode for run in server.runs.values()} == {0}


@pytest.mark.parametrize(
    ("path", "named"),
    [("tester/p/nothere", "tester/p/nothere"), ("a/b/c/d", "a/b/c/d"), ("tester/p/", "tester/p/")],
)
def test_a_sweep_that_is_not_there(here: Command, path: str, named: str) -> None:
    done = here("agent", path)
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Offline, and local sweeps.


def test_a_local_sweep_offline_is_ready_for_upload(client: Client, server: WandbServer) -> None:
    (client.folder / "mine.yaml").write_text(yaml.safe_dump(grid(lr=[0.01, 0.02], epochs=[1])))
    done = client("sweep", "mine.yaml", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert not server.requests
    assert done.stderr.count(f"do it with: {UPLOAD}") == 1
    uploaded = client(*UPLOAD.split()[3:])
    assert uploaded.returncode == 0, uploaded.stderr
    assert {run.group for run in server.runs.values()} == {"mine"}
    with (client.folder / "outputs" / "sweeps" / "mine" / "trials.csv").open() as file:
        trials = {f"lr={row['lr']}": row["run_name"] for row in csv.DictReader(file)}
    assert set(trials.values()) == {"mine-00000", "mine-00001"}
    # W&B shows what is searched.
    assert {run.name for run in server.runs.values()} == set(trials)
    for run in server.runs.values():
        assert rows(run) == client.table(trials[run.name])


def test_a_local_sweep_online_is_a_group(client: Client, server: WandbServer) -> None:
    (client.folder / "mine.yaml").write_text(yaml.safe_dump(grid(lr=[0.01, 0.02], epochs=[1])))
    done = client("sweep", "mine.yaml", "--workers=2")
    assert done.returncode == 0, done.stderr
    assert {(run.group, run.state) for run in server.runs.values()} == {("mine", "finished")}
    assert not server.artifacts


def test_the_flag_none_means_the_environment_decides() -> None:
    assert TrainConfig(task="digits").wandb is None

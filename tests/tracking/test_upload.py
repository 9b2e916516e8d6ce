"""The verb upload, with W&B's own client, against a stand-in for its server."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml

from deep_cnn.tracking import journal
from tests.conftest import Command, until
from tests.tracking.test_wandb import (
    ENDLESS,
    KEY,
    SMALL,
    Client,
    grid,
    no_trace_of_the_key,
    only,
    rows,
)
from tests.tracking.test_wandb import client as client
from tests.tracking.test_wandb import here as here
from tests.tracking.test_wandb import server as server
from tests.wandb_server import WandbServer

ONE = (*SMALL, "--epochs=2", "--run_name=first")


@pytest.fixture(autouse=True)
def as_strict_as_real_ones(server: WandbServer) -> None:
    server.knows_sweeps_only = True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do not wait for rows that this server shows at once."""
    monkeypatch.setattr(journal, "_VISIBLE_AFTER", 0.0)
    return


def has_all_of_it_once(client: Client, name: str = "first", artifacts: int = 1) -> None:
    (run,) = [run for run in client.server.runs.values() if run.name == name]
    table = client.table(name)
    assert rows(run) == table
    assert [row["_step"] for row in run.history] == [row["epoch"] for row in table]
    result = client.result(name)
    assert run.summary["best_epoch"] == result["best"]["epoch"]
    assert run.summary["best_loss_val"] == result["best"]["value"]
    assert run.summary["state"] == result["state"] == "finished"
    assert run.state == "finished"
    own = [one for one in client.server.artifacts if one.run == run.id]
    assert len(own) == artifacts
    model = client.folder / "outputs" / "models" / f"{name}.best.pt"
    assert own[-1].files[model.name] == model.read_bytes()
    assert result["unsynced"] == []


def test_a_run_that_was_trained_without_wandb(
    client: Client, here: Command, server: WandbServer
) -> None:
    assert here(*ONE, "--wandb=False").returncode == 0
    assert here("--test_net=outputs/models/first.pt", "--wandb=False").returncode == 0
    assert not server.requests
    done = here("upload")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    run = only(server)
    address = f"{server.url}/tester/p/runs/{run.id}"
    assert line == f"first uploaded 2 rows, the checkpoint: {address}"
    has_all_of_it_once(client)
    result = client.result("first")
    assert run.config == result["config"] | {"test_net": None}
    assert run.summary["loss_test"] == result["test"]["loss_test"]
    test = client.folder / "outputs" / "results" / "first.test.csv"
    assert run.files["first.test.csv"] == test.read_bytes()
    before = len(server.requests)
    done = here("upload", "outputs/results/first.json")
    assert (done.returncode, done.stdout) == (0, "first complete\n")
    assert server.requests[before:] == ["graphql ServerInfo"]
    no_trace_of_the_key(client)


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [
        ("UpsertBucket", 403),
        ("UpsertBucket", 500),
        ("RunResumeStatus", 500),
        ("Viewer", 403),
        ("file_stream", 0),
        ("file_stream", 401),
        ("file_stream", 500),
        ("CreateRunFiles", 403),
        ("PUT /upload/run", 403),
        ("graphql CreateArtifact", 403),
        ("graphql CreateArtifactFiles", 500),
        ("PUT /upload/artifact", 403),
        ("PUT /upload/artifact", 500),
        ("PUT /upload/manifest", 403),
        ("graphql CommitArtifact", 403),
        ("graphql ArtifactByID", 403),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_fault_at_any_endpoint_while_training_and_while_uploading(
    client: Client, here: Command, server: WandbServer, endpoint: str, status: int
) -> None:
    waits = {"WANDB_FINISH_TIMEOUT": "2", "WANDB_INIT_TIMEOUT": "2"}
    fault = server.fault(endpoint, status)
    assert here(*ONE, **waits).returncode == 0
    first = here("upload", **waits)
    assert first.returncode == (0 if first.stdout == "first complete\n" else 1), first.stdout
    assert len(first.stdout.splitlines()) == 1
    assert "Traceback" not in first.stdout + first.stderr
    assert fault.hits or endpoint.endswith("ByID")
    fault.lift()
    assert here("upload").returncode == 0
    has_all_of_it_once(client)
    # The client has no pictures of a run that W&B has refused.
    assert len(only(server).files) >= 8 or status == 403
    assert here("upload").stdout == "first complete\n"
    has_all_of_it_once(client)
    no_trace_of_the_key(client)


@pytest.mark.parametrize("body", ["<html>log in</html>", ""])
@pytest.mark.usefixtures("impatient")
def test_a_captive_portal_is_an_outage(
    client: Client, here: Command, server: WandbServer, body: str
) -> None:
    fault = server.fault("", 200, body=body, is_portal=True)
    done = here(*ONE, "--wandb=True")
    assert done.returncode == 0, done.stderr
    assert "W&B is out of reach" in done.stderr
    refused = here("upload")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "W&B cannot be reached" in refused.stderr
    fault.lift()
    later = server.fault("file_stream", 200, body=body, is_portal=True)
    assert here("upload").returncode == 1
    later.lift()
    assert here("upload").returncode == 0
    has_all_of_it_once(client)


def test_rows_that_become_visible_late_are_not_sent_twice(
    client: Client, server: WandbServer
) -> None:
    server.lag = 30.0
    fault = server.fault("PUT /upload/artifact", 403)
    assert client(*ONE).returncode == 0
    assert len(only(server).history) == 2
    fault.lift()
    both = [client.start("-m", "deep_cnn", "upload") for _ in range(2)]
    said = [client.ended(each) for each in both]
    assert [done.returncode for done in said] == [0, 0], said
    texts = sorted(done.stdout for done in said)
    assert texts[0] == "first complete\n"
    assert texts[1].startswith("first uploaded 0 rows, the checkpoint: ")
    has_all_of_it_once(client)


@pytest.mark.usefixtures("impatient")
def test_an_upload_that_is_killed_is_continued(client: Client, server: WandbServer) -> None:
    assert client(*ONE, "--wandb=False").returncode == 0
    server.fault("file_stream", 200, hang=2.0, times=1)
    running = client.start("-m", "deep_cnn", "upload")
    until(lambda: server.runs, running)
    running.kill()
    running.wait()
    done = client("upload")
    assert done.returncode == 0, done.stdout
    has_all_of_it_once(client)


@pytest.mark.usefixtures("impatient")
def test_an_offline_run_that_was_resumed_online_in_between(
    client: Client, here: Command, server: WandbServer
) -> None:
    more = "--resume=outputs/models/first.pt"
    assert here(*ONE, WANDB_MODE="offline").returncode == 0
    assert here(more, "--epochs=3").returncode == 0
    assert here(more, "--epochs=4", WANDB_MODE="offline").returncode == 0
    assert here("--test_net=outputs/models/first.best.pt").returncode == 0
    assert here("upload").returncode == 0
    run = only(server)
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3]
    assert run.summary["loss_test"] == client.result("first")["test"]["loss_test"]
    assert run.config["test_net"] is None
    assert run.config["epochs"] == 4
    has_all_of_it_once(client, artifacts=2)  # The best epoch of two ends.


@pytest.mark.usefixtures("impatient")
def test_rows_missing_in_between_make_another_run_on_request(
    client: Client, here: Command, server: WandbServer
) -> None:
    assert here(*ONE).returncode == 0
    run = only(server)
    del run.lines["wandb-history.jsonl"][0], run.arrivals[0]
    (client.folder / "outputs" / "results" / "first.upload.json").write_text(
        json.dumps({"server": server.url, "project": "p", "run_id": run.id, "contact": 1.0})
    )
    done = here("upload")
    assert done.returncode == 1
    assert done.stdout.startswith("first failed: W&B lacks 1 rows before its last step 1")
    assert f"--full uploads the run as another one, {run.id}-full" in done.stdout
    assert len(server.runs) == 1
    done = here("upload", "--full", "first")
    assert done.returncode == 0, done.stdout
    assert rows(server.runs[f"{run.id}-full"]) == client.table("first")
    assert here("upload").stdout == "first complete\n"


def test_runs_that_are_not_over_are_skipped(
    client: Client, here: Command, server: WandbServer
) -> None:
    running = client.start("-m", "deep_cnn", *SMALL, f"--epochs={ENDLESS}", "--run_name=goes_on")
    until(lambda: server.runs and only(server).history, running)
    done = here("upload")
    assert done.returncode == 0
    assert done.stdout == "goes_on skipped: it is not over; resume it, or let it end\n"
    running.send_signal(signal.SIGTERM)
    assert client.ended(running).returncode == 143


def test_two_hundred_runs_and_a_sweep_that_were_trained_without_wandb(
    client: Client, here: Command, server: WandbServer
) -> None:
    values = {"lr": [0.01, 0.02], "epochs": [1], "momentum": [0.5]}
    (client.folder / "mine.yaml").write_text(yaml.safe_dump(grid(**values)))
    assert client("sweep", "mine.yaml", "--wandb=False").returncode == 0
    assert here(*ONE, "--wandb=False").returncode == 0
    out = client.folder / "outputs"
    for number in range(200):
        name = f"copy{number}"
        for kind in ("csv", "args.json", "json"):
            shutil.copy(out / "results" / f"first.{kind}", out / "results" / f"{name}.{kind}")
    done = client("upload", "outputs")
    assert done.returncode == 0, done.stderr
    assert Counter(line.split()[1] for line in done.stdout.splitlines()) == {"uploaded": 203}
    assert len(server.runs) == 203
    for run in server.runs.values():
        known = run.name if run.group is None else f"mine-{int(run.name == 'lr=0.02'):05d}"
        assert rows(run) == client.table(known)
    trials = [run for run in server.runs.values() if run.group]
    # W&B shows what is searched, without the constants.
    assert {(run.name, run.group, run.sweep) for run in trials} == {
        ("lr=0.01", "mine", None),
        ("lr=0.02", "mine", None),
    }
    assert len(server.artifacts) == 1


def test_a_run_of_a_sweep_that_the_server_does_not_know(
    client: Client, here: Command, server: WandbServer
) -> None:
    words = (*SMALL, "--wandb=True", "--epochs=1", "--lr=0.02")
    assigned = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "abcd1234", "WANDB_MODE": "offline"}
    assert here(*words, **assigned).returncode == 0
    done = here("upload")
    assert done.returncode == 0, done.stdout
    run = only(server)
    assert (run.id, run.group, run.sweep, len(run.history)) == ("abcd1234", "s1", None, 1)


def test_a_run_of_a_sweep_that_the_server_knows(
    client: Client, here: Command, server: WandbServer
) -> None:
    name = server.add_sweep(grid(lr=[0.02], epochs=[1]))
    assigned = {"WANDB_SWEEP_ID": name, "WANDB_RUN_ID": "abcd1234", "WANDB_MODE": "offline"}
    assert here(*SMALL, "--wandb=True", "--epochs=1", "--lr=0.02", **assigned).returncode == 0
    assert here("upload").returncode == 0
    assert only(server).sweep == name


@pytest.mark.usefixtures("impatient")
def test_a_run_of_a_version_without_a_journal_stays_one_run(
    client: Client, here: Command, server: WandbServer
) -> None:
    assert here(*ONE).returncode == 0
    (client.folder / "outputs" / "results" / "first.upload.json").unlink()
    assert here("upload").returncode == 0
    has_all_of_it_once(client)


def test_no_credentials_and_no_server(client: Client, here: Command, server: WandbServer) -> None:
    assert here(*ONE, "--wandb=False").returncode == 0
    nothing = dict.fromkeys(("WB_KEY", "WB_PROJECT", "WB_USER", "WANDB_API_KEY"), "")
    done = here("upload", **nothing, WANDB_PROJECT="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "upload needs W&B, but WB_KEY" in done.stderr
    done = here("upload", WANDB_BASE_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "W&B cannot be reached" in done.stderr
    done = here("upload", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere is no folder" in done.stderr
    wrong = {"WB_KEY": KEY, "WANDB_API_KEY": KEY}
    done = here("upload", **wrong)
    assert done.returncode == 1
    assert done.stdout.startswith("first failed: ")
    assert KEY not in done.stdout + done.stderr
    no_trace_of_the_key(client)

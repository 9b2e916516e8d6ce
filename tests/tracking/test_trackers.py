"""The contract of every tracker: what a run tells it can be read back."""

import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from deep_cnn.errors import ConfigError
from deep_cnn.files import RunFiles
from deep_cnn.results import Best, EpochRecord, RunResult, State, StopReason
from deep_cnn.tracking import Example, Fanout, FileTracker, Start, Tracker, Validation
from deep_cnn.tracking.access import Access
from deep_cnn.tracking.tensorboard_tracker import TensorBoardTracker
from deep_cnn.tracking.wandb_tracker import WandbTracker
from tests.tracking.test_wandb import Client
from tests.wandb_server import WandbServer

FLAGS = {"lr": 0.1, "epochs": 2, "task": "digits", "model": "lenet", "patience": None, "amp": "off"}
RECORDS = [
    EpochRecord(0, 0.1, {"loss_train": 0.5, "loss_val": 1 / 3}, 1.5, 100.0),
    EpochRecord(1, 0.05, {"loss_train": 0.25, "loss_val": 1e-9}, 1.25, 120.0),
]


VALIDATION = Validation(
    1,
    [3.25],
    [2.0],
    None,
    examples=lambda count: [Example(Image.new("RGB", (4, 4)), 3.25, 2.0)],
    features=lambda indices: np.ones((len(indices), 3), np.float32),
)


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


@pytest.fixture
def client(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """This very process is the client."""
    client = Client(server, tmp_path)
    for name, value in client.env.items():
        if name.startswith("WANDB") and name != "WANDB_API_KEY":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", client.env["HOME"])
    monkeypatch.setenv("NETRC", client.env["NETRC"])
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield client
    wandb.teardown()


def result(name: str, state: State = State.FINISHED, **details: Any) -> RunResult:
    return RunResult(name, state, FLAGS, best=Best(1, "loss_val", 1e-9), **details)


def tell(tracker: Tracker, files: RunFiles, end: RunResult) -> None:
    tracker.start(Start(files, FLAGS, parameters=7))
    for record in RECORDS:
        tracker.log_steps("train", record.epoch, [0.5, 0.25])
        if record is RECORDS[-1]:
            tracker.validated(VALIDATION)
        tracker.log(record)
    tracker.close(end)


def from_files(files: RunFiles) -> dict[str, Any]:
    ended = json.loads(files.result.read_text())
    with files.table.open() as table:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(table)]
    return {
        "name": ended["run_name"],
        "config": json.loads(files.arguments.read_text()),
        "rows": rows,
        "state": ended["state"],
        "best": ended["best"]["value"],
        "reason": ended["stop_reason"],
    }


def from_server(server: WandbServer) -> dict[str, Any]:
    (run,) = server.runs.values()
    hidden = ("_step", "_runtime", "_timestamp", "examples")
    assert run.history[-1]["examples"]["captions"] == ["truth 3.25, prediction 2"]
    assert run.summary["parameters"] == 7
    return {
        "name": run.name,
        "config": run.config,
        "rows": [{k: v for k, v in row.items() if k not in hidden} for row in run.history],
        "state": run.summary["state"],
        "best": run.summary["best_loss_val"],
        "reason": run.summary.get("stop_reason"),
    }


def from_tensorboard(files: RunFiles) -> dict[str, Any]:
    rows: dict[int, dict[str, float]] = {}
    for split in ("train", "val"):
        events = EventAccumulator(str(files.tensorboard / split)).Reload()
        for tag in events.Tags()["scalars"]:
            name = tag if tag in ("lr", "images_per_second") else f"{tag}_{split}"
            for event in events.Scalars(tag):
                rows.setdefault(event.step, {})[name] = event.value
    metadata = EventAccumulator(str(files.tensorboard)).Reload().summary_metadata
    begin, end = (
        HParamsPluginData.FromString(metadata[tag].plugin_data.content)
        for tag in (SESSION_START_INFO_TAG, SESSION_END_INFO_TAG)
    )
    hparams = {k: v.number_value for k, v in begin.session_start_info.hparams.items()}
    return {"rows": rows, "lr": hparams["lr"], "status": end.session_end_info.status}


@pytest.mark.parametrize("place", ["files", "wandb offline", "wandb online", "tensorboard", "all"])
@pytest.mark.parametrize(
    "end",
    [result("a"), result("a", State.STOPPED, stop_reason=StopReason("hyperband", 3, 0.5, 0.25))],
    ids=["finished", "stopped"],
)
def test_what_a_tracker_is_told_can_be_read_back(
    place: str, end: RunResult, client: Client, server: WandbServer, tmp_path: Path
) -> None:
    files = RunFiles(tmp_path / "outputs", "a")
    access = Access("p", "tester", server.key, offline="offline" in place)
    trackers: dict[str, list[Tracker]] = {
        "files": [FileTracker()],
        "wandb offline": [WandbTracker(access)],
        "wandb online": [WandbTracker(access)],
        "tensorboard": [TensorBoardTracker()],
        "all": [Fanout(FileTracker(), TensorBoardTracker(), WandbTracker(access))],
    }
    tell(trackers[place][0], files, end)
    if place == "wandb offline":
        assert not server.runs
        (folder,) = (files.out / "wandb").glob("offline-run-*")
        assert client.wandb("sync", str(folder)).returncode == 0
    expected = {
        "name": "a",
        "config": FLAGS,
        "rows": [record.row() for record in RECORDS],
        "state": str(end.state),
        "best": 1e-9,
        "reason": None
        if end.stop_reason is None
        else {"rule": "hyperband", "band": 3, "value": 0.5, "threshold": 0.25},
    }
    if place in ("files", "all"):
        assert from_files(files) == expected
    if place in ("tensorboard", "all"):
        rows = {r.epoch: r.row() for r in RECORDS}
        for row in rows.values():
            del row["epoch"], row["seconds"]
        found = from_tensorboard(files)
        assert found["rows"] == {epoch: pytest.approx(row) for epoch, row in rows.items()}
        assert (found["lr"], found["status"]) == (0.1, Status.STATUS_SUCCESS)
    if place not in ("files", "tensorboard"):
        assert from_server(server) == expected


class Broken(Tracker):
    """Fails when it is told of an epoch."""

    def __init__(self, error: Exception) -> None:
        self.error, self.told = error, 0

    def log(self, record: EpochRecord) -> None:
        self.told += 1
        raise self.error


def test_a_tracker_that_fails_is_told_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = RunFiles(tmp_path, "a")
    broken = Broken(RuntimeError("no such\nplace"))
    caplog.set_level(logging.INFO)
    tell(Fanout(FileTracker(), broken), files, result("a"))
    assert broken.told == 1
    assert len(from_files(files)["rows"]) == 2
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "RuntimeError: no such place" in warning


def test_a_request_to_stop_and_a_refusal_are_no_failures_of_a_tracker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        tell(
            Fanout(FileTracker(), Broken(ConfigError("mend it"))),
            RunFiles(tmp_path, "a"),
            result("a"),
        )
    with pytest.raises(Exception, match=r"^$") as error:
        tell(Fanout(FileTracker(), Broken(Exception())), RunFiles(tmp_path, "b"), result("b"))
    assert type(error.value) is Exception

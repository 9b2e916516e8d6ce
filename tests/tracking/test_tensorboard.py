"""TensorBoard's files, read with TensorBoard's own reader."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deep_cnn import TrainConfig, fit
from deep_cnn.files import RunFiles
from deep_cnn.results import SweepTrial
from deep_cnn.tracking import open_tracker
from deep_cnn.training.checkpoint import resumed_config
from deep_cnn.training.evaluate import look_at_test
from tests.conftest import environment, make_scored

EVERYTHING = {"scalars": 0, "images": 0, "histograms": 0}


def digits(out: Path, **changes: Any) -> TrainConfig:
    values = {"task": "digits", "out_dir": out, "run_name": "d", "epochs": 2, "train_samples": 300}
    return TrainConfig.parse({**values, "wandb": False, **changes})


def run(config: TrainConfig, **details: Any) -> RunFiles:
    result = fit(config, open_tracker(config, details.get("sweep")), **details)
    return RunFiles(config.out_path, result.run_name)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()


def table(files: RunFiles) -> dict[int, dict[str, float]]:
    with files.table.open() as text:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(text)]
    return {int(row["epoch"]): row for row in rows}


def assert_curves_are_those_of_the_table(files: RunFiles) -> None:
    rows = table(files)
    for split in ("train", "val"):
        events = read(files.tensorboard / split)
        metrics = [k.removesuffix(f"_{split}") for k in rows[0] if k.endswith(f"_{split}")]
        tags = set(events.Tags()["scalars"]) - {"lr", "images_per_second"}
        assert tags == set(metrics)
        for metric in metrics:
            found = [(event.step, event.value) for event in events.Scalars(metric)]
            expected = [(k, pytest.approx(row[f"{metric}_{split}"])) for k, row in rows.items()]
            assert found == expected, metric


def test_a_single_run_has_curves_and_its_first_batch(tmp_path: Path) -> None:
    files = run(digits(tmp_path))
    assert_curves_are_those_of_the_table(files)
    train = read(files.tensorboard / "train")
    assert [event.step for event in train.Scalars("lr")] == [0, 1]
    (image,) = train.Images("first_batch")
    assert (image.width, image.height) == (8 * 28, 2 * 28)  # Eight in a row.
    assert not train.Tags()["graph"]
    assert not train.Tags()["histograms"]
    assert not list(files.tensorboard.glob("val/projector*"))


def test_the_first_batch_is_what_the_network_saw(tmp_path: Path) -> None:
    data = make_scored(tmp_path / "data", 40)
    config = TrainConfig.parse(
        {
            "data_dir": data, "out_dir": tmp_path, "run_name": "p", "epochs": 1, "weights": "none",
            "wandb": False, "batch_size": 4, "pre": "squash", "freeze": "trunk",
        }
    )  # fmt: skip
    files = run(config)
    (event,) = read(files.tensorboard / "train").Images("first_batch")
    (tmp_path / "a.png").write_bytes(event.encoded_image_string)
    grid = np.asarray(Image.open(tmp_path / "a.png"))
    assert grid.shape == (224, 4 * 224, 3)
    means = [np.asarray(Image.open(path)).mean() for path in data.glob("*.png")]
    for i in range(4):
        tile = grid[:, 224 * i : 224 * (i + 1)].mean()
        assert min(abs(mean - tile) for mean in means) < 1.5  # One of the pictures, as it is.


def test_everything_with_tensorboard_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    files = run(digits(tmp_path, tensorboard=True))
    train = read(files.tensorboard / "train")
    assert train.Tags()["graph"]
    assert "lenet" in str(train.Graph()).lower() or "trunk" in str(train.Graph())
    names = set(train.Tags()["histograms"])
    assert {"weights/head.1.weight", "gradients/head.1.weight"} <= names
    for name in names:
        histograms = train.Histograms(name)
        assert [one.step for one in histograms] == [0, 1]
        assert all(one.histogram_value.num > 0 for one in histograms)
    (tensors,) = files.tensorboard.glob("val/*/*/tensors.tsv")
    features = np.loadtxt(tensors, delimiter="\t")
    lines = (tensors.parent / "metadata.tsv").read_text().splitlines()
    assert lines[0] == "truth\tprediction"
    assert len(features) == len(lines) - 1 == 256
    assert features.shape[1] == 500
    pairs = [line.split("\t") for line in lines[1:]]
    right = np.mean([truth == prediction for truth, prediction in pairs])
    rows = table(files)
    assert right == pytest.approx(rows[1]["accuracy_val"], abs=0.1)
    assert (tensors.parent / "sprite.png").exists()
    printed = capsys.readouterr()
    assert "Tracer" not in printed.err + printed.out
    assert not [w for w in recwarn if "race" in str(w.message)]


def test_a_sweep_and_an_agent_write_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = SweepTrial("s", 0)
    files = run(digits(tmp_path, run_name="a", epochs=1), sweep=trial)
    assert not files.tensorboard.exists()
    files = run(digits(tmp_path, run_name="b", epochs=1, tensorboard=True), sweep=trial)
    assert_curves_are_those_of_the_table(files)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    files = run(digits(tmp_path, run_name="c", epochs=1))
    assert not files.tensorboard.exists()
    code = (
        "import sys; from deep_cnn.tracking import open_tracker; from deep_cnn import TrainConfig;"
        " open_tracker(TrainConfig(tensorboard=False, wandb=False));"
        " assert 'tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_histograms_every_n_epochs(tmp_path: Path) -> None:
    files = run(digits(tmp_path, epochs=4, histograms=2))
    train = read(files.tensorboard / "train")
    steps = {h.step for name in train.Tags()["histograms"] for h in train.Histograms(name)}
    assert steps == {1, 3}


def test_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    files = run(digits(tmp_path, epochs=2))
    run(resumed_config(files.last, {"resume": str(files.last), "epochs": 4}))
    assert_curves_are_those_of_the_table(files)
    assert list(table(files)) == [0, 1, 2, 3]
    for path in files.tensorboard.glob("val/events*"):
        path.unlink()  # An earlier run with --tensorboard=False has the same effect.
    run(resumed_config(files.last, {"resume": str(files.last), "epochs": 5}))
    assert_curves_are_those_of_the_table(files)


def test_a_run_that_was_killed_has_each_epoch_once(tmp_path: Path) -> None:
    words = ["--task=digits", "--epochs=400", "--run_name=d", "--wandb=False", "--out_dir=."]
    command = [sys.executable, "-m", "deep_cnn", *words]
    files = RunFiles(tmp_path, "d")
    for least in (3, 6):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = files.table.read_text().count("\n") - 1 if files.table.exists() else 0
            if done > least and files.last.exists():
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        command = [*command[:3], f"--resume={files.last}", "--epochs=400", "--wandb=False"]
    epochs = str(max(table(files)) + 2)
    done = subprocess.run(
        [*command[:4], f"--epochs={epochs}", "--wandb=False"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_curves_are_those_of_the_table(files)


def test_the_test_split_has_its_own_curve(tmp_path: Path) -> None:
    files = run(digits(tmp_path, epochs=2))
    config = resumed_config(files.best, {"test_net": str(files.best)})
    _, look = look_at_test(config)
    events = read(files.tensorboard / "test")
    (event,) = events.Scalars("accuracy")
    assert (event.step, event.value) == (look.epoch, pytest.approx(look.values["accuracy_test"]))
    look_at_test(config)  # The first look stays.
    assert len(read(files.tensorboard / "test").Scalars("accuracy")) == 1


def test_a_folder_that_cannot_be_written_costs_only_the_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    files = run(digits(tmp_path, epochs=1))
    assert len(table(files)) == 1
    assert "TensorBoardTracker failed, the files have everything" in caplog.text

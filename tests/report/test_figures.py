"""The figures of the report: their numbers, their files, and what odd runs do to them."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deep_cnn.config import TrainConfig
from deep_cnn.errors import OutputError
from deep_cnn.files import RunFiles, write_csv, write_text
from deep_cnn.report.runs import searched_in
from deep_cnn.report.verb import report
from deep_cnn.results import Best, RunResult, State, SweepTrial


def make(out: Path, name: str, losses: list[float], **changes: Any) -> RunFiles:
    """Write the files of a run with these validation losses."""
    sweep = changes.pop("sweep", None)
    given = {"task": "digits", "out_dir": str(out), **changes}
    config = TrainConfig.parse(given).to_dict()
    finite = [loss for loss in losses if np.isfinite(loss)]
    best = Best(losses.index(min(finite)), "loss_val", min(finite)) if finite else None
    state = State.FINISHED if finite else State.FAILED
    result = RunResult(name, state, config, best=best, seconds=1.0, sweep=sweep)
    files = RunFiles(out, name)
    write_text(files.result, result.to_json())
    if losses:
        rows = [(i, 0.1, loss * 2, loss) for i, loss in enumerate(losses)]
        write_csv(files.table, ("epoch", "lr", "loss_train", "loss_val"), rows)
        steps = [(i, i // 60, 2 / (i + 1)) for i in range(60 * len(losses))]
        write_csv(files.steps("train"), ("step", "epoch", "loss"), steps)
    return files


def write_test(files: RunFiles, rows: list[tuple[str, Any, Any]]) -> None:
    write_csv(files.predictions, ("image", "truth", "prediction"), rows)
    content = json.loads(files.result.read_text())
    write_text(files.result, json.dumps({**content, "test": {"loss_test": 0.5}}))


def sweep_record(out: Path, name: str, parameters: dict[str, Any]) -> None:
    content = {"method": "random", "metric": {"name": "loss_val"}, "parameters": parameters}
    write_text(out / "sweeps" / name / "sweep.json", json.dumps({"content": content, "seed": 0}))


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("outputs")


def stems(folder: Path) -> set[str]:
    """The names of all figures; each has three files that can be read."""
    found = {path.with_suffix("") for path in folder.rglob("*.svg")}
    for stem in found:
        svg = ElementTree.parse(f"{stem}.svg").getroot()
        assert float(svg.get("width", "").removesuffix("pt")) == pytest.approx(3.35 * 72)
        with Image.open(f"{stem}.png") as png:
            assert png.width == round(3.35 * 300)
        assert len(pd.read_csv(f"{stem}.csv"))
    assert len(list(folder.rglob("*.*"))) == 3 * len(found)
    return {str(stem.relative_to(folder)) for stem in found}


def test_one_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = make(out, "a", [3.0, 1.0, 2.0])
    write_test(files, [(f"p{i}", "cat", "dog" if i < 3 else "cat") for i in range(10)])
    counts = [("dog", 0, 0, 0), ("cat", 3, 7, 0), ("emu", 0, 0, 0)]  # In the order of --test_net.
    write_csv(files.confusion, ("truth", "dog", "cat", "emu"), counts)
    report(["a", "--figures=figures"])
    expected = {"learning_curves_a", "step_loss_a", "confusion_a"}
    assert stems(Path("figures")) == expected
    assert "3 figures in figures" in capsys.readouterr().err
    curves = pd.read_csv("figures/learning_curves_a.csv")
    assert curves.to_dict("list") == {
        "epoch": [0, 1, 2], "loss_train": [6.0, 2.0, 4.0], "loss_val": [3.0, 1.0, 2.0]
    }  # fmt: skip
    steps = pd.read_csv("figures/step_loss_a.csv")
    assert steps["loss"].tolist() == [2 / (i + 1) for i in range(180)]
    assert steps["median"][90] == pytest.approx(2 / 91, rel=0.05)
    confusion = pd.read_csv("figures/confusion_a.csv", index_col="truth")
    assert confusion.loc["cat"].to_dict() == {"dog": 3, "cat": 7, "emu": 0}
    assert list(confusion.columns) == ["dog", "cat", "emu"]


def test_the_line_is_where_the_numbers_are(out: Path) -> None:
    """The picture itself: dark pixels in the plot of predictions lie on the drawn points."""
    files = make(out, "a", [1.0], task="perception")
    write_test(files, [("p0", 0.0, 0.0), ("p1", 10.0, 10.0), ("p2", 0.0, 10.0)])
    report(["a", "--figures=figures"])
    with Image.open("figures/predictions_a.png") as picture:
        dark = np.asarray(picture.convert("L")) < 60
    rows, columns = np.nonzero(dark[:, dark.shape[1] // 8 :])
    inside = (rows < dark.shape[0] * 0.8) & (rows > 0)
    corner = (rows < dark.shape[0] // 8) & (columns < dark.shape[1] // 8) & inside
    assert corner.any()  # The point (0, 10) is at the upper left.


def test_a_sweep(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
        "optimizer": {"values": ["sgd", "adam"]},
        "epochs": {"value": 3},
    }
    sweep_record(out, "s", parameters)
    for i, lr in enumerate((0.001, 0.01, 0.1)):
        chosen = {"lr": lr, "optimizer": "adam" if i else "sgd"}
        make(out, f"s-{i}", [3.0, 1.0 + i, 2.0], sweep=SweepTrial("s", i), **chosen)
    make(out, "other", [0.5])
    values = [0.5, 0.7, 0.9]
    rows = [(0, "s-repeats-0", i, value) for i, value in enumerate(values)]
    write_csv(out / "sweeps/s/repeats.csv", ("trial", "run_name", "seed", "value"), rows)
    report(["outputs/sweeps/s", "--figures=figures"])
    printed = capsys.readouterr().out
    assert "other" not in printed
    assert printed.split()[:6] == [
        "run_name", "state", "best_loss_val", "best_epoch", "lr", "optimizer"
    ]  # fmt: skip
    assert stems(Path("figures")) == {
        "learning_curves_s-0", "learning_curves_s-1", "learning_curves_s-2", "step_loss_s-0",
        "step_loss_s-1", "step_loss_s-2", "loss_val_of_all_runs", "loss_val_against_lr",
        "loss_val_against_optimizer", "repeats_s",
    }  # fmt: skip
    against = pd.read_csv("figures/loss_val_against_lr.csv")
    assert against["lr"].tolist() == [0.001, 0.01, 0.1]
    assert against["best_loss_val"].tolist() == [1.0, 2.0, 2.0]
    assert searched_in(out / "sweeps/s") == {"lr": True, "optimizer": False}  # Which are log.
    repeats = pd.read_csv("figures/repeats_s.csv")
    assert repeats["mean"].tolist() == pytest.approx([0.7] * 3)
    assert 0.5 <= repeats["low"][0] < 0.7 < repeats["high"][0] <= 0.9
    every = pd.read_csv("figures/loss_val_of_all_runs.csv")
    assert every.columns.tolist() == ["epoch", "s-0", "s-1", "s-2"]


def test_losses_of_two_kinds_are_not_ranked_together(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(out, "classes", [0.2])
    make(out, "scores", [0.1], task="perception")
    make(out, "huber", [0.05], task="perception", loss="huber")
    make(out, "failed", [], task="perception")
    report(["--figures=figures"])
    tables = [table.splitlines() for table in capsys.readouterr().out.split("\n\n")]
    heads = {table[0]: [line.split()[0] for line in table[2:]] for table in tables}
    assert heads == {
        "loss_val of cross-entropy:": ["classes"],
        "loss_val of squared error:": ["scores", "failed"],
        "loss_val of Huber loss:": ["huber"],
    }
    assert "loss_val_cross-entropy/learning_curves_classes" in stems(Path("figures"))


def test_odd_runs_have_figures(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(out, "nan", [float("nan"), float("inf")], study="$x_{", task="perception")
    make(out, "cut", [], lr=1e30)
    hostile = make(out, "hostile", [1.0, -1.0], task="perception", study="a$b\x1b[31m" + "語" * 60)
    content = json.loads(hostile.result.read_text())
    content["run_name"] = "../$evil\n" * 20
    write_text(hostile.result, json.dumps(content))
    (out / "results" / "nan.steps_train.csv").write_text("step,epo")
    report(["--figures=figures"])
    assert "hostile" in "".join(stems(Path("figures")))
    assert not list(Path().glob("*evil*"))
    assert capsys.readouterr().out


def test_no_figures_and_a_folder_that_cannot_be(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(out, "a", [])
    report(["--figures=figures"])
    assert "no figure" in capsys.readouterr().err
    make(out, "b", [1.0])
    Path("file").write_text("")
    with pytest.raises(OutputError, match=r"^file.*cannot be written.*another --figures$"):
        report(["--figures=file"])

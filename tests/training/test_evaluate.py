"""The first look at the test split stays, and later ones are marked."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from deep_cnn.config import TrainConfig
from deep_cnn.files import RunFiles
from deep_cnn.report.verb import report
from deep_cnn.tracking.files import FileTracker
from deep_cnn.training.checkpoint import resumed_config
from deep_cnn.training.evaluate import test as evaluate_on_test
from deep_cnn.training.fit import fit
from tests.conftest import Command, environment

DIGITS = ("--task=digits", "--train_samples=100", "--wandb=False", "--run_name=d")
LOOK = ("--test_net=outputs/models/d.pt",)


def content(tmp_path: Path) -> dict[str, object]:
    result: dict[str, object] = json.loads((tmp_path / "outputs/results/d.json").read_text())
    return result


def bytes_of(tmp_path: Path, names: Sequence[str]) -> list[bytes]:
    return [(tmp_path / "outputs/results" / name).read_bytes() for name in names]


def test_the_first_look_has_intervals_and_no_later_one_replaces_it(
    tmp_path: Path, here: Command
) -> None:
    assert here(*DIGITS, "--epochs=1").returncode == 0
    assert content(tmp_path)["later_tests"] == []
    first = here(*LOOK)
    assert first.returncode == 0, first.stderr
    files = ["d.test.csv", "d.confusion.csv"]
    before, test = bytes_of(tmp_path, files), content(tmp_path)["test"]
    rows = list(csv.DictReader((tmp_path / "outputs/results/d.test.csv").open()))
    hits = np.array([row["truth"] == row["prediction"] for row in rows], dtype=float)
    drawn = np.random.default_rng(1).choice(hits, (5_000, len(hits))).mean(1)
    look = content(tmp_path)["first_test"]
    assert isinstance(look, dict)
    assert look["intervals"]["precision@1_test"] == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.02
    )
    assert (look["file"], look["epoch"], look["metrics"]) == ("d.test.csv", 0, test)
    low, high = look["intervals"]["precision@1_test"]
    assert f"precision@1_test {low:.4g} to {high:.4g}" in first.stdout
    assert f"bootstrap over {len(rows)} pictures" in first.stdout

    for number in (2, 3):
        again = here("--test_net=outputs/models/d.best.pt")
        assert again.returncode == 0
        assert f"look {number}" in again.stdout
        assert (
            f"This test split was opened before by this run: this is look {number}" in again.stderr
        )
        assert " to " not in again.stdout
    assert bytes_of(tmp_path, files) == before
    after = content(tmp_path)
    assert (after["test"], after["first_test"]) == (test, look)
    assert isinstance(after["later_tests"], list)
    assert [one["file"] for one in after["later_tests"]] == ["d.test-2.csv", "d.test-3.csv"]
    assert after["later_tests"][0]["checkpoint"] == "outputs/models/d.best.pt"
    assert bytes_of(tmp_path, ["d.test-2.csv"]) == before[:1]
    assert "look 3" in (tmp_path / "outputs/logger/d.log").read_text()
    leaderboard = here("report").stdout.splitlines()
    assert "test_looks" in leaderboard[0].split()
    assert leaderboard[1].split()[-2] == "3"


def test_two_looks_at_once_have_a_file_each(tmp_path: Path, here: Command) -> None:
    assert here(*DIGITS, "--epochs=1").returncode == 0
    words = [sys.executable, "-m", "deep_cnn", *LOOK]
    env = environment(OMP_NUM_THREADS="1")
    both = [
        subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL) for _ in range(3)
    ]
    assert [process.wait(300) for process in both] == [0, 0, 0]
    after = content(tmp_path)
    assert isinstance(after["later_tests"], list)
    assert {one["file"] for one in after["later_tests"]} == {"d.test-2.csv", "d.test-3.csv"}
    assert after["test"] is not None
    tables = bytes_of(tmp_path, ["d.test.csv", "d.test-2.csv", "d.test-3.csv"])
    assert tables[0] == tables[1] == tables[2]


def test_an_old_test_is_not_shown_beside_a_newer_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(task="digits", train_samples=300, epochs=1, run_name="d")
    fit(config, FileTracker())
    files = RunFiles(Path("outputs"), "d")
    old = evaluate_on_test(resumed_config(files.last, {"test_net": files.last}))
    fit(resumed_config(files.last, {"resume": files.last, "epochs": 3}), FileTracker())
    after = content(tmp_path)
    assert isinstance(after["best"], dict)
    assert after["best"]["epoch"] > 0
    assert after["test"] is None
    assert isinstance(after["first_test"], dict)
    assert after["first_test"]["metrics"] == old
    report(["--csv"])
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert "loss_test" not in row
    assert row["test_looks"] == "1"
    new = evaluate_on_test(resumed_config(files.best, {"test_net": files.best}))
    report(["--csv"])
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(row["loss_test"]) == new["loss_test"] != old["loss_test"]
    assert row["test_looks"] == "2"
    assert content(tmp_path)["test"] is None


def test_a_test_of_the_best_epoch_stays_valid_while_it_is_the_best(tmp_path: Path) -> None:
    config = TrainConfig(
        task="digits", train_samples=300, epochs=1, run_name="d", out_dir=str(tmp_path / "outputs")
    )
    fit(config, FileTracker())
    files = RunFiles(tmp_path / "outputs", "d")
    old = evaluate_on_test(resumed_config(files.best, {"test_net": files.best}))
    result = json.loads(files.result.read_text())
    assert result["test"] == old
    saved = torch.load(files.last, weights_only=True)
    saved["best"]["value"] = 0.0  # No later epoch can be better.
    torch.save(saved, files.last)
    fit(resumed_config(files.last, {"resume": files.last, "epochs": 2}), FileTracker())
    assert json.loads(files.result.read_text())["test"] == old

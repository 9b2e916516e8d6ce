"""The leaderboard and the comparison of two runs, from files alone."""

import csv
import json
import os
import socket
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deep_cnn.config import TrainConfig
from deep_cnn.files import RunFiles, write_csv, write_text
from deep_cnn.report.verb import report
from deep_cnn.results import Best, RunResult, State


def make(out: Path, name: str, value: float | None = 0.5, **changes: Any) -> RunFiles:
    given = {"task": "digits", "out_dir": str(out), "lr": 0.01, **changes}
    config = TrainConfig(**given).to_dict()
    best = None if value is None else Best(3, "loss_val", value)
    metrics = {} if value is None else {"loss_val": value + 0.1, "precision@1_val": 1 - value}
    state = State.FAILED if value is None else State.FINISHED
    result = RunResult(name, state, config, best=best, metrics=metrics, seconds=12.5)
    files = RunFiles(out, name)
    write_text(files.result, result.to_json())
    write_text(files.arguments, json.dumps(config))
    return files


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    out = Path("outputs")
    make(out, "middle", 0.5, lr=0.1)
    make(out, "best", 0.25)
    make(out, "worst", 0.75, batch_size=8)
    make(out, "broken", None)
    return out


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_the_best_comes_first(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([]) == 0
    text = capsys.readouterr().out
    assert names(text) == ["best", "middle", "worst", "broken"]
    head = text.splitlines()[0].split()
    assert {"lr", "batch_size"} <= set(head)
    assert "momentum" not in head
    assert "out_dir" not in head
    report(["outputs", "--sort=precision@1_val", "--top=2"])
    text = capsys.readouterr().out
    assert names(text)[:2] == ["best", "middle"]
    assert "and 2 more" in text
    assert text.splitlines()[0].split()[2:5] == ["best_loss_val", "best_epoch", "precision@1_val"]
    for column in ("best_loss_val", "loss_val", "best-loss-val"):
        report([f"--sort={column}"])
        assert names(capsys.readouterr().out) == ["best", "middle", "worst", "broken"]
    report(["--sort=run_name"])
    assert names(capsys.readouterr().out) == ["best", "broken", "middle", "worst"]


def test_every_column_as_csv_and_everything_as_json(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(["--csv"])
    found = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [row["run_name"] for row in found] == ["best", "middle", "worst", "broken"]
    assert (found[1]["lr"], found[1]["best"], found[1]["loss_val"]) == ("0.1", "0.5", "0.6")
    report(["--json", "--top=1"])
    (run,) = json.loads(capsys.readouterr().out)
    assert run == json.loads(RunFiles(out, "best").result.read_text())


def test_any_mixture_of_places_and_damaged_files(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path("elsewhere"), "other", 0.3)
    (out / "results" / "torn.json").write_text('{"config": {}, "sta')
    report(["outputs", "elsewhere", "outputs/results/best.json", "outputs/models/worst.best.pt"])
    printed = capsys.readouterr()
    assert names(printed.out) == ["best", "other", "middle", "worst", "broken"]
    (line,) = printed.err.splitlines()
    assert "torn.json" in line


def predict(files: RunFiles, errors: Any) -> None:
    open_test(files, [(f"p{i}", i / 10, i / 10 + error) for i, error in enumerate(errors)])


def open_test(files: RunFiles, rows: Any) -> None:
    """As --test_net leaves it."""
    write_csv(files.predictions, ("image", "truth", "prediction"), rows)
    result = RunResult.from_json(files.result.read_text())
    write_text(files.result, replace(result, test={"loss_test": 0.5}).to_json())


def test_two_runs_side_by_side(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    one = make(out, "one", 0.5, task="digits", lr=0.1)
    two = make(out, "two", 0.25, task="digits", lr=0.2, run_name="x")
    for files in (one, two):  # As a task with scores has it.
        text = json.loads(files.result.read_text())
        text["config"]["task"] = "perception"
        write_text(files.result, json.dumps(text))
    report(["one", "two"])
    text = capsys.readouterr().out
    assert "--test_net=CHECKPOINT makes them" in text
    assert "run_name" not in text
    errors = random.normal(0, 1, 60)
    predict(one, errors)
    predict(two, [*(errors[:50] * 0.5), *[9.0] * 10][:50])
    report(["one", "outputs/results/two.json", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["config"] == {"lr": [0.1, 0.2]}
    assert found["results"]["best"] == [0.5, 0.25]
    paired = found["paired"]
    differences = -0.5 * np.abs(errors[:50])
    assert paired["pictures"] == 50
    assert paired["difference"] == pytest.approx(differences.mean())
    draws = random.choice(differences, (20_000, 50)).mean(1)
    assert paired["interval"] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)
    assert paired["distinguishable"]
    predict(two, errors)
    report(["one", "two"])
    assert "A and B are not distinguishable." in capsys.readouterr().out
    result = RunResult.from_json(two.result.read_text())
    write_text(two.result, replace(result, test=None).to_json())  # As a run that went on has it.
    report(["one", "two"])
    assert "No predictions of two: --test_net=CHECKPOINT" in capsys.readouterr().out


def test_classes_are_right_or_wrong(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, wrong in (("best", 5), ("worst", 20)):
        rows = [(f"p{i}", "cat", "dog" if i < wrong else "cat") for i in range(40)]
        open_test(RunFiles(out, name), rows)
    report(["best", "worst", "--json"])
    paired = json.loads(capsys.readouterr().out)["paired"]
    assert (paired["error"], paired["a"], paired["b"]) == ("error rate", 0.125, 0.5)
    assert paired["difference"] == 0.375


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["--sort=los_val"], "did you mean loss_val"),
        (["--sort=-loss_val"], "--sort=-loss_val is no column"),
        (["--csv", "--json"], "two formats"),
        (["empty"], "no run is over in empty"),
        (["--top=0"], "--top=0 is out of range"),
    ],
)
def test_mistakes_are_one_line(out: Path, words: list[str], message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        report(words)
    assert message in str(error.value)


GOOD = {
    "version": 1, "run_name": "x", "state": "finished", "config": {"lr": 0.1}, "seconds": 1.0,
    "best": {"epoch": 1, "metric": "loss_val", "value": 0.5}, "metrics": {"loss_val": 0.5},
}  # fmt: skip
ODD = (None, 5, "x", [1], {"a": 1}, True, float("inf"), float("nan"), 10**400, -1, [[[]]])
# Values that are no result of a run, or that no file may hold.
NO_RESULTS = {
    "deep": "[" * 100_000,
    "deeper config": json.dumps({**GOOD, "config": {"a": json.loads("[" * 300 + "]" * 300)}}),
    "too many digits": '{"config": {}, "state": "finished", "run_name": "x", "a": ' + "9" * 5000,
    "not text": b"\xff\xfe\x00",
    "no configuration": json.dumps({**GOOD, "config": None}),
    "a state of another program": json.dumps({**GOOD, "state": "crashed"}),
    "metrics of text": json.dumps({**GOOD, "metrics": {"loss_val": "x"}}),
}


def special_files(folder: Path) -> list[socket.socket]:
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    for name, target in (("zero", "/dev/zero"), ("loop", "loop.json"), ("gone", "gone")):
        (folder / f"{name}.json").symlink_to(target)
    (folder / "up").symlink_to("..")
    (folder / f"{'n' * 250}.json").write_text("{}")
    with (folder / "sparse.json").open("wb") as file:
        file.truncate(1 << 40)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket.json"))
    return [listener]


@pytest.mark.parametrize("words", [[], ["--csv"], ["--json"], ["--sort=lr"], ["--sort=seconds"]])
def test_odd_files_end_no_leaderboard(
    out: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    open_files = special_files(out / "results")
    for name, content in NO_RESULTS.items():
        path = out / "results" / f"{name}.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for i, value in enumerate(ODD):
        for key in (*GOOD, "test", "sweep", "stop_reason", "environment", "later_tests"):
            for kind, content in (
                ("whole", {**GOOD, key: value}),
                ("config", {**GOOD, "config": {key: value, "lr": value}}),
            ):
                content["run_name"] = value if (kind, key) == ("whole", "run_name") else "x"
                path = out / "results" / f"{kind}-{key}-{i}.json"
                path.write_text(json.dumps(content))
    for folder in ("outputs", "."):
        assert report([folder, "--top=1000", *words]) == 0
        printed = capsys.readouterr()
        assert "middle" in printed.out
        assert "worst" in printed.out
        left_out = [line.split(" is no result")[0] for line in printed.err.splitlines()]
        for name in (*NO_RESULTS, "pipe", "folder", "zero", "loop", "gone", "sparse", "socket"):
            assert f"left out: outputs/results/{name}.json" in left_out
        assert len(left_out) == len(set(left_out))
    for listener in open_files:
        listener.close()


@pytest.mark.parametrize("words", [[], ["--csv"], ["--json"]])
def test_control_characters_and_lines_in_values_are_escaped(
    out: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;title\x07evil\nsecond\r\u202e"
    content = {**GOOD, "run_name": evil, "config": {"lr": evil, evil: 1}}
    (out / "results" / "evil.json").write_text(json.dumps(content))
    (out / "results" / "\x1b[31m\nred.json").write_text("{}")
    for paths in (["outputs"], ["evil", "best"]):
        assert report([*paths, *words]) == 0
        printed = capsys.readouterr()
        for text in (printed.out, printed.err):
            assert all(line.isprintable() for line in text.split("\n"))
        assert r"evil\nsecond" in printed.out
    report(["outputs"])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 6
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("cell", ["text", "", "nan", "1e999"])
def test_predictions_that_are_no_scores_are_one_line(out: Path, cell: str) -> None:
    files = [make(out, name, 0.5, task="perception") for name in ("one", "two")]
    for each in files:
        open_test(each, [("p0", 1.0, 1.0), ("p1", 2.0, cell)])
    with pytest.raises(
        ValueError, match=r"^outputs/results/one.test.csv holds no predictions"
    ) as e:
        report(["one", "two"])
    assert "\n" not in str(e.value)


def test_huge_scores_are_compared_without_overflow(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, sign in (("one", 1.0), ("two", -1.0)):
        make(out, name, 0.5, task="perception")
        open_test(RunFiles(out, name), [(f"p{i}", 1e308, sign * 1e307) for i in range(9)])
    assert report(["one", "two", "--json"]) == 0
    paired = json.loads(capsys.readouterr().out)["paired"]
    assert paired["a"] == pytest.approx(0.9e308)
    assert paired["b"] == pytest.approx(1.1e308)
    assert paired["difference"] == pytest.approx(0.2e308)

"""File names of runs, and the JSON of a result."""

import json
from pathlib import Path

import pytest

from deep_cnn.config import TrainConfig
from deep_cnn.errors import OutputError
from deep_cnn.files import claim_run, safe_name, write_text
from deep_cnn.results import Best, RunResult, State, StopReason


@pytest.mark.parametrize("name", ["first", "lr=0.00102,pre=squash", "a" * 100, "A-1_b.c", "-rf"])
def test_a_safe_name_stays(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "../../etc",
        "..",
        ".hidden",
        "a" * 101,
        "über",
        "a b",
        "x\n",
        "first.best",
        "first.confusion",
        "first.epoch3",
        "first.test-2",
        "q\0",
    ],
)
def test_an_unsafe_name_becomes_safe_and_stays_unique(name: str) -> None:
    safe = safe_name(name)
    assert safe != name
    assert 0 < len(safe) <= 100
    assert not set(safe) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=,-"
    )
    assert safe_name(safe) == safe
    assert safe_name(name + "?") != safe


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    config = TrainConfig(task="digits", out_dir=str(tmp_path), run_name="a" * 100)
    names = [claim_run(config).name for _ in range(3)]
    assert names == ["a" * 100, "a" * 98 + "-2", "a" * 98 + "-3"]


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out_dir"):
        claim_run(TrainConfig(task="digits", out_dir=str(tmp_path / "file")))


def test_a_result_comes_back_from_json_and_holds_no_nan() -> None:
    result = RunResult(
        "r",
        State.STOPPED,
        {"lr": 0.1},
        StopReason("hyperband", 3, 0.5, 0.25),
        best=Best(1, "loss_val", 0.5),
        metrics={"loss_val": 0.5, "pearson_val": float("nan")},
    )
    content = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert content["metrics"] == {"loss_val": 0.5, "pearson_val": None}
    assert set(content) == {
        "version", "run_name", "state", "stop_reason", "config", "sweep", "best", "metrics", "test",
        "seconds", "error", "environment", "unsynced", "later_tests",
    }  # fmt: skip
    back = RunResult.from_json(result.to_json())
    assert (back.state, back.stop_reason, back.best) == (
        result.state,
        result.stop_reason,
        result.best,
    )


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    with pytest.raises((OutputError, UnicodeEncodeError)):
        write_text(path, "half\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

"""Options that were set and change nothing are named once."""

from pathlib import Path
from typing import Any

import pytest

from deep_cnn.config import TrainConfig
from deep_cnn.effects import without_effect
from deep_cnn.names import TASKS
from tests.conftest import Command, make_scored

UNUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # The option, what makes it useless, and what makes it useful.
    ("momentum", {"optimizer": "adam"}, {"optimizer": "sgd"}),
    ("momentum", {"optimizer": "adamw"}, {"optimizer": "sgd"}),
    ("decay", {"schedule": "constant"}, {"schedule": "step"}),
    ("decay", {"schedule": "cosine"}, {"schedule": "plateau"}),
    ("decay", {"schedule": "onecycle"}, {"schedule": "hyperbolic"}),
    ("lr_trunk", {"freeze": "trunk"}, {"freeze": "none"}),
    ("lr_trunk", {"freeze": 5, "model": "resnet18"}, {"freeze": 4, "model": "resnet18"}),
    ("patience", {"train_on": "train+val"}, {"train_on": "train"}),
    ("cache_dir", {"cache": "off"}, {"cache": "auto"}),
    ("wandb_artifacts", {"wandb": False}, {"wandb": True}),
    ("amp", {"device": "mps"}, {"device": "cpu"}),
    ("root_dir", {"data_dir": "/a", "out_dir": "/b"}, {"data_dir": "a", "out_dir": "/b"}),
    ("hidden", {"task": "digits", "model": "resnet18"}, {"task": "digits", "model": "lenet"}),
    ("hidden", {"task": "mnist", "model": "mnistnet"}, {"task": "mnist", "model": "lenet"}),
    ("data_dir", {"task": "digits"}, {"task": "folders"}),
    ("strict_data", {"task": "digits"}, {"task": "folders"}),
]
VALUE = {
    "momentum": 0.9, "decay": 0.1, "lr_trunk": 0.1, "patience": 2, "cache_dir": "x", "hidden": 10,
    "wandb_artifacts": "best", "amp": "bf16", "root_dir": "/r", "data_dir": "x",
    "strict_data": True,
}  # fmt: skip


@pytest.mark.parametrize(("option", "useless", "useful"), UNUSED)
def test_an_option_that_others_make_useless_is_found(
    option: str, useless: dict[str, Any], useful: dict[str, Any]
) -> None:
    value = {option: VALUE[option]}
    assert option in without_effect(TrainConfig.parse({**value, **useless}))
    assert option not in without_effect(TrainConfig.parse({**value, **useful}))


@pytest.mark.parametrize("task", ["auto", *TASKS])
def test_defaults_are_not_named(task: str) -> None:
    assert set(without_effect(TrainConfig.parse({"task": task}), ("val", "test"))) == set()


def test_fractions_of_splits_that_the_data_mark_are_found() -> None:
    config = TrainConfig.parse({"val_split": 0.3, "test_split": 0.3})
    assert set(without_effect(config, {"test"})) == {"test_split"}
    assert set(without_effect(config, {"val", "train"})) == {"val_split"}


def test_a_run_names_them_in_one_line_of_its_log(tmp_path: Path, here: Command) -> None:
    folder = make_scored(tmp_path / "data", 30)
    lines = (folder / "scores.csv").read_text().splitlines()
    marks = [f"{line},{'test' if i % 5 == 0 else ''}" for i, line in enumerate(lines[1:])]
    (folder / "scores.csv").write_text("\n".join([f"{lines[0]},split", *marks]))
    words = ("--data_dir=data", "--model=lenet", "--weights=none", "--epochs=1", "--wandb=False")
    done = here(*words, "--run_name=a", "--momentum=0.9", "--decay=0.1", "--test_split=0.2")
    assert done.returncode == 0, done.stderr
    for text in (done.stderr, (tmp_path / "outputs/logger/a.log").read_text()):
        (line,) = [line for line in text.splitlines() if "without effect" in line]
        assert "--momentum (" in line
        assert "--decay (" in line
        assert "--test_split (the data mark the test pictures)" in line
        assert "--weights" not in line
    plain = here(*words, "--run_name=b")
    assert "without effect" not in plain.stderr
    again = here("--resume=outputs/models/a.pt", "--epochs=2", "--wandb=False")
    assert again.returncode == 0
    assert "without effect" not in again.stderr

"""Schedules of the user: which rates count, how they resume, and what is refused."""

import csv
import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.conftest import Command, read_checkpoint
from tests.models.common import FAST, SCHEDULE

RUN = (*FAST, "--epochs=3", "--run_name=one")
NO_STATE = SCHEDULE.partition("    def state_dict")[0]
OWN_RATES = """\
from torch.optim.lr_scheduler import MultiStepLR


class Halving(MultiStepLR):
    def __init__(self, optimizer):
        super().__init__(optimizer, [1, 2], 0.5)
"""


def rates(folder: Path, run: str = "one") -> list[float]:
    with (folder / f"outputs/results/{run}.csv").open(newline="") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("code", [SCHEDULE, OWN_RATES, NO_STATE], ids=["lr", "torch", "no state"])
@pytest.mark.parametrize("option", ["--lr_trunk=1", "--lr_trunk=0.1"])
def test_the_rates_are_those_of_the_class(
    here: Command, tmp_path: Path, code: str, option: str
) -> None:
    (tmp_path / "s.py").write_text(code)
    done = here(*RUN, "--schedule=s.py:Halving", "--lr=0.02", option)
    assert done.returncode == 0, done.stderr
    assert rates(tmp_path) == pytest.approx([0.02, 0.01, 0.005])
    groups = read_checkpoint(tmp_path / "outputs/models/one.pt")["optimizer"]["param_groups"]
    factors = [1.0] if option == "--lr_trunk=1" else [1.0, 0.1]
    assert [group["lr"] for group in groups] == pytest.approx([0.005 * each for each in factors])
    with zipfile.ZipFile(tmp_path / "outputs/logger/one.source.zip") as archive:
        assert archive.namelist() == ["schedule/s.py"]


@pytest.mark.parametrize("code", [SCHEDULE, OWN_RATES], ids=["lr", "torch"])
def test_a_resumed_schedule_goes_on_bit_for_bit(here: Command, tmp_path: Path, code: str) -> None:
    (tmp_path / "s.py").write_text(code)
    schedule = "--schedule=s.py:Halving"
    assert here(*RUN, schedule, "--epochs=4", "--run_name=whole").returncode == 0
    assert here(*RUN, schedule, "--epochs=2").returncode == 0
    done = here("--resume=outputs/models/one.pt", "--epochs=4", schedule)
    assert done.returncode == 0, done.stderr
    assert rates(tmp_path) == rates(tmp_path, "whole")
    columns = [
        [row["loss_train"] for row in csv.DictReader(path.open(newline=""))]
        for path in sorted((tmp_path / "outputs/results").glob("*[!ln].csv"))
        if path.name in ("one.csv", "whole.csv")
    ]
    assert columns[0] == columns[1]


def test_a_schedule_without_a_state_cannot_be_resumed(here: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(NO_STATE)
    assert here(*RUN, "--schedule=s.py:Halving", "--epochs=1").returncode == 0
    done = here("--resume=outputs/models/one.pt", "--epochs=2", "--schedule=s.py:Halving")
    assert done.returncode == 2
    assert "has no state_dict() and load_state_dict(); add them" in done.stderr
    assert rates(tmp_path) == [0.01]


def test_a_run_is_resumed_with_the_schedule_that_it_had(here: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCHEDULE)
    assert here(*RUN, "--schedule=s.py:Halving").returncode == 0
    resume = ("--resume=outputs/models/one.pt", "--epochs=4")
    done = here(*resume)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name it again, as in --schedule=s.py:Halving" in done.stderr
    done = here(*resume, "--schedule=cosine")
    assert "does not fit the checkpoint, which has s.py:Halving" in done.stderr
    (tmp_path / "s.py").write_text(SCHEDULE.replace("/= 2", "/= 3"))
    done = here(*resume, "--schedule=s.py:Halving")
    assert done.returncode == 2
    assert "is not the source that outputs/models/one.pt was trained with" in done.stderr
    assert here("--test_net=outputs/models/one.pt").returncode == 0  # It needs no schedule.


def test_a_later_first_epoch_has_its_own_rate(here: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCHEDULE)
    done = here(*RUN, "--schedule=s.py:Halving", "--initial_epoch=1", "--lr=0.02")
    assert done.returncode == 0, done.stderr
    assert rates(tmp_path) == [0.01, 0.005]


def test_numbers_of_numpy_are_a_state(here: Command, tmp_path: Path) -> None:
    numpy = "import numpy as np\n\n\n" + SCHEDULE.replace("/= 2", "= np.float64(0.5) * self.lr")
    (tmp_path / "s.py").write_text(numpy)
    assert here(*RUN, "--schedule=s.py:Halving").returncode == 0
    state = read_checkpoint(tmp_path / "outputs/models/one.pt")["schedule"]
    assert state == {"lr": 0.00125}


BAD = {
    "no step": ("pass", r"it has no step\(\), which is called after each epoch"),
    "arguments": ("def __init__(self, optimizer, k): pass", "its constructor needs k; give"),
    "nan": ("lr = float('nan')\n    def step(self): pass", "its learning rate is nan"),
    "negative": ("lr = -1\n    def step(self): pass", "its learning rate is -1.0"),
    "text": ("lr = 'fast'\n    def step(self): pass", "its lr is of type str"),
    "method": ("def lr(self): return 1\n    def step(self): pass", "its lr is of type method"),
    "error": ("lr = 1\n    def step(self): 1 / 0", r"s\.py, line 4: ZeroDivisionError"),
    "state": (
        "lr = 1\n    def step(self): pass\n    def state_dict(self): return {'x': object()}\n"
        "    def load_state_dict(self, state): pass",
        "a checkpoint cannot hold them",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_schedule_is_refused_in_one_line(here: Command, tmp_path: Path, name: str) -> None:
    body, message = BAD[name]
    init = "" if "__init__" in body else "    def __init__(self, optimizer): pass\n"
    (tmp_path / "s.py").write_text(f"class Bad:\n{init}    {body}\n")
    done = here(*RUN, "--schedule=s.py:Bad")
    error = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert re.search(f"^deep_cnn: --schedule=s.py:Bad: .*{message}", error), error
    result = tmp_path / "outputs/results/one.json"
    if result.exists():  # The run had begun.
        content = json.loads(result.read_text())
        assert (content["state"], content["error"] in error) == ("failed", True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("    @property\n    def lr(self):\n        return self.nope\n", "nope"),
        ("    lr = '0.1'\n", "its lr is of type str, not a number"),
        ("    lr = True\n", "its lr is of type bool, not a number"),
        ("    def lr(self):\n        return 0.1\n", "its lr is of type method, not"),
        (
            "    def state_dict(self):\n        return None\n"
            "    def load_state_dict(self, state):\n        pass\n",
            "its state_dict() returns None, not a dict",
        ),
    ],
)
def test_mistakes_in_a_schedule_are_named(
    here: Command, tmp_path: Path, code: str, expected: str
) -> None:
    head = "class S:\n    def __init__(self, optimizer): pass\n    def step(self): pass\n"
    (tmp_path / "s.py").write_text(head + code)
    done = here(*RUN, "--schedule=s.py:S")
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr.splitlines()[-1]

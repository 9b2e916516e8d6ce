"""How many threads a run has: --threads, OMP_NUM_THREADS, the size of the network, the cores."""

import json
import os
from pathlib import Path

import pytest
import torch

from deep_cnn import TrainConfig, fit
from deep_cnn.training import devices
from tests.conftest import Command

CORES = 6
DIGITS = ("--task=digits", "--train_samples=60", "--epochs=1", "--run_name=d")


@pytest.fixture(autouse=True)
def six_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of six cores, without OMP_NUM_THREADS."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    monkeypatch.setattr(devices, "_share", None)


def config(model: str = "resnet18", **values: object) -> TrainConfig:
    return TrainConfig(task="digits", model=model, weights="none").updated(values)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("lenet", 1), ("squeezenet1_0", 1), ("efficientnet_lite0", CORES), ("resnet18", CORES)],
)
def test_small_networks_have_one_thread_and_others_every_core(model: str, expected: int) -> None:
    assert devices.choose_threads(config(model)) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("3", 3), ("9", 9), ("2,4", 2), ("", 6), ("many", 6), ("0", 6)]
)
def test_omp_num_threads_counts_if_it_is_a_number(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert devices.choose_threads(config()) == expected
    assert devices.choose_threads(config(threads=4)) == 4


def test_a_worker_takes_its_share_unless_threads_says_more(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.share_cores(2)
    assert devices.choose_threads(config()) == 2
    assert devices.choose_threads(config("lenet")) == 1
    assert devices.choose_threads(config(threads=5)) == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    assert devices.choose_threads(config()) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert devices.choose_threads(config()) == 1


@pytest.mark.parametrize(("earlier", "expected"), [(2, 2), (6, 6), (7, 1)])
def test_a_resumed_run_has_as_many_threads_as_before_if_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, earlier: int, expected: int
) -> None:
    small = config("lenet")
    assert devices.choose_threads(small, earlier) == expected
    assert devices.choose_threads(small.updated({"threads": 3}), earlier) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert devices.choose_threads(small, earlier) == 4


def test_a_run_says_and_stores_its_threads_and_leaves_those_of_its_process(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    values = {"task": "digits", "train_samples": 60, "epochs": 1, "out_dir": tmp_path}
    result = fit(TrainConfig().updated({**values, "threads": 2}))
    assert result.environment["threads"] == 2
    assert fit(TrainConfig().updated(values)).environment["threads"] == 1
    assert torch.get_num_threads() == before


def test_threads_are_no_part_of_the_identity_of_a_run() -> None:
    one, two = (TrainConfig(task="digits", threads=threads) for threads in (1, 2))
    assert one.fingerprint() == two.fingerprint()
    assert two.short_name() == "task=digits"


def test_a_resumed_run_keeps_its_threads_and_warns_of_others(here: Command, tmp_path: Path) -> None:
    def threads(*words: str, **extra: str) -> tuple[int, str]:
        done = here(*words, OMP_NUM_THREADS="", **extra)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "outputs/results/d.json").read_text())
        return result["environment"]["threads"], done.stderr

    count, err = threads(*DIGITS, "--threads=2")
    assert (count, "validation; threads: 2\n" in err) == (2, True)
    resume = "--resume=outputs/models/d.pt"
    count, err = threads(resume, "--epochs=2")
    assert (count, "The checkpoint was computed" in err) == (2, False)
    count, err = threads(resume, "--epochs=3", "--threads=1")
    assert count == 1
    assert "computed with 2 threads, this is with 1" in err
    assert "(--threads=2 repeats them)" in err


@pytest.mark.slow
def test_the_trials_of_a_sweep_take_threads_as_they_are(here: Command, tmp_path: Path) -> None:
    text = (
        "method: grid\nmetric: {name: loss_val}\nparameters:\n  threads: {values: [3, null]}\n"
        "  epochs: {value: 1}\n"
        'command: ["${env}", python, -m, deep_cnn, --task=digits, --train_samples=60, "${args}"]\n'
    )
    (tmp_path / "s.yaml").write_text(text)
    done = here("sweep", "s.yaml", "--workers=1")
    assert done.returncode == 0, done.stderr
    results = [tmp_path / f"outputs/results/s-0000{i}.json" for i in range(2)]
    environments = [json.loads(path.read_text())["environment"] for path in results]
    assert [each["threads"] for each in environments] == [3, 1]

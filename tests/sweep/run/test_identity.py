"""Which sweep files, options and data continue the sweep in a folder, and which are another one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from deep_cnn.errors import SpecError
from deep_cnn.results import RunResult
from deep_cnn.sweep.run.identity import SweepRecord, continue_sweep
from deep_cnn.sweep.spec.parse import parse_text
from deep_cnn.sweep.spec.points import next_point
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import to_jsonable
from tests.conftest import Command, make_classes
from tests.sweep.run.test_engine import trials, write

COMMAND = ["python", "-m", "deep_cnn", "--task=digits", "${args}"]
LENET = ("--task=digits", "--model=lenet", "--weights=none", "--epochs=1", "--train_samples=100")
PATH = Path("sweep.json")


def spec_of(parameters: dict[str, Any], constants: dict[str, str] | None = None) -> SweepSpec:
    content = {"method": "grid", "parameters": parameters, "command": COMMAND}
    spec, findings = parse_text(yaml.safe_dump(content), "s", constants)
    assert spec, findings
    return spec


def record_of(spec: SweepSpec, **fields: Any) -> SweepRecord:
    return replace(SweepRecord(to_jsonable(spec.content), 0, dict(spec.constants)), **fields)


def values(**lists: list[Any]) -> dict[str, Any]:
    return {name: {"values": each} for name, each in lists.items()}


def grid(spec: SweepSpec) -> list[tuple[Any, ...]]:
    points = []
    while proposal := next_point(spec, 0, len(points), frozenset()):
        points.append(tuple(proposal.point.values()))
    return points


def test_values_that_are_added_to_a_grid_follow_in_grid_order() -> None:
    first = spec_of(values(batch_size=[8, 16], lr=[0.1, 0.2]))
    second = spec_of(values(batch_size=[4, 8, 16], lr=[0.1, 0.2]))
    third = spec_of(values(batch_size=[4, 8, 16], lr=[0.1, 0.3, 0.2]))
    old = [(8, 0.1), (8, 0.2), (16, 0.1), (16, 0.2)]
    assert grid(first) == old
    spec, record = continue_sweep(PATH, record_of(first), second, 0)
    assert grid(spec) == [*old, (4, 0.1), (4, 0.2)]
    spec, record = continue_sweep(PATH, record, third, 0)
    assert grid(spec) == [*old, (4, 0.1), (4, 0.2), (4, 0.3), (8, 0.3), (16, 0.3)]
    assert spec.points == 9
    again, same = continue_sweep(PATH, record, third, 0)  # The same file once more.
    assert (grid(again), same) == (grid(spec), record)


def test_a_grid_of_an_earlier_version_keeps_its_order() -> None:
    nested = {"a": {"parameters": {"lr": {"values": [1, 2]}}}, "a-c": {"values": [5, 6]}}
    content = {"method": "grid", "parameters": nested, "program": "train.py"}
    spec, findings = parse_text(yaml.safe_dump(content), "s")
    assert spec, findings
    new, _ = continue_sweep(PATH, None, spec, 0)
    assert grid(new) == [(1, 5), (1, 6), (2, 5), (2, 6)]
    old, record = continue_sweep(PATH, record_of(spec), spec, 0)
    assert list(old.space) == ["a-c", "a/lr"]  # By the whole names.
    assert grid(old) == [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert not record.by_level


@pytest.mark.parametrize(
    "changed",
    [
        values(batch_size=[8], lr=[0.1]),
        values(batch_size=[8, 16], lr=[0.1], seed=[1]),
        values(batch_size=[8, 32], lr=[0.1]),
        values(batch_size=[8, 16]),
    ],
)
def test_any_other_change_of_a_grid_is_another_sweep(changed: dict[str, Any]) -> None:
    record = record_of(spec_of(values(batch_size=[8, 16], lr=[0.1])))
    with pytest.raises(SpecError, match=r"has changed since the sweep began \(parameters\)"):
        continue_sweep(PATH, record, spec_of(changed), 0)


def test_what_cannot_change_a_result_may_change() -> None:
    begun = spec_of({**values(lr=[0.1, 0.2]), "num_workers": {"value": 0}}, {"wandb": "False"})
    resumed = spec_of({**values(lr=[0.1, 0.2]), "num_workers": {"value": 2}}, {"wandb": "True"})
    spec, record = continue_sweep(PATH, record_of(begun), resumed, 0)
    assert record.constants == {"wandb": "True"}
    # A trial that was proposed before runs as the file says now.
    assert spec.config(spec.current({"lr": 0.1, "num_workers": 0})).num_workers == 2


def test_constants_are_stored_and_another_value_is_an_error() -> None:
    parameters = values(lr=[0.1, 0.2])
    record = record_of(spec_of(parameters, {"model": "lenet", "weights": "none"}))
    spec, same = continue_sweep(PATH, record, spec_of(parameters), 0)
    assert (spec.config({"lr": 0.1}).model, same) == ("lenet", replace(record, code={}))
    # A default says nothing new.
    continue_sweep(PATH, record, spec_of(parameters, {"dropout": "0.5"}), 0)
    with pytest.raises(SpecError, match=r"has --model=lenet, not resnet18; keep it, or begin"):
        continue_sweep(PATH, record, spec_of(parameters, {"model": "resnet18"}), 0)
    with pytest.raises(SpecError, match=r"has --dropout=0\.5, not 0\.1; keep it"):
        continue_sweep(PATH, record, spec_of(parameters, {"dropout": "0.1"}), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr=0.5"], "line 2: --lr is set here and on the command line; remove one of them"),
        (["--train_samples=9"], "--train_samples is set here and on the command line"),
        (["--epochs=no"], "--epochs='no' is not a whole number"),
        (["--test_net=x.pt"], "--test_net is not for a sweep"),
    ],
)
def test_constants_do_not_clash(
    tmp_path: Path, here: Command, options: list[str], message: str
) -> None:
    command = "command: [python, -m, deep_cnn, --train_samples=50, '${args}']"
    write(tmp_path, f"method: grid\nparameters: {{lr: {{values: [0.1]}}}}\n{command}\n")
    for verb in ("check", "sample", "sweep"):
        result = here(verb, "s.yaml", "--task=digits", *options)
        assert result.returncode == 2
        assert message in result.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_foreign_program_takes_no_constants(tmp_path: Path, here: Command) -> None:
    write(tmp_path, "method: grid\nprogram: train.py\nparameters: {lr: {values: [0.1]}}\n")
    result = here("check", "s.yaml", "--freeze=trunk")
    assert result.returncode == 2
    assert "the command does not run deep_cnn, which has --freeze" in result.stderr


def make_pictures(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def test_data_count_by_content_and_not_by_path(tmp_path: Path, here: Command) -> None:
    text = "method: grid\nparameters: {lr: {values: [0.1]}}\n"
    write(tmp_path, f"{text}command: [python, -m, deep_cnn, '${{args}}']\n")
    options = ("--model=lenet", "--weights=none", "--epochs=1", "--workers=1", "--seed=3")
    make_pictures(tmp_path / "first")
    result = here("sweep", "s.yaml", "--data_dir=first", *options)
    assert result.returncode == 0, result.stderr
    run = RunResult.read(tmp_path / "outputs/results/s-00000.json")
    assert run is not None
    assert run.config["seed"] == 0  # The verb's own --seed is that of the search.
    write(
        tmp_path, f"{text.replace('0.1', '0.1, 0.2')}command: [python, -m, deep_cnn, '${{args}}']\n"
    )
    (tmp_path / "first").rename(tmp_path / "second")
    result = here("sweep", "s.yaml", "--workers=1", "--seed=3")
    assert result.returncode == 2
    assert f"--data_dir={tmp_path / 'first'} does not exist" in result.stderr
    result = here("sweep", "s.yaml", "--workers=1", "--seed=3", "--data_dir=second")
    assert result.returncode == 0, result.stderr
    assert [row["lr"] for row in trials(tmp_path)] == ["0.1", "0.2"]
    record = json.loads((tmp_path / "outputs/sweeps/s/sweep.json").read_text())
    assert record["constants"]["data_dir"] == str(tmp_path / "second")
    changed = tmp_path / "second" / "train" / "a" / "0.png"
    changed.write_bytes(changed.read_bytes() + b" ")  # The same name, and another picture.
    result = here("sweep", "s.yaml", "--workers=1", "--seed=3")
    assert result.returncode == 2
    assert "second has other pictures, targets or splits than the sweep began with" in result.stderr


@pytest.mark.parametrize("has_data", [True, False])
def test_a_sweep_that_began_with_val_as_the_test_keeps_it(
    tmp_path: Path, here: Command, has_data: bool
) -> None:
    make_classes(tmp_path / "data", count=8)
    text = "method: grid\nmetric: {name: precision@1_val, goal: maximize}\n"
    parameters = "parameters: {lr: {values: [0.1, 0.2, 0.3]}}\n"
    write(tmp_path, f"{text}{parameters}command: [python, -m, deep_cnn, '${{args}}']\n")
    fast = ("--data_dir=data", "--model=lenet", "--weights=none", "--epochs=1")
    for count in (1, 2):
        result = here("sweep", "s.yaml", f"--count={count}", "--workers=1", *fast)
        assert result.returncode == 0, result.stderr
        if count == 1:  # The test split by now.
            make_classes(tmp_path / "data", ("test",), count=8)
        file = tmp_path / "outputs/sweeps/s/sweep.json"
        if count == 1 and not has_data:  # As earlier versions wrote it.
            record = json.loads(file.read_text())
            file.write_text(json.dumps({**record, "data": None}))
    assert json.loads(file.read_text())["constants"]["test_folder"] == "val"
    assert here("sweep", "s.yaml", "--workers=1").returncode == 0
    runs = [row["run_name"] for row in trials(tmp_path)]
    assert len(runs) == 3
    for name in runs:
        content = json.loads((tmp_path / f"outputs/results/{name}.json").read_text())
        assert content["config"]["test_folder"] == "val"
    next((tmp_path / "data/val").rglob("*.png")).unlink()
    result = here("sweep", "s.yaml", "--workers=1")
    assert result.returncode == 2
    assert "data has other pictures, targets or splits than the sweep began with" in result.stderr


def test_the_stored_constants_judge_the_file(tmp_path: Path, here: Command) -> None:
    text = "method: grid\nmetric: {name: precision@1_val, goal: maximize}\n"
    parameters = "parameters: {hidden: {values: [8, 16]}}\n"
    write(tmp_path, f"{text}{parameters}command: [python, -m, deep_cnn, '${{args}}']\n")
    result = here("sweep", "s.yaml", "--count=1", "--workers=1", *LENET)
    assert result.returncode == 0, result.stderr
    result = here("sweep", "s.yaml", "--workers=1")
    assert result.returncode == 0, result.stderr
    assert [row["state"] for row in trials(tmp_path)] == ["finished", "finished"]
    result = here("sweep", "s.yaml", "--epochs=7")
    assert "this sweep has --epochs=1, not 7; keep it" in result.stderr


def test_what_equals_a_failed_trial_is_not_tried(tmp_path: Path, here: Command) -> None:
    command = "command: [python, -m, deep_cnn, --optimizer=sgd, '${args}']"
    lists = (
        "lr: {values: [1.0e+29, '1e29', 1.0e+29, '1e+29', 0.01]}, weight_decay: {values: [0, 1]}"
    )
    write(tmp_path, f"method: grid\nparameters: {{{lists}}}\n{command}\n")
    result = here("sweep", "s.yaml", "--workers=1", "--retries=0", *LENET)
    assert result.returncode == 1
    states = [row["state"] for row in trials(tmp_path)]
    assert states == ["failed"] * 2 + ["waiting"] * 4 + ["finished"] * 2
    assert "4 are the same run as a trial that failed, and were not run" in result.stdout


def test_equal_configurations_are_trained_once(tmp_path: Path, here: Command) -> None:
    command = "command: [python, -m, deep_cnn, '${args}']"
    lists = "batch_size: {values: [50, '50', 100]}, patience: {values: [null, 'None']}"
    write(tmp_path, f"method: grid\nparameters: {{{lists}}}\n{command}\n")
    check = here("check", "s.yaml", *LENET)
    assert "grid search, 6 configurations, 2 different runs" in check.stdout
    result = here("sweep", "s.yaml", "--workers=2", "--keep=best:1", *LENET)
    assert result.returncode == 0, result.stderr
    assert "4 of them are the same run as an earlier trial" in result.stdout
    rows = trials(tmp_path)
    assert [row["run_name"] for row in rows] == [*["s-00000"] * 4, *["s-00004"] * 2]
    assert [row["value"] for row in rows] == [*[rows[0]["value"]] * 4, *[rows[4]["value"]] * 2]
    done = json.loads((tmp_path / "outputs/sweeps/s/trials/00000/00005.done").read_text())
    assert done["same_as"] == 4
    best = min((0, 4), key=lambda number: float(rows[number]["value"]))
    names = [path.name for path in (tmp_path / "outputs/models").iterdir()]
    assert names == [f"s-{best:05d}.best.pt"]

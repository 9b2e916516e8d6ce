"""After a sweep: repeats, the last fit, the study for Optuna's dashboard, the price before it."""

import csv
import json
import math
import statistics
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from deep_cnn.sweep.repeats import bootstrap, changed, distinct_but_for_seed, unused_seeds
from deep_cnn.sweep.run.export import export_study
from deep_cnn.sweep.run.records import Trial, TrialOutcome
from deep_cnn.sweep.spec.parse import parse_text
from tests.conftest import Command

DIGITS = """method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  task: {value: digits}
  epochs: {value: 2}
  opt:
    parameters:
      lr: {values: [0.001, 0.01, 0.02, 0.05]}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_repeats_and_a_refit_whose_one_look_at_test_is_test_net(
    tmp_path: Path, here: Command
) -> None:
    (tmp_path / "d.yaml").write_text(DIGITS)
    done = here("sweep", "d.yaml", "--repeats=3", "--top=2", "--refit", "--workers=2")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "outputs"
    trials = rows(out / "sweeps" / "d" / "trials.csv")
    best = sorted(trials, key=lambda row: float(row["value"]))[:2]
    repeats = rows(out / "sweeps" / "d" / "repeats.csv")
    assert [(r["trial"], r["seed"]) for r in repeats if r["trial"] == best[0]["trial"]] == [
        (best[0]["trial"], seed) for seed in "123"
    ]
    assert {r["trial"] for r in repeats} == {row["trial"] for row in best}
    # Independently: from the results of the runs, whatever trials.csv and repeats.csv say.
    values: dict[str, dict[int, float]] = {}
    for path in (out / "results").glob("*.json"):
        result = json.loads(path.read_text())
        if (result.get("sweep") or {}).get("name") == "d-repeats":
            run = (path.parent / f"{result['run_name']}.csv").open()
            value = min(float(row["loss_val"]) for row in csv.DictReader(run))
            values.setdefault(str(result["config"]["lr"]), {})[result["config"]["seed"]] = value
    by_trial = {row["trial"]: row["lr"] for row in trials}
    for row in repeats:
        assert float(row["value"]) == values[by_trial[row["trial"]]][int(row["seed"])]
    means = {lr: statistics.fmean(found.values()) for lr, found in values.items()}
    first, second = sorted(means, key=means.__getitem__)
    sd = statistics.stdev(values[first].values())
    assert f"{means[first]:.6g} ± {sd:.2g}" in done.stdout
    paired = [values[first][seed] - values[second][seed] for seed in (1, 2, 3)]
    assert f"{statistics.fmean(paired):.4g}, 95 % interval" in done.stdout
    said = "not distinguishable" in done.stdout
    draws = np.random.default_rng(1).choice(paired, (20_000, 3)).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert said == (low <= 0 <= high)
    # The refit has all but test, and no number that pretends to be a validation.
    (refit,) = rows(out / "sweeps" / "d-refit" / "trials.csv")
    name = refit["run_name"]
    assert name == "d-refit-00000"
    assert refit["train_on"] == "train+val"
    table = rows(out / "results" / f"{name}.csv")
    assert not [column for column in table[0] if column.endswith("_val")]
    assert (
        "1534 pictures for training, 0 for validation"
        in (out / "logger" / f"{name}.log").read_text()
    )
    assert not list((out / "results").glob("*.test.csv"))
    command = done.stdout.splitlines()[-1].split()
    assert command[:3] == ["python", "-m", "deep_cnn"]
    tested = here(command[3].replace("'", ""))
    assert tested.returncode == 0, tested.stderr
    assert (out / "results" / f"{name}.test.csv").exists()
    content = torch.load(out / "models" / f"{name}.best.pt", weights_only=True)
    assert content["epoch"] == int(refit["epochs"])
    # The same command again finds all of it done.
    again = here("sweep", "d.yaml", "--repeats=3", "--top=2", "--refit", "--workers=2")
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert len(list((out / "models").glob("d-refit-*"))) == 1


def test_a_sweep_never_opens_a_picture_of_test(tmp_path: Path, scored: Path, here: Command) -> None:
    """Its files are replaced by folders, which nobody can read as pictures, root or not."""
    lines = (scored / "scores.csv").read_text().splitlines()
    marks = ["split", *("test" if i < 6 else "val" if i < 12 else "train" for i in range(24))]
    marked = [f"{line},{mark}" for line, mark in zip(lines, marks, strict=True)]
    (scored / "scores.csv").write_text("\n".join(marked) + "\n")
    for i in range(6):
        (scored / f"p{i:03d}.png").unlink()
        (scored / f"p{i:03d}.png").mkdir()
    (tmp_path / "s.yaml").write_text(
        DIGITS.replace("task: {value: digits}", f"data_dir: {{value: {scored}}}")
        .replace("[0.001, 0.01, 0.02, 0.05]", "[0.01, 0.1]")
        .replace("epochs: {value: 2}", "epochs: {value: 1}\n  freeze: {value: trunk}")
    )
    done = here("sweep", "s.yaml", "--repeats=2", "--top=1", "--refit")
    assert done.returncode == 0, done.stderr
    logs = "".join(path.read_text() for path in (tmp_path / "outputs" / "logger").iterdir())
    assert "bad" not in logs
    checkpoint = next((tmp_path / "outputs" / "models").glob("s-refit-*.best.pt"))
    assert here(f"--test_net={checkpoint}").returncode == 2


def test_seeds_that_the_sweep_has_searched_are_not_repeats(tmp_path: Path) -> None:
    text = DIGITS.replace("epochs: {value: 2}", "seed: {values: [0, 7]}").replace(
        "1, 0.02, 0.05", "1"
    )
    spec, findings = parse_text(text, "s")
    assert spec, findings
    points = [
        {"opt/lr": lr, "seed": seed, "task": "digits"} for seed in (0, 7) for lr in (0.1, 0.2)
    ]
    trials = [Trial(i, point) for i, point in enumerate(points)]
    assert unused_seeds(spec, trials, 3, "seed") == [8, 9, 10]
    assert [t.number for t in distinct_but_for_seed(spec, trials, "seed")] == [0, 1]


def test_text_that_looks_like_a_number_can_be_repeated(tmp_path: Path, here: Command) -> None:
    text = DIGITS.replace("[0.001, 0.01, 0.02, 0.05]", '["1e-2", "2e-2"]')
    small = "epochs: {value: 1}\n  train_samples: {value: 64}"
    (tmp_path / "s.yaml").write_text(text.replace("epochs: {value: 2}", small))
    done = here("sweep", "s.yaml", "--repeats=2", "--top=1")
    assert done.returncode == 0, done.stderr
    assert "2 other seeds each" in done.stdout


def test_the_bootstrap_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        interval = bootstrap(random.normal(0.5, 1.0, 40).tolist())
        inside += interval.low <= 0.5 <= interval.high
    assert 178 <= inside <= 198
    assert bootstrap([1.0, 1.0, 1.0]).distinguishable
    assert not bootstrap([1.0]).distinguishable
    assert not bootstrap([0.0, 0.0]).distinguishable


def test_a_flag_is_set_wherever_it_was() -> None:
    point = {"a/seed": 1, "seed": 2, "lr": 0.1}
    assert changed(point, seed=3) == {"lr": 0.1, "seed": 3}


MIXED = """name: mixed
method: random
run_cap: 9
metric: {name: a, goal: maximize}
program: x.py
parameters:
  lr: {distribution: log_uniform_values, min: 0.001, max: 1.0}
  n: {min: 1, max: 9}
  kind: {values: [1, true, null, x, [1, 2]]}
  wide: {distribution: normal, mu: 0, sigma: 1}
  nested: {parameters: {q: {distribution: q_uniform, min: 0, max: 1, q: 0.25}}}
"""


def test_the_study_shows_every_trial(tmp_path: Path) -> None:
    spec, _ = parse_text(MIXED, "mixed")
    assert spec
    point = {"lr": 0.1, "n": 3, "kind": True, "wide": -0.5, "nested/q": 0.25}

    def outcome(value: float | None, *values: float) -> TrialOutcome:
        return TrialOutcome("finished", value, values=values, epochs=len(values), seconds=60.0)

    trials = [
        Trial(0, point, "finished", run_name="a", outcome=outcome(0.5, 0.25, 0.5)),
        Trial(1, {**point, "kind": [1, 2]}, "stopped", outcome=outcome(0.75, 0.75, math.nan)),
        Trial(2, {**point, "kind": None, "wide": 2.5}, "failed", error="broke"),
        Trial(3, {**point, "kind": 1, "lr": 1.0}, "running"),
        Trial(4, None),
        Trial(5, {**point, "kind": "x"}, "waiting"),
        Trial(6, point, "finished", outcome=outcome(None, math.nan)),
    ]
    path = tmp_path / "optuna.db"
    export_study(spec, trials, path)
    export_study(spec, trials, path)
    study = optuna.load_study(study_name="mixed", storage=f"sqlite:///{path}")
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING", "FAIL"]
    first = study.trials[0]
    leaves = {"lr": 0.1, "n": 3, "kind": True, "wide": -0.5, "nested.q": 0.25}
    assert (first.value, first.params) == (0.5, leaves)
    assert first.intermediate_values == {0: 0.25, 1: 0.5}
    assert first.user_attrs["run_name"] == "a"
    assert first.duration
    assert round(first.duration.total_seconds()) == 60
    assert study.trials[1].params["kind"] == "[1, 2]"
    assert [study.trials[i].params["kind"] for i in (2, 3, 4)] == [None, 1, "x"]
    assert study.direction.name == "MAXIMIZE"
    assert study.best_trial.number == 0


def test_a_sweep_leaves_its_study(tmp_path: Path, here: Command) -> None:
    (tmp_path / "d.yaml").write_text(DIGITS.replace("[0.001, 0.01, 0.02, 0.05]", "[0.01]"))
    assert here("sweep", "d.yaml").returncode == 0
    path = tmp_path / "outputs" / "sweeps" / "d" / "optuna.db"
    study = optuna.load_study(study_name="d", storage=f"sqlite:///{path}")
    (row,) = rows(path.with_name("trials.csv"))
    assert study.best_value == float(row["value"])


def test_the_price_of_a_sweep_before_it_begins(tmp_path: Path, deep_cnn: Command) -> None:
    text = DIGITS.replace("method: grid", "method: random\nrun_cap: 7").replace(
        "lr: {values", "batch_size: {values: [16, 128]}\n      hidden: {max: 40, min: 20}\n"
        "      lr: {values"
    )  # fmt: skip
    (tmp_path / "d.yaml").write_text(text)
    done = deep_cnn("check", "d.yaml", "--probe")
    assert done.returncode == 0, done.stderr
    assert "--batch_size=128" in done.stdout
    assert "1234 pictures for training, 300 for validation" in done.stdout
    assert "7 trials take" in done.stdout
    assert "memory 0." in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep", "s.yaml", "--repeats=1"), "--repeats=1 is out of range"),
        (("check", "x.yaml", "--probe"), "--probe tries sweeps of deep_cnn only"),
        (("sweep", "s.yaml", "--repeats=2"), "sets --seed itself"),
    ],
)
def test_what_cannot_be_done_says_so(
    tmp_path: Path, here: Command, words: tuple[str, ...], message: str
) -> None:
    text = DIGITS.replace("[0.001, 0.01, 0.02, 0.05]", "[0.01]")
    (tmp_path / "s.yaml").write_text(text.replace('"${args}"', '"${args}", --seed=4'))
    (tmp_path / "x.yaml").write_text(MIXED)
    done = here(*words)
    assert done.returncode == 2
    assert message in done.stderr

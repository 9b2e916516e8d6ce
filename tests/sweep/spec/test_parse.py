"""Sweep files: a table of (YAML, line, message), W&B's inference, no traceback whatever comes."""

import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deep_cnn.cli import main
from deep_cnn.errors import SpecError
from deep_cnn.sweep.spec.distributions import DISTRIBUTIONS
from deep_cnn.sweep.spec.document import parameter_path
from deep_cnn.sweep.spec.parse import parse_sweep, read_sweep
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import Hyperband, SweepSpec
from tests.conftest import ROOT, Command

OURS = 'command: ["${env}", python, -m, deep_cnn, "${args}"]\n'
FOREIGN = "program: train.py\n"


def sweep(parameters: str, *, method: str = "random", more: str = "", command: str = OURS) -> str:
    """Line 1 is the method, line 2 the command, line 4 the first parameter."""
    return f"method: {method}\n{command}parameters:\n  {parameters}\n{more}"


LR = "lr: {min: 0.001, max: 0.1}"
LAUGHS = "x0: &x0 [1,1]\n" + "".join(
    f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
ERRORS = [
    ("", 1, "the file is empty"),
    ("- 1\n- 2\n", 1, "the file is a list"),
    ("method: [grid\n", 2, "this is not YAML"),
    ("method: grid\n\tparameters: 1\n", 2, "this is not YAML"),
    (f"{OURS}parameters:\n  {LR}\n", 1, "no method; choose from grid, random, bayes"),
    (sweep(LR, method="gird"), 1, "method 'gird' is unknown"),
    (f"method: grid\n{OURS}", 1, "no parameters"),
    (sweep(LR, more="parameter: 1\n"), 5, "unknown key 'parameter'; did you mean parameters?"),
    (sweep("lr: {values: [1e-5, 0.1]}"), 4, "1e-5 is a string to YAML, not a number; write 1.0e-5"),
    (sweep("lr: {values: [1.0e5]}"), 4, "write 1.0e+5"),
    (sweep("lr: {min: 1e-5, max: 0.1}"), 4, "lr: min 1e-5 is a string to YAML"),
    (sweep("lr: {min: 0.1, max: 0.1}"), 4, "lr: min 0.1 is not below max 0.1"),
    (sweep("lr: {min: 1.0, max: 0.1}"), 4, "is not below"),
    (sweep("lr: {min: true, max: 2, distribution: uniform}"), 4, "lr: min True is not a number"),
    (sweep("lr: {min: 0.1}"), 4, "lr has min; give value, values, min and max, or a distribution"),
    (sweep("lr: 0.1"), 4, "lr is 0.1; write value:, values: or min: and max:"),
    (sweep("lr:\n    min: 0.1\n    max:\n    distribution: uniform"), 6, "lr: max is empty"),
    (sweep("lr: {vales: [0.1]}"), 4, "lr: unknown key 'vales'; did you mean value"),
    (sweep("lr: {values: []}"), 4, "values is not a list with one value"),
    (sweep("lr: {values: [0.1], min: 3}"), 4, "lr: min does not go with categorical"),
    (sweep("lr: {distribution: lognormal}"), 4, "unknown distribution; did you mean log_normal?"),
    (sweep("lr: {distribution: normal, sigma: -1}"), 4, "sigma -1 must be 0 or more"),
    (sweep("lr: {distribution: log_uniform_values, min: 0.0, max: 1.0}"), 4, "must be above 0"),
    (sweep("lr: {distribution: log_uniform, min: 0.001, max: 0.1}"), 4, "takes exponents of e"),
    (sweep("lr: {distribution: log_uniform, min: 1.0, max: 1.0e+5}"), 4, "beyond floats"),
    (sweep("batch_size: {distribution: int_uniform, min: 8.0, max: 64}"), 4, "needs whole numbers"),
    (sweep("lr: {values: [0.1, 0.2], probabilities: [0.5, 0.4]}"), 4, "probabilities sum to 0.9"),
    (sweep("lr: {values: [0.1, 0.2], probabilities: [1]}"), 4, "1 probabilities for 2 values"),
    (sweep("lr: {values: [0.1], probabilities: [-1]}"), 4, "0 or more each"),
    (sweep("lr: {values: [0.1], probabilities: [1]}", method="grid"), 4, "a grid has no prob"),
    (sweep(LR, method="grid"), 4, "lr: uniform has no end in a grid"),
    (sweep("batch_size: {distribution: q_uniform, min: 8, max: 64}"), 4, "write q: 1"),
    (sweep("batch_size: {distribution: q_uniform, min: 8, max: 64, q: 0}"), 4, "q 0 must be above"),
    (sweep("batch_size: {distribution: q_uniform, min: 1, max: 10, q: 4}"), 4,
     "q=4 rounds to 0 ... 8, outside of 1 ... 10"),
    (sweep("learning_rate: {value: 0.1}"), 4, "learning_rate is not an option of deep_cnn"),
    (sweep("model: {values: [resnet18, resnet19]}"), 4, "did you mean resnet18?"),
    (sweep("epochs: {values: [5, 7.5]}"), 4, "'7.5' is not a whole number"),
    (sweep("lr: {values: [0.1, -0.1]}"), 4, "--lr=-0.1 is out of range"),
    (sweep("lr: {distribution: normal}"), 4, "out of range"),
    (sweep("a: {parameters: {lr: {value: 1}}}\n  lr: {value: 2}"), 5, "are both the option --lr"),
    (sweep("a: {parameters: {}}"), 4, "a has no parameters inside"),
    (sweep("1lr: {value: 1}"), 4, "is not a legal name"),
    (sweep(LR, more="metric: loss_val\n"), 5, "metric is 'loss_val'; write name: and goal:"),
    (sweep(LR, more="metric: {goal: minimize}\n"), 5, "metric has no name"),
    (sweep(LR, more="metric: {name: loss_val, goal: minimise}\n"), 5, "did you mean minimize?"),
    (sweep(LR, more="metric: {name: val_loss}\n"), 5, "val_loss is never logged"),
    (sweep(LR, more="metric: {name: loss_test}\n"), 5, "is never logged"),
    (sweep("lr: {value: 0}", more="metric: {name: los}\n"), 5, "los is never logged by "),
    (sweep("train_on: {value: train+val}", more="metric: {name: loss_val}\n"), 5,
     "never logged by perception on train+val; did you mean loss_train?"),
    (sweep("lr: {values: [x, 0.1, -1]}"), 4, "--lr='x' is not a number"),
    (sweep("lr: {values: [x, 0.1, -1]}"), 4, "--lr=-1.0 is out of range"),
    (sweep(LR, more="metric: {name: loss_val, target: low}\n"), 5, "target 'low' is not a number"),
    (sweep(LR, more="metric: {name: loss_val, impute: mean}\n"), 5, "choose from best, latest, wo"),
    (sweep(LR, method="bayes"), 1, "no metric"),
    (sweep(LR, more="run_cap: 0\n"), 5, "run_cap is not a whole number above 0"),
    (sweep(LR, more="run_cap: '1'\n"), 5, "run_cap is not a whole"),
    (sweep(LR, command="command: [python, -m, deep_cnn]\n"), 2, "command has no ${args}"),
    (sweep(LR, command='command: [python, -m, deep_cnn, "${arg}"]\n'), 2, "did you mean args?"),
    (sweep(LR, command='command: [python, -m, deep_cnn, --epoch=3, "${args}"]\n'), 2, "--epoch is"),
    (sweep(LR, command="command: python -m deep_cnn ${args}\n"), 2, "command is one string"),
    (sweep("out_dir: {values: [a, b]}"), 4, "out_dir is one for the whole sweep"),
    (sweep("resume: {value: a.pt}"), 4, "resume is not for a sweep"),
    (sweep("dry_run: {value: true}"), 4, "dry_run is not for a sweep"),
    (sweep("batch-size: {value: 3}\n  batch_size: {value: 4}"), 5, "are both the option --bat"),
    (sweep('"opt.lr": {value: 0.1}'), 4, "parameter opt.lr is not an option"),
    (sweep("model: {value: lenet}\n  weights: {value: imagenet}"), 4, "cannot run: --model=le"),
    (sweep(f"{LR}\n  label_smoothing: {{value: 0.1}}"), 5, "--label_smoothing belongs to --task="),
    (sweep("task: {value: digits}", more="metric: {name: kendall_val}\n"), 5, "by digits"),
    (sweep(f"lr: {{min: 1, max: {'9' * 400}}}"), 4, "is not a number"),
    (sweep(LR, more="run_cap: 0x" + "f" * 5000 + "\n"), 5, "more than 4,000 digits"),
    (sweep("lr: {min: -1.7e+308, max: 1.7e+308}"), 4, "is not a number"),
    (sweep("lr: &a [*a]"), 4, "its aliases have no end"),
    (LAUGHS + sweep(LR), 1, "its aliases have no end"),
    (sweep(LR, more="description: 2020-13-45\n"), 5, "is not a legal timestamp"),
    (sweep(LR, more="description: !!int ''\n"), 5, "is not a legal int"),
    (sweep(LR, more="description: !!bool x\n"), 5, "is not a legal bool"),
    (sweep(LR, more=f"description: {'9' * 5000}\n"), 5, "is not a legal int"),
    (sweep(LR, more=f"description:\n  {'[' * 300}\n"), 6, "nested more than 200 levels deep"),
    (sweep(LR, more='name: "\\ud800"\n'), 5, "is not text"),
    (sweep("lr: {value: 0.1\x01}"), 4, "this is not YAML"),
    ("description: &v {values: [1e-5, 0.1]}\n" + sweep("lr: {<<: *v}"), 1, "1e-5 is a string"),
    (sweep(LR, more="controller: {type: me}\n"), 5, "controller needs type"),
    (sweep(LR, more="kind: run\n"), 5, "kind 'run' is unknown; choose from sweep"),
    (sweep(LR, more="name: 12\n"), 5, "name 12 is not text"),
    (sweep("a: {parameters: {lr: {value: 1}}, value: 3}"), 4, "a has value beside parameters"),
    (sweep("a: {lr: {min: 0.1, max: 1.0}}"), 4, "a: nested parameters stand under a: {parameters"),
    (sweep(LR, more="metric:\n"), 5, "metric is empty; give it a value, or remove it"),
    (sweep(LR, more="run_cap:\n"), 5, "run_cap is empty"),
    (sweep(LR, more="metric: {name: loss_val, target: }\n"), 5, "metric: target is empty"),
    (sweep(LR, more="run_cap: 2.5\n"), 5, "run_cap is not a whole number"),
    (sweep(LR, more="apiVersion: 5\n"), 5, "apiVersion 5 is not text"),
    (sweep(LR, more="scheduler: 5\n"), 5, "scheduler is 5; write engine: wandb, optuna or ax"),
    (sweep(LR, more="scheduler: {engine: ray}\n"), 5, "engine 'ray' is unknown"),
    (sweep(LR, more="scheduler: {engine: optuna}\n"), 5, "optuna needs method: custom"),
    (sweep(LR, more="scheduler: {engine: wandb, optimizer: f}\n"), 5, "need source: FILE"),
    (sweep(LR, more="scheduler: {engine: wandb}\nearly_terminate: {type: hyperband, min_iter: 3}\n"
           "metric: {name: loss_val}\n"), 6, "early_terminate does not go with scheduler"),
    (f"method: custom\n{FOREIGN}scheduler: {{engine: optuna, source: a.py, search_space: ''}}\n", 1,
     "no parameters"),
    (sweep(LR, more="metrics: nonsense\n"), 5, "metrics is not a list of two metrics"),
    (sweep(LR, more="metrics: [{name: a}, {name: b}]\n"), 5, "metrics needs method: custom"),
    (sweep(LR, more="metrics: [{name: a}, 5]\n"), 5, "metrics: 5 is no metric; write name: and"),
    (sweep(LR, more="metric: {name: loss_val}\nmetrics: [{name: a}, {name: b}]\n"), 6,
     "metric and metrics do not go together"),
    (sweep(LR, more="description: !!bool maybe\n"), 5, "'maybe' is not a legal bool"),
    (sweep(LR, more="description: !!omap {a: 1}\n"), 5, "expected a sequence"),
    (sweep(f"lr: {{values: [{'1,' * 100_000}]}}"), 4, "it has more than 100,000 values"),
    (sweep(LR, command='command: [python, -m, deep_cnn, "${args_dict}"]\n'), 2,
     "${args_dict} passes names without values"),
]  # fmt: skip
HYPERBAND = [
    ("{type: hyperband}", "needs min_iter, or max_iter with s"),
    ("{type: hyperband, max_iter: 9}", "needs min_iter, or max_iter with s"),
    ("{type: median}", "needs type: hyperband"),
    ("{type: hyperband, max_iter: 9, s: 2.0}", "s 2.0 is not a whole number"),
    ("{type: hyperband, max_iter: 2, s: 2}", "max_iter 2 / eta 3 is below 1: no band"),
    ("{type: hyperband, min_iter: 0}", "min_iter 0 is not a whole number"),
    ("{type: hyperband, min_iter: 3, eta: 1}", "eta 1 must be above 1"),
    ("{type: hyperband, min_iter: 3, strict: 1}", "strict 1 is not true or false"),
    ("{type: hyperband, min_iter: 3, max_iter: 9, s: 2}", "has both min_iter and max_iter"),
    (
        "{type: hyperband, max_iter: 1000000000, s: 100000000, eta: 1.0000001}",
        "more than 100,000 bands; use a larger eta, or a smaller s",
    ),
    ("{type: hyperband, min_itr: 3}", "unknown key 'min_itr'; did you mean min_iter?"),
]
ERRORS += [
    (sweep(LR, more=f"metric: {{name: loss_val}}\nearly_terminate: {given}\n"), 6, message)
    for given, message in HYPERBAND
]


def look(folder: Path, text: str | bytes) -> tuple[SweepSpec | None, list[str]]:
    path = folder / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    spec, findings = parse_sweep(path)
    return spec, [f"{'error' if f.is_error else 'note'} {f}" for f in findings]


@pytest.mark.parametrize(("text", "line", "message"), ERRORS, ids=[m for _, _, m in ERRORS])
def test_an_error_has_its_line_and_its_message(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    spec, findings = look(tmp_path, text)
    assert spec is None
    matching = [f for f in findings if f.startswith(f"error line {line}: ") and message in f]
    assert matching, findings


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    text = sweep("lr: {min: 1e-5, max: 0.1}\n  epoch: {value: 3}", more="run_cap: -1\nmetrik: 1\n")
    _, findings = look(tmp_path, text)
    assert [f.split(":")[0] for f in findings] == [f"error line {n}" for n in (4, 5, 6, 7)]
    with pytest.raises(SpecError) as caught:
        read_sweep(tmp_path / "s.yaml")
    assert len(str(caught.value).splitlines()) == 5


@pytest.mark.parametrize(
    ("given", "distribution"),
    [
        ("{value: 3}", "constant"),
        ("{values: [1, 2]}", "categorical"),
        ("{values: [1, 2], probabilities: [0.5, 0.5]}", "categorical_w_probabilities"),
        ("{min: 1, max: 9}", "int_uniform"),
        ("{min: 1.0, max: 9}", "uniform"),
        ("{min: 0.0, max: 1.0}", "uniform"),
        ("{distribution: uniform, min: 1, max: 9}", "uniform"),
        ("{distribution: normal}", "normal"),
        ("{distribution: q_beta}", "q_beta"),
        ("{distribution: inv_log_uniform_values, min: 1, max: 9}", "inv_log_uniform_values"),
    ],
)
def test_the_distribution_is_inferred_as_w_and_b_does(
    tmp_path: Path, given: str, distribution: str
) -> None:
    spec, findings = look(tmp_path, sweep(f"x: {given}", command=FOREIGN))
    assert spec, findings
    assert spec.space["x"].distribution == distribution


def test_for_another_program_only_what_w_and_b_refuses_is_an_error(tmp_path: Path) -> None:
    text = sweep(
        "x: {values: [1e-5]}\n  learning: {distribution: q_uniform, min: 1, max: 10, q: 4}",
        more="metric: {name: anything}\nearly_terminate: {type: hyperband, min_iter: 3, "
        "max_iter: 9, s: 2}\nproject: mine\n",
        command=FOREIGN,
    )
    spec, findings = look(tmp_path, text)
    assert spec
    assert [f.split()[0] for f in findings] == ["note"] * 3
    assert spec.early_terminate
    assert spec.early_terminate.bands == (1, 3)


@pytest.mark.parametrize(
    ("more", "notes"),
    [
        ("run_cap: 1.0\n", []),
        ("metric: {name: a}\nearly_terminate: {type: hyperband, min_iter: 2.0}\n", []),
        ("command: []\n", []),
        ("project_name: mine\n", ["line 5: unknown key 'project_name'"]),
        ('command: [python, "${program}", "${now:%Y}", "${args}"]\n',
         ["line 5: macro '${now:%Y}' is unknown, W&B drops it"]),
        ('command: [python, "${program}", "${args_dict}"]\n',
         ["line 5: ${args_dict} passes names without values"]),
    ],
)  # fmt: skip
def test_what_w_and_b_runs_is_no_error(tmp_path: Path, more: str, notes: list[str]) -> None:
    spec, findings = look(tmp_path, sweep("x: {values: [2, 3]}", more=more, command=FOREIGN))
    assert spec, findings
    assert all(f.startswith(f"note {note}") for f, note in zip(findings, notes, strict=True))
    line = spec.command_line({"x": 2})
    dropped = {"now": ["python", "train.py", "--x=2"], "args_dict": ["python", "train.py", "x"]}
    usual = ["/usr/bin/env", "python", "train.py", "--x=2"]
    assert line == next((words for key, words in dropped.items() if key in more), usual)
    assert spec.run_cap == (1 if "run_cap" in more else None)


def test_mixed_bounds_are_noted(tmp_path: Path) -> None:
    spec, findings = look(tmp_path, sweep("x: {min: 0, max: 1.0}", command=FOREIGN))
    assert spec
    assert findings == [
        "note line 4: x: W&B's client refuses one integer and one float; write both as floats"
    ]


def test_a_nested_grid_is_sorted_within_each_level(tmp_path: Path) -> None:
    text = sweep(
        "a: {parameters: {x: {values: [1, 2]}}}\n  a.b: {values: [3, 4]}\n  a-c: {values: [5, 6]}",
        method="grid",
        command=FOREIGN,
    )
    spec, _ = look(tmp_path, text)
    assert spec
    points = [(p["a/x"], p["a.b"], p["a-c"]) for p in first_points(spec, 0, 9)]
    assert points == [(x, b, c) for x in (1, 2) for c in (5, 6) for b in (3, 4)]


def test_what_is_not_on_this_machine_is_noted(tmp_path: Path) -> None:
    (tmp_path / "there.pth").write_text("")
    text = sweep(
        f"weights: {{values: [imagenet, none, {tmp_path}/there.pth, gone.pth]}}\n"
        f"  root_dir: {{value: {tmp_path}}}\n  data_dir: {{value: pictures}}"
    )
    spec, findings = look(tmp_path, text)
    assert spec
    assert [f.partition(";")[0] for f in findings] == [
        "note line 4: weights: gone.pth is not on this machine",
        "note line 6: data_dir: pictures is not on this machine",
    ]


def test_nested_parameters_become_flags_by_their_last_name(tmp_path: Path) -> None:
    text = sweep("opt: {parameters: {lr: {value: 0.5}, inner: {parameters: {epochs: {value: 2}}}}}")
    spec, _ = look(tmp_path, text)
    assert spec
    assert spec.argv({"opt/lr": 0.5, "opt/inner/epochs": 2}) == ["--epochs=2", "--lr=0.5"]
    assert spec.config({"opt/lr": 0.5, "opt/inner/epochs": 2}).lr == 0.5


@pytest.mark.parametrize(
    ("macro", "words"),
    [
        ("${args}", ["--lr=1e-05", "--patience=None", "--strict_data=False", "--wandb=True"]),
        ("${args_no_boolean_flags}", ["--lr=1e-05", "--patience=None", "--wandb"]),
        ("${args_no_equals}",
         ["--lr", "1e-05", "--patience", "None", "--strict_data", "False", "--wandb", "True"]),
    ],
)  # fmt: skip
def test_macros_are_w_and_bs(
    tmp_path: Path, macro: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED", "7")
    command = f'command: ["${{env}}", python, -m, deep_cnn, "--seed=${{envvar:SEED}}", "{macro}"]\n'
    spec, findings = look(tmp_path, sweep(LR, command=command))
    assert spec, findings
    point = {"wandb": True, "lr": 1e-5, "patience": None, "strict_data": False}
    assert spec.argv(point) == ["--seed=7", *words]
    assert spec.config(point).seed == 7


@pytest.mark.parametrize(
    ("max_iter", "s", "eta", "expected"),
    [
        (81, 3, 3, (3, 9, 27)),
        (18, 2, 3, (2, 6)),
        (27, 2, 3, (3, 9)),
        (5, 2, 2, (1, 2)),
        (5, 3, 1.1, (3, 4)),
    ],
)
def test_bands_are_w_and_bs(max_iter: int, s: int, eta: float, expected: tuple[int, ...]) -> None:
    assert Hyperband(type="hyperband", max_iter=max_iter, s=s, eta=eta).bands == expected
    assert Hyperband(type="hyperband", min_iter=3).bands[:4] == (3, 9, 27, 81)


def test_every_file_in_sweeps_is_sound(deep_cnn: Command) -> None:
    files = sorted((ROOT / "sweeps").glob("*.yaml"))
    assert len(files) == 8
    for file in files:
        done = deep_cnn("check", file)
        assert (done.returncode, done.stderr) == (0, ""), file
        assert "search," in done.stdout


ALL_DISTRIBUTIONS = """
  constant: {value: null}
  categorical: {values: [a, 1, 1.5, true, null, [1, 2], {k: v}, 1.0, 2020-01-01]}
  weighted: {values: [x, y, z], probabilities: [0.5, 0, 0.5]}
  int_uniform: {min: -3, max: 12}
  uniform: {min: 0.5, max: 3}
  log_uniform: {distribution: log_uniform, min: -3, max: 1}
  log_uniform_values: {distribution: log_uniform_values, min: 1.0e-5, max: 1}
  inv_log_uniform: {distribution: inv_log_uniform, min: -3, max: 1}
  inv_log_uniform_values: {distribution: inv_log_uniform_values, min: 0.001, max: 10}
  normal: {distribution: normal, mu: 2, sigma: 3}
  log_normal: {distribution: log_normal}
  beta: {distribution: beta, a: 2, b: 5}
  nested:
    parameters:
      q_uniform: {distribution: q_uniform, min: 8, max: 64, q: 8}
      deeper: {parameters: {q_log_uniform: {distribution: q_log_uniform, min: -1, max: 3.5}}}
  q_log_uniform_values: {distribution: q_log_uniform_values, min: 16, max: 250, q: 100}
  q_normal: {distribution: q_normal, q: 0.1}
  q_log_normal: {distribution: q_log_normal, mu: 1, sigma: 0.5, q: 1}
  q_beta: {distribution: q_beta, a: 1, b: 3}
"""


def test_a_sweep_survives_the_way_to_another_process(tmp_path: Path) -> None:
    everything = tmp_path / "everything.yaml"
    everything.write_text(
        f"method: random\nprogram: x.py\nparameters:{ALL_DISTRIBUTIONS}"
        "metric: {name: a, target: 3}\nearly_terminate: {type: hyperband, min_iter: 3}\n"
    )
    files = [everything, *(ROOT / "sweeps").glob("*.yaml")]
    for spec in map(read_sweep, files):
        copy = pickle.loads(pickle.dumps(spec))
        assert copy == spec
        assert copy.points == spec.points
        for name, distribution in spec.space.items():
            us = [i / 97 for i in range(98)]
            assert [copy.space[name].ppf(u) for u in us] == [distribution.ppf(u) for u in us]
    spec = read_sweep(everything)
    assert {one.distribution for one in spec.space.values()} == set(DISTRIBUTIONS)
    assert parameter_path("nested/deeper/q_log_uniform") == (
        "parameters", "nested", "parameters", "deeper", "parameters", "q_log_uniform",
    )  # fmt: skip


def test_numbers_stay_as_they_were_written(tmp_path: Path) -> None:
    text = (
        "a: {distribution: q_uniform, min: 8, max: 64, q: 8}\n  b: {distribution: q_beta, q: 1.0}"
    )
    spec, _ = look(tmp_path, sweep(text, command=FOREIGN))
    assert spec
    for point in first_points(spec, 0, 9):
        assert {name: type(value) for name, value in point.items()} == {"a": int, "b": float}


ODD = [b"&a ", b"*a", b"<<: ", b"!!python/object:x ", b"!!set", b"2026-01-01", b".nan", b".inf",
       b"? ", b"{", b"]", b": ", b"\x00", b"\xff", b"- ", b"~", b"1e999", b"0x1F", b"\n",
       b"!!binary x", b"[[]]", b"null", b"yes", b"9" * 400]  # fmt: skip


def mutated(seed: int, count: int) -> Iterator[bytes]:
    """Sweep files, correct and wrong ones, with up to four pieces cut out or replaced."""
    choose = random.Random(seed)
    texts = [file.read_bytes() for file in sorted((ROOT / "sweeps").glob("*.yaml"))]
    texts += [text.encode() for text, _, _ in ERRORS]
    for _ in range(count):
        text = bytearray(choose.choice(texts))
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(text) + 1)
            text[at : at + choose.randint(0, 12)] = choose.choice([*ODD, b""])
        yield bytes(text)


def test_check_judges_300_mutated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run of the tests has other files; `seed` in the message repeats them."""
    monkeypatch.chdir(tmp_path)
    seed, path, statuses = random.randrange(10**6), tmp_path / "s.yaml", set()
    for number, text in enumerate(mutated(seed, 300)):
        path.write_bytes(text)
        case = f"seed {seed}, file {number}: {text!r}"
        status = main(["check", "s.yaml"])
        printed = capsys.readouterr()
        statuses.add(status)
        assert status in (0, 2), case
        for line in printed.err.splitlines():
            where = re.match(r"deep_cnn: s\.yaml |s\.yaml line (\d+): ", line)
            assert where, f"{case}: {line}"
            assert int(where[1] or 1) <= text.count(b"\n") + 2, f"{case}: {line}"
        assert printed.err or status == 0, case
    assert statuses == {0, 2}


def test_a_command_is_ours_only_where_it_runs_us(tmp_path: Path) -> None:
    for command, ours in {
        '[python, -m, deep_cnn, "${args}"]': True,
        '["${env}", deep-cnn, "${args}"]': True,
        '[python, deep_cnn/__main__.py, "${args}"]': True,
        '[python, main.py, deep_cnn, "${args}"]': False,
        '[python, "${program}", --project, deep_cnn, "${args}"]': False,
        '[python, train.py, "${batch_size}", null, 3]': False,
    }.items():
        spec, findings = look(tmp_path, sweep("lr: {value: 0.1}", command=f"command: {command}\n"))
        assert spec, findings
        assert spec.runs_deep_cnn is ours, command


def test_constants_complete_the_command(tmp_path: Path) -> None:
    fixed = "--model=lenet, --hidden=3, --initial_epoch=30"
    command = f'command: [python, -m, deep_cnn, {fixed}, "${{args}}"]\n'
    text = sweep(
        "task: {value: digits}\n  weights: {value: none}\n  epochs: {value: 50}", command=command
    )
    spec, findings = look(tmp_path, text)
    assert spec, findings


def test_a_foreign_program_gets_its_parameters_as_w_and_b_passes_them(tmp_path: Path) -> None:
    parameters = "opt: {parameters: {lr: {value: 0.1}, n: {value: 3}}}\n  a.b: {value: 1}"
    spec, _ = look(tmp_path, sweep(parameters, command=FOREIGN))
    assert spec
    point = {"opt/lr": 0.1, "opt/n": 3, "a.b": 1}
    assert spec.command_line(point)[3:] == ["--a.b=1", "--opt={'lr': 0.1, 'n': 3}"]
    assert spec.arguments(point) == {"opt": {"lr": 0.1, "n": 3}, "a.b": 1}
    assert spec.leaves(point) == {"opt.lr": 0.1, "opt.n": 3, "a.b": 1}


def test_sample_prints_whatever_a_value_is(tmp_path: Path, deep_cnn: Command) -> None:
    odd = '[{2020-01-01: 1, b: 2}, "\\ud800", .nan, 2020-01-01, [1, null], 0x' + "f" * 300 + "]"
    (tmp_path / "s.yaml").write_text(sweep(f"a: {{values: {odd}}}", method="grid", command=FOREIGN))
    for how in ("csv", "json", "commands"):
        done = deep_cnn("sample", "s.yaml", f"--format={how}")
        assert (done.returncode, done.stderr) == (0, ""), how

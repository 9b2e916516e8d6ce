"""Notes of check: the direction of the metric, options without effect, missing folders."""

import re
from pathlib import Path

import pytest

from deep_cnn.sweep.spec.parse import parse_text
from tests.conftest import Command, make_scored

OURS = 'command: ["${env}", python, -m, deep_cnn, %s"${args}"]\n'
OTHER = 'program: train.py\ncommand: ["${env}", python, "${program}", "${args}"]\n'
LR = "lr: {values: [0.1, 0.01]}"


def notes(text: str) -> list[str]:
    spec, findings = parse_text(text, "s")
    assert spec is not None, findings
    assert not any(finding.is_error for finding in findings)
    return [str(finding) for finding in findings]


def sweep(metric: str, *parameters: str, command: str = OURS % "") -> str:
    lines = "".join(f"  {line}\n" for line in parameters or (LR, "task: {value: digits}"))
    return f"method: grid\nmetric: {metric}\nparameters:\n{lines}{command}"


@pytest.mark.parametrize(
    ("metric", "note"),
    [
        ("{name: precision@1_val}", "has no goal.*minimize it, but higher.*write goal: maximize"),
        ("{name: precision@5_train}", "write goal: maximize"),
        ("{name: precision@1_val, goal: minimize}", "goal is minimize, but.*write goal: maximize"),
        ("{name: loss_val, goal: maximize}", "goal is maximize, but.*write goal: minimize"),
        ("{name: best_loss_val, goal: maximize}", "write goal: minimize"),
        ("{name: precision@1_val, goal: maximize}", None),
        ("{name: loss_val}", None),
        ("{name: loss_val, goal: minimize}", None),
    ],
)
def test_the_direction_of_our_metrics_is_known(metric: str, note: str | None) -> None:

    found = notes(sweep(metric))
    assert len(found) == (note is not None)
    if note:
        assert found[0].startswith("line 2: ")
        assert re.search(note, found[0])


@pytest.mark.parametrize("name", ["r2_val", "pearson_val", "spearman_train", "kendall_val"])
def test_scores_have_a_direction_too(name: str) -> None:
    found = notes(sweep(f"{{name: {name}}}", LR, "task: {value: perception}"))
    assert "write goal: maximize" in found[0]


@pytest.mark.parametrize(
    ("name", "is_known"),
    [("accuracy", True), ("val_accuracy", True), ("val/acc", True), ("test.auc", True),
     ("score", False), ("reward", False), ("accuracy_gap", False), ("neg_loss", False),
     ("map", False), ("fitness", False), ("loss", False)],
)  # fmt: skip
def test_of_other_programs_only_certain_names_are_known(name: str, *, is_known: bool) -> None:
    found = [note for note in notes(sweep(f"{{name: {name}}}", command=OTHER)) if "goal" in note]
    assert len(found) == is_known


def test_options_without_effect_are_one_note(tmp_path: Path) -> None:
    parameters = (LR, "task: {value: digits}", "optimizer: {value: adam}", "momentum: {value: 0.5}")
    (note,) = notes(sweep("{name: loss_val}", *parameters, command=OURS % "--decay=0.5, "))
    assert "--momentum (" in note
    assert "--decay (" in note
    assert note.startswith("line 7: ")
    mixed = (
        LR,
        "task: {value: digits}",
        "optimizer: {values: [adam, sgd]}",
        "momentum: {value: 0}",
    )
    assert notes(sweep("{name: loss_val}", *mixed)) == []


@pytest.mark.parametrize(
    ("parameters", "flags", "note"),
    [
        ((LR, "data_dir: {value: gone}"), "", "line 5: data_dir: gone is not on this machine"),
        ((LR,), "--data_dir=gone, ", "line 5: --data_dir: gone is not on this machine"),
        ((LR,), "--root_dir=nowhere, --data_dir=data, ", "--data_dir: data is not on this machine"),
        ((LR,), "--data_dir=., --scores=gone.csv, ", "--scores: gone.csv is not on this machine"),
        ((LR,), "--weights=gone.pt, ", "--weights: gone.pt is not on this machine"),
        ((LR,), "--data_dir=data, ", None),
        ((LR, "task: {value: digits}"), "", None),
        ((LR,), "", None),
    ],
)
def test_a_missing_folder_is_noted_wherever_it_is_set(
    parameters: tuple[str, ...], flags: str, note: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make_scored(tmp_path / "data", 8)
    found = notes(sweep("{name: loss_val}", *parameters, command=OURS % flags))
    assert len(found) == (note is not None), found
    assert note is None or note in found[0]


def test_check_survives_any_text(tmp_path: Path, here: Command) -> None:
    for value in (r"a\ud800b", r"a\0b", r"\e[31mred\n"):
        text = sweep("{name: loss_val}", LR, f'data_dir: {{value: "{value}"}}')
        (tmp_path / "s.yaml").write_text(text)
        done = here("check", "s.yaml")
        assert done.returncode in (0, 2)
        assert "internal error" not in done.stderr
        assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines())
        for kind in ("csv", "json", "commands"):
            printed = here("sample", "s.yaml", f"--format={kind}").stdout
            assert all(line.isprintable() for line in printed.splitlines())


def test_a_sweep_says_which_way_it_searches_and_that_no_value_is_finite(
    tmp_path: Path, here: Command
) -> None:
    folder = make_scored(tmp_path / "data", 30)
    rows = [f"p{i:03d}.png,{3 if i % 3 == 0 else i}," for i in range(30)]
    rows = [f"{row}{'' if i % 3 else 'val'}" for i, row in enumerate(rows)]
    (folder / "scores.csv").write_text("\n".join(["image,score,split", *rows]))
    common = ("data_dir: {value: data}", "model: {value: lenet}", "weights: {value: none}")
    text = sweep("{name: r2_val}", LR, *common, "epochs: {value: 1}")
    (tmp_path / "s.yaml").write_text(text)
    for _ in range(2):  # The same command again says the same.
        done = here("sweep", "s.yaml", "--workers=1")
        assert done.returncode == 1, done.stderr
        assert "s.yaml: metric r2_val has no goal" in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("deep_cnn: ")]
        assert "none of the 2 trials that are over has a value of r2_val" in line
    (tmp_path / "t.yaml").write_text(text.replace("{name: r2_val}", "{name: loss_val}"))
    done = here("sweep", "t.yaml", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "goal" not in done.stderr

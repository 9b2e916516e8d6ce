"""No content of a checkpoint, a result or a table causes an import; only a command does."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import deep_cnn
from deep_cnn.errors import DeepCnnError
from deep_cnn.source import read_source
from tests.conftest import Command, environment, read_checkpoint, until
from tests.models.common import FAST, SCHEDULE, write_evil

CHECKPOINT = "outputs/models/one.pt"


@pytest.fixture
def mark(here: Command, tmp_path: Path) -> Path:
    """A run of good.py whose files name evil.py; what its import would write."""
    good = write_evil(tmp_path / "good.py")
    shutil.copy(tmp_path / "good.py", tmp_path / "evil.py")
    done = here(*FAST, "--model=good.py:Net", "--run_name=one", "--epochs=2")
    assert done.returncode == 0, done.stderr
    good.unlink()
    mark = write_evil(tmp_path / "evil.py")
    (tmp_path / "evil_schedule.py").write_text((tmp_path / "evil.py").read_text() + SCHEDULE)
    Image.new("L", (28, 28), 90).save(tmp_path / "p.png")
    craft(tmp_path, model="evil.py:Net")
    result = tmp_path / "outputs/results/one.json"
    result.write_text(result.read_text().replace("good.py:Net", "evil.py:Net"))
    return mark


def craft(folder: Path, digest: str | None = None, **options: object) -> None:
    """Let the checkpoints name other options, and a digest, by default that of evil.py."""
    for path in (folder / "outputs/models").glob("one*.pt"):
        content = read_checkpoint(path)
        content["config"] |= options
        evil = read_source("model", f"{folder}/evil.py:Net").digest
        content["code"] = {"model": digest or evil, "schedule": evil}
        torch.save(content, path)


VERBS = {
    "resume": [f"--resume={CHECKPOINT}", "--epochs=3"],
    "test": [f"--test_net={CHECKPOINT}"],
    "dry run": [f"--resume={CHECKPOINT}", "--epochs=3", "--dry_run"],
    "predict": ["predict", CHECKPOINT, "p.png"],
    "export": ["export", CHECKPOINT],
    "other class": [f"--resume={CHECKPOINT}", "--epochs=3", "--model=resnet18"],
    "report": ["report", "outputs"],
    "weights": [*FAST, "--model=lenet", f"--weights={CHECKPOINT}"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_that_names_code_does_not_import_it(
    here: Command, mark: Path, verb: str
) -> None:
    done = here(*VERBS[verb])
    assert done.returncode == (0 if verb == "report" else 2), done.stderr
    assert not mark.exists()
    if verb not in ("report", "weights", "other class"):
        assert "name it again, as in --model=evil.py:Net" in done.stderr.splitlines()[-1]


def test_code_that_the_command_names_is_used_and_no_other(
    here: Command, mark: Path, tmp_path: Path
) -> None:
    # The checkpoint names evil.py, with the digest of what the command names.
    craft(tmp_path, read_source("model", f"{tmp_path}/good.py:Net").digest)
    for verb in ("predict", "export", "test", "resume"):
        done = here(*VERBS[verb], "--model=good.py:Net")
        assert done.returncode == 0, done.stderr
        assert not mark.exists(), verb


def test_the_digest_is_compared_before_the_code_is_imported(here: Command, mark: Path) -> None:
    for verb in ("predict", "export", "test", "resume"):
        done = here(*VERBS[verb], "--model=good.py:Net")
        assert done.returncode == 2
        assert "is not the source that" in done.stderr.splitlines()[-1]
    assert not mark.exists()
    assert not mark.with_name("good.imported").exists()


CRAFTED: dict[str, dict[str, object]] = {
    "list": {"model": ["evil.py:Net"]},
    "options": {"options": {"model": "evil.py:Net"}, "model": "lenet"},
    "task": {"task": "evil.py:Net", "model": "lenet"},
    "schedule": {"model": "lenet", "schedule": "evil_schedule.py:Halving"},
    "module": {"model": "evil:Net"},
}


@pytest.mark.parametrize("how", CRAFTED)
def test_other_ways_to_name_code_do_not_import_it_either(
    here: Command, mark: Path, tmp_path: Path, how: str
) -> None:
    craft(tmp_path, **CRAFTED[how])
    for verb in ("resume", "test", "dry run", "predict", "export"):
        done = here(*VERBS[verb])
        assert done.returncode == 2, (verb, done.stderr)
        assert "Traceback" not in done.stderr
        with pytest.raises(DeepCnnError):
            deep_cnn.load(tmp_path / CHECKPOINT)
    assert not mark.exists()
    assert not (tmp_path / "evil_schedule.imported").exists()


def test_no_verb_that_only_reads_executes_code(here: Command, tmp_path: Path) -> None:
    mark = write_evil(tmp_path / "evil.py")
    (tmp_path / "s.yaml").write_text(SWEEP.replace("MODELS", "[evil.py:Net, evil:Net, lenet]"))
    for words in (["check", "s.yaml"], ["sample", "s.yaml"], ["-h"],
                  ["check", "s.yaml", "--schedule=evil.py:Net"]):  # fmt: skip
        done = here(*words)
        assert done.returncode == 0, done.stderr
        assert not mark.exists(), words


def test_check_reads_the_code(here: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP.replace("MODELS", "[net.py:Net, lenet]"))
    done = here("check", "s.yaml")  # The file may be on another machine.
    assert done.returncode == 0
    assert "s.yaml line 7: --model=net.py:Net: " in done.stdout
    assert "net.py cannot be read (No such file" in done.stdout
    (tmp_path / "net.py").write_text("def f(:\n")
    done = here("check", "s.yaml")
    assert done.returncode == 2
    assert "net.py, line 1: invalid syntax" in done.stderr
    (tmp_path / "s.yaml").write_text(SWEEP.replace("MODELS", "[net.py, lenet]"))
    done = here("check", "s.yaml")
    assert done.returncode == 2
    assert "--model=net.py names no class" in done.stderr


SWEEP = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  task: {value: digits}
  train_samples: {value: 60}
  epochs: {value: 1}
  model: {values: MODELS}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""


def test_a_sweep_folder_does_not_import_what_the_file_does_not_name(
    here: Command, tmp_path: Path
) -> None:
    mark = write_evil(tmp_path / "evil.py")
    (tmp_path / "s.yaml").write_text(SWEEP.replace("  model: {values: MODELS}\n", ""))
    assert here("sweep", "s.yaml", "--workers=1", "--wandb=False").returncode == 0
    folder = tmp_path / "outputs/sweeps/s"
    whole = (folder / "sweep.json").read_text()
    record = json.loads(whole)
    for name in ("model", "schedule"):
        record["constants"] = {name: "evil.py:Net"}
        (folder / "sweep.json").write_text(json.dumps(record))
        done = here("sweep", "s.yaml", "--workers=1")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"begun with --{name}=evil.py:Net, which is code; name it again" in done.stderr
    (folder / "sweep.json").write_text(whole)
    trial = next(folder.rglob("*.trial"))
    point = json.loads(trial.read_text())
    point["point"] |= {"model": "evil.py:Net"}
    trial.write_text(json.dumps(point))
    trial.with_suffix(".done").unlink()
    done = here("sweep", "s.yaml", "--workers=1", "--wandb=False")
    assert done.returncode == 1
    assert "--model=evil.py:Net is not in the sweep file" in done.stderr
    table = (folder / "trials.csv").read_text()
    (folder / "trials.csv").write_text(table.replace("digits", "evil.py:Net"))
    assert here("report", "outputs").returncode == 0
    assert not mark.exists()


def test_a_job_that_starts_again_names_the_code_again(here: Command, tmp_path: Path) -> None:
    code = ("--model=good.py:Net", "--schedule=s.py:Halving")
    done = here("submit", "--scheduler=slurm", "--dry_run", "--", *FAST, *code)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "--resume=" in line)
    assert " ".join(code) in line


def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path) -> None:
    write_evil(tmp_path / "good.py")
    (tmp_path / "s.py").write_text(SCHEDULE)
    code = ["--model=good.py:Net", "--schedule=s.py:Halving"]
    words = [*FAST, *code, "--epochs=100000", "--run_name=one"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", *words],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until((tmp_path / "outputs/results/one.csv").exists, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143
    assert f"--resume=outputs/models/one.pt {' '.join(code)}\n" in errors

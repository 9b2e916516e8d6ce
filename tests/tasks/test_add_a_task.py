"""Whoever follows "Add a task" literally has a task that trains, tests, sweeps and is listed."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PATIENCE, ROOT, environment

TABLE = "TASKS: Mapping[str, type[TaskOptions]] = {\n"
SWEEP = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters: {lr: {values: [0.01, 0.1]}}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""


def steps() -> tuple[str, str, str, str]:
    """Return the options, the entry, the file and the command of the page."""
    page = (ROOT / "deep_cnn" / "tasks" / "README.md").read_text(encoding="utf-8")
    section = page.partition("## Add a task\n")[2].partition("\n## ")[0]
    options, entry, file = (
        textwrap.dedent(code) for code in re.findall(r" *```python\n(.*?) *```", section, re.S)
    )
    command = re.search(r"`python (-m deep_cnn [^`]*)`", section)
    assert command
    return options, entry, file, command[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package with the new task, and the pictures that the page speaks of."""
    options, entry, file, _ = steps()
    shutil.copytree(ROOT / "deep_cnn", tmp_path / "deep_cnn")
    names = tmp_path / "deep_cnn" / "names.py"
    text = names.read_text(encoding="utf-8")
    assert text.count(TABLE) == 1
    text = text.replace(TABLE, f"{options}\n\n{TABLE}{textwrap.indent(entry, '    ')}")
    names.write_text(text, encoding="utf-8")
    (tmp_path / "deep_cnn" / "tasks" / "file_names.py").write_text(file, encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        path = tmp_path / "pictures" / f"{i / 4}_street.jpg"
        Image.fromarray(np.full((32, 32, 3), 6 * i, np.uint8)).save(path)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def run(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=environment(PYTHONPATH=str(project)),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_steps_of_the_page_are_twenty_lines_and_make_a_task(project: Path) -> None:
    options, entry, file, command = steps()
    code = [line for part in (options, entry, file) for line in part.splitlines() if line.strip()]
    assert len(code) <= 20
    quick = ("--freeze=trunk", "--epochs=1", "--wandb=False", "--run_name=r")
    words = command.split()
    text = run(project, *words, *quick)
    assert "task file_names" in text
    assert "mae_val" in text
    tested = run(project, "-m", "deep_cnn", "--test_net=outputs/models/r.best.pt", "--wandb=False")
    assert "mae_test=" in tested
    assert "task file_names: the number at the beginning" in run(project, "-m", "deep_cnn", "-h")
    trials = run(project, *words[:2], "sweep", "sweep.yaml", "--workers=1", *words[2:], *quick[:3])
    assert "2 of 2 trials are over" in trials
    assert (project / "outputs" / "tensorboard" / "r" / "val").is_dir()

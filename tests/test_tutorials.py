"""Each row of the tutorials page is a command that works, typed as it stands."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PATIENCE, ROOT, environment, make_classes
from tests.mnist_files import contents, gzipped, write

PAGE = "deep_cnn/tasks/TUTORIALS.md"
# Part of a command, and why it does not run here.
NOT_RUN = {
    "fetch --data": "needs a network; tests of the verb fetch have mirrors of their own",
    "--model=resnet18": "needs a network; tests/models has weights that are not pretrained",
    "--wandb=True": "needs an account on wandb.ai; tests/tracking/test_wandb.py has another server",
    "tensorboard --logdir": "is a server, which has a test of its own",
    "jupyter lab": "is a server that runs until it is interrupted",
    "ssh -L": "needs another machine",
}
# What takes seconds here instead of minutes, and what is printed instead of submitted.
SUBSTITUTIONS = (
    ("sweep sweeps/lr.yaml", "sweep quick/lr.yaml"),
    (r"(tests/places_test_input|places365_standard --keep\S+ --epochs=1)", r"\1 --freeze=trunk"),
    ("submit --scheduler=pbs", "submit --dry_run --scheduler=pbs"),
)
QUICK_SWEEP = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters: {epochs: {value: 1}, freeze: {value: trunk}, lr: {values: [0.01, 0.1]}}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""


def rows() -> Iterator[tuple[str, str]]:
    """Yield the title of the section and the command of each row of the page."""
    title = ""
    for line in (ROOT / PAGE).read_text(encoding="utf-8").splitlines():
        title = line.removeprefix("## ") if line.startswith("## ") else title
        row = re.fullmatch(r"\| (.*) ?\| `([^`]+)` \|", line)
        if row:
            yield title, row[2]
        else:
            assert not line.startswith("|") or re.match(r"\| (in the|---)", line), line


ROWS = list(rows())
SECTIONS = list(dict.fromkeys(title for title, _ in ROWS))


def prepare(folder: Path) -> None:
    """Write what the page assumes: the repository's files and the data of the tutorials."""
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    shutil.copytree(ROOT / "tests" / "places_test_input", folder / "tests" / "places_test_input")
    for path, text in (
        ("quick/lr.yaml", QUICK_SWEEP),
        ("input/keep.txt", "dark\nlight\n"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    write(folder / "mnist", contents(), gzipped)
    write(folder / "data" / "FashionMNIST" / "raw", contents(), gzipped)
    make_classes(folder / "input" / "places365_standard", count=10)
    for name in ("my_digits", "new_pictures"):
        (folder / name).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / name / "1.png")


def shell(folder: Path) -> dict[str, Any]:
    """Return the arguments with which a process finds this interpreter, and no input."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, module in (("python", ""), ("python3", ""), ("tensorboard", "-m tensorboard.main")):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        path.chmod(0o755)
    env = environment(PATH=f"{programs}:{os.environ['PATH']}")
    return {"cwd": folder, "env": env, "stdin": subprocess.DEVNULL, "text": True}


def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does, with this interpreter as python."""
    words, limit = ["bash", "-e", "-c", command], 2 * PATIENCE
    return subprocess.run(words, **shell(folder), capture_output=True, timeout=limit, check=False)


@pytest.mark.parametrize("section", [title for title in SECTIONS if title != "On a server"])
def test_every_command_works_in_the_order_of_the_page(tmp_path: Path, section: str) -> None:
    prepare(tmp_path)
    for title, command in ROWS:
        if title != section or any(part in command for part in NOT_RUN):
            continue
        for pattern, replacement in SUBSTITUTIONS:
            command = re.sub(pattern, replacement, command)
        done = typed(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"


def test_the_script_of_the_page_runs(tmp_path: Path) -> None:
    prepare(tmp_path)
    (script,) = re.findall(r"```bash\n(.*?)```", (ROOT / PAGE).read_text(encoding="utf-8"), re.S)
    done = typed(script, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "outputs" / "results" / "lenet-0.01.csv").exists()


@pytest.mark.parametrize(
    "command", [command for _, command in ROWS if command.startswith("tensorboard")]
)
def test_tensorboard_shows_the_runs(tmp_path: Path, command: str) -> None:
    prepare(tmp_path)
    typed("python -m deep_cnn --task=mnist --epochs=1 --run_name=shown", tmp_path)
    # Another port, because others may use this machine, too.
    words = [*command.replace("--port 6006", "").split(), "--port=0"]
    server = subprocess.Popen(words, **shell(tmp_path), stderr=subprocess.PIPE,
                              executable=tmp_path / "bin" / words[0])  # fmt: skip
    try:
        assert server.stderr
        lines = iter(server.stderr.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"http://\S+:(\d+)/", line)))
        address = f"http://127.0.0.1:{port}/data/runs"
        end = time.monotonic() + PATIENCE
        runs: set[str] = set()
        while not runs >= {"shown/train", "shown/val"}:  # It reads the files in the background.
            assert time.monotonic() < end, runs
            time.sleep(0.2)
            runs = set(json.loads(urlopen(address, timeout=PATIENCE).read()))
    finally:
        server.kill()
        server.wait()


def test_what_cannot_run_here_is_on_the_page() -> None:
    commands = [command for _, command in ROWS]
    for part in NOT_RUN:
        assert any(part in command for command in commands), part

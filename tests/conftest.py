"""What many tests share: the sample data, tiny data sets, and the command line as a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deep_cnn.cli import main
from deep_cnn.processes import EXIT_STATUS

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "places_test_input"

# The networks are tiny: a second thread is only waited for, and for long on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nobody waits for so long but where something hangs: the machine may be busy.
PATIENCE = 300.0
SHOWS_PROCESSES = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for processes where Linux shows them"
)
Command = Callable[..., subprocess.CompletedProcess[str]]


def environment(**extra: str) -> dict[str, str]:
    """This process's without W&B; an empty value removes a name."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "WB_"))}
    given = {**kept, "PYTHONPATH": str(ROOT), **extra}
    return {name: value for name, value in given.items() if value}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are cores: many tests wait for W&B's client most of the time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


@pytest.fixture
def deep_cnn(tmp_path: Path) -> Command:
    """Run `python -m deep_cnn ARGS` in an empty folder."""

    def run(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deep_cnn", *map(str, words)],
            cwd=tmp_path,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """As `deep_cnn`, but in this very process, which has imported everything already.

    The workers of its sweeps are forks of one server, whose environment is that of the first.
    """

    def run(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        given = environment(**extra)
        handlers = {number: signal.getsignal(number) for number in EXIT_STATUS}
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name in set(os.environ) - set(given):
                patch.delenv(name)
            for name, value in given.items():
                patch.setenv(name, value)
            capsys.readouterr()
            status = main([*map(str, words)])
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return subprocess.CompletedProcess(words, status, *capsys.readouterr())

    return run


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what is in the file, whatever deep_cnn makes of it."""
    return torch.load(path, weights_only=True)


def until(condition: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait for the condition, while the process that is to bring it about lives."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def processes() -> dict[int, int]:
    """The living processes and their parents."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # It has just ended.
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def family(pid: int) -> set[int]:
    """The living process and all that it has started."""
    parents = processes()
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found & set(parents)


def marked(mark: str) -> set[int]:
    """The living processes whose environment has DEEP_CNN_TEST=mark, orphans among them."""
    found = set()
    for pid in processes():
        try:
            if f"DEEP_CNN_TEST={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
        except OSError:  # It has just ended, or is another user's.
            continue
    return found


def workers(pid: int) -> list[int]:
    """The forks of the fork server: the children of a child of the engine or agent `pid`."""
    parents = processes()
    return [child for child, parent in parents.items() if parents.get(parent) == pid]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A folder with 24 small pictures, brighter ones with higher scores, and scores.csv."""
    return make_scored(tmp_path / "scored")


def make_scored(folder: Path, count: int = 24) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["image,score"]
    for i in range(count):
        level = 255 * i / count
        noise = random.normal(level, 20, (40, 50, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"p{i:03d}.png")
        lines.append(f"p{i:03d}.png,{i / 2}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_classes(folder: Path, parts: tuple[str, ...] = ("train", "val"), count: int = 6) -> Path:
    random = np.random.default_rng(1)
    for part in parts:
        for name, level in (("dark", 50), ("light", 200)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.normal(level, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder

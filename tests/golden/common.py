"""Read, write and compare golden files, and run the program in a clean environment."""

import contextlib
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from deep_cnn.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 300.0
# Variables that change what the program does; HOME is set to the folder of the run.
_FOREIGN = ("WANDB", "WB_", "DEEP_CNN", "OMP_", "MKL_", "CUDA_", "XDG_", "TORCH_HOME", "NETRC")


def machine() -> dict[str, str]:
    """Describe what decides on the last digits of a computation."""
    lines = []
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": named[0] if named else platform.machine(),
    }


def environment(home: Path, **extra: str) -> dict[str, str]:
    """Give this process's environment without what would change a run."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    kept |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}
    return kept


def command(*words: str) -> list[str]:
    """Give the words that run the program."""
    return [sys.executable, "-m", "deep_cnn", *words]


def run(folder: Path, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m deep_cnn WORDS` in a folder."""
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(folder, **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def run_well(folder: Path, *words: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run it, and fail with what it said where its status is not 0."""
    done = run(folder, *words, **extra)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def called(folder: Path, *words: str, **extra: str) -> tuple[int, str, str]:
    """Run it in this very process: its status, stdout and stderr."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    before, place = dict(os.environ), Path.cwd()
    out, err = io.StringIO(), io.StringIO()
    try:
        os.environ.clear()
        os.environ.update(environment(folder, **extra))
        os.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([*words])
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return status, out.getvalue(), err.getvalue()


def dumps(value: Any, depth: int = 2) -> str:
    """Write JSON with a line for each item down to a depth, and the rest compact."""
    return _lines(value, depth, "") + "\n"


def _lines(value: Any, depth: int, indent: str) -> str:
    if depth == 0 or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=True)
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {_lines(v, depth - 1, inner)}" for k, v in value.items()]
        opened, closed = "{", "}"
    else:
        items = [_lines(item, depth - 1, inner) for item in value]
        opened, closed = "[", "]"
    return f"{opened}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closed}"


def write(name: str, value: Any, depth: int = 2) -> None:
    """Write a golden file."""
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(value, depth), encoding="utf-8")


def read(name: str) -> Any:
    """Read a golden file."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def as_json(value: Any) -> Any:
    """Give what is read back of a value that is written as JSON."""
    return json.loads(json.dumps(value))


def differences(found: Any, expected: Any, tolerance: float = 0.0, where: str = "") -> list[str]:
    """List where two values differ, numbers by more than the tolerance (relative or absolute)."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        lines = [f"{where}/{k}: is missing" for k in expected.keys() - found.keys()]
        lines += [f"{where}/{k}: is new" for k in found.keys() - expected.keys()]
        for key in expected.keys() & found.keys():
            lines += differences(found[key], expected[key], tolerance, f"{where}/{key}")
        return sorted(lines)
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return [f"{where}: {len(found)} items, not {len(expected)}: {found} {expected}"[:500]]
        return [
            line
            for i, pair in enumerate(zip(found, expected, strict=True))
            for line in differences(*pair, tolerance, f"{where}/{i}")
        ]
    if _number(found) and _number(expected) and tolerance:
        near = math.isclose(float(found), float(expected), rel_tol=tolerance, abs_tol=tolerance)
        return [] if near or found == expected else [f"{where}: {found}, not {expected}"]
    same = type(found) is type(expected) and (found == expected or found != found)
    return [] if same else [f"{where}: {found!r}, not {expected!r}"]


def _number(value: Any) -> bool:
    """Say whether a value is a number, or the text of one, as in a CSV file."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return True
    try:
        return isinstance(value, str) and bool(value.strip()) and math.isfinite(float(value))
    except ValueError:
        return False


def until(condition: Callable[[], bool], process: "subprocess.Popen[Any]") -> None:
    """Wait for a condition while a process lives."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        assert process.poll() is None, f"it ended with {process.returncode} before"
        time.sleep(0.005)

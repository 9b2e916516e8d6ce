"""Choose device, precision, threads and seeds, and describe the environment of a run."""

import logging
import math
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deep_cnn import __version__
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.names import WEIGHTS
from deep_cnn.resources import cores

_LOGGER = logging.getLogger("deep_cnn")
_PACKAGES = ("torch", "torchvision", "numpy", "Pillow", "optuna", "wandb")
# A repository on a network file system that does not respond must not delay a run.
_SECONDS_FOR_GIT = 5
# Millions of parameters, below which one thread is the fastest.
_SMALL = 1.0
# The number of cores of this process, if it is one of several workers.
_share: int | None = None


def choose_device(name: str) -> torch.device:
    """Return the device that --device names; auto prefers cuda, then mps."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    available = [*(gpu for gpu in gpus if gpus[gpu]), "cpu"]
    if name not in ("auto", *available):
        raise ConfigError(
            f"--device={name} is not available on this machine; choose from auto,"
            f" {', '.join(available)}"
        )
    return torch.device(available[0] if name == "auto" else name)


def choose_dtype(amp: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the trunk: that of --amp, or bfloat16 if it is faster."""
    if amp == "off" or device.type == "mps":
        return torch.float32
    if amp == "auto":
        return torch.bfloat16 if _gains_from_bfloat16(device) else torch.float32
    if amp == "fp16" and device.type == "cpu":
        _LOGGER.warning("--amp=fp16 is for GPUs and slow on a CPU; a new run can take --amp=auto")
    return torch.float16 if amp == "fp16" else torch.bfloat16


def _gains_from_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions, bfloat16 is emulated and several times slower than float32.
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)


def choose_workers(wanted: int | str, device: torch.device) -> int:
    """Return the number of processes that decode, 0 for this process.

    If the CPU trains, such processes would compete with it.
    """
    if isinstance(wanted, int):
        return wanted
    return 0 if device.type == "cpu" else min(8, cores())


def share_cores(number: int) -> None:
    """Set how many of the cores this process takes, if it is one of several workers."""
    global _share
    _share = number


def choose_threads(config: TrainConfig, earlier: int | None = None) -> int:
    """Return the number of threads of a run.

    Without --threads and OMP_NUM_THREADS, it is that of the checkpoint (`earlier`) if there are
    enough cores, because numbers repeat bit for bit on the same number of threads only.
    """
    if config.threads is not None:
        return config.threads
    most = _share or cores()
    if earlier is not None and earlier <= most and _omp_threads() is None:
        return earlier
    threads = _default_threads(config, most)
    return min(threads, _share) if _share else threads


def _default_threads(config: TrainConfig, most: int) -> int:
    # A step of a small network is so short that its threads spend their time waiting.
    is_small = WEIGHTS.get(config.model, math.inf) < _SMALL
    return _omp_threads() or (1 if is_small else most)


def _omp_threads() -> int | None:
    """Return OMP_NUM_THREADS, of which the first number counts, or None."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


@contextmanager
def threads_restored() -> Iterator[None]:
    """Restore the number of threads at the end of this context."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on the device, without waiting for the device's current work."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # If memory is not pinned, even a non-blocking copy waits for the stream.
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def every_core(config: TrainConfig) -> Iterator[None]:
    """Use more than the share of a worker, because other workers wait for the result."""
    with threads_restored():
        if config.threads is None:
            most = _default_threads(config, cores())
            torch.set_num_threads(max(torch.get_num_threads(), most))
        yield


def seed_everything(seed: int) -> None:
    """Seed every global generator."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def choose_deterministic() -> None:
    """Choose deterministic algorithms."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def environment(device: torch.device) -> dict[str, Any]:
    """Return the environment of a run, for results/<run>.json.

    `{packages, commit, dirty, device, threads}`; commit and dirty are None unless deep_cnn runs
    from a clone of its repository.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {**_code(), "device": name, "threads": torch.get_num_threads()}


@cache
def _code() -> dict[str, Any]:
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    dirty = None if changes is None else bool(changes)
    packages: dict[str, str | None] = {"deep_cnn": __version__}
    for name in _PACKAGES:
        packages[name] = next((package.version for package in distributions(name=name)), None)
    return {"packages": packages, "commit": commit, "dirty": dirty}


def _git(*args: str) -> str | None:
    """Return git's output for the clone that contains this file, or None if there is no clone."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), *args]
    try:
        return subprocess.check_output(
            command, stderr=subprocess.DEVNULL, text=True, timeout=_SECONDS_FOR_GIT
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None

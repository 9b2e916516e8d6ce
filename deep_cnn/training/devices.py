"""Choose where and how precisely to compute, and make it repeat."""

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from deep_cnn.errors import ConfigError

_LOGGER = logging.getLogger("deep_cnn")


def choose_device(name: str) -> torch.device:
    """Return the device that --device names; auto prefers cuda, then mps."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        there = ", ".join(device for device, found in available.items() if found)
        raise ConfigError(
            f"--device={name} is not available on this machine; choose from auto, {there}"
        )
    return torch.device(name)


def choose_dtype(amp: str, device: torch.device) -> torch.dtype:
    """Return the type that the trunk computes in: --amp, or bfloat16 where the processor gains."""
    if amp == "off" or device.type == "mps":
        return torch.float32
    if amp == "auto":
        gains = _cuda_gains() if device.type == "cuda" else _cpu_gains()
        return torch.bfloat16 if gains else torch.float32
    if amp == "fp16" and device.type == "cpu":
        _LOGGER.warning("--amp=fp16 is for GPUs and slow on a CPU; a new run can take --amp=auto")
    return torch.float16 if amp == "fp16" else torch.bfloat16


def _cuda_gains() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_gains() -> bool:
    # Without these instructions bfloat16 is emulated, and several times slower than float32.
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)


def choose_workers(wanted: int | str, device: torch.device) -> int:
    """Return how many processes decode, 0 for this one alone.

    They would compete with a CPU that computes.
    """
    if isinstance(wanted, int):
        return wanted
    return 0 if device.type == "cpu" else min(8, cores())


def cores() -> int:
    """Return the cores that this process may use; a cluster job has fewer than its node."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def every_core() -> Iterator[None]:
    """Compute with all cores that OMP_NUM_THREADS allows: other workers wait for the result."""
    before, allowed = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(max(before, int(allowed) if allowed.isdecimal() else cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_everything(seed: int) -> None:
    """Seed every global generator, and choose algorithms that repeat."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True

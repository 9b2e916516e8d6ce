"""Describe what a run computes with: versions of packages, the commit of the code, the device."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deep_cnn import __version__

_PACKAGES = ("torch", "torchvision", "numpy", "Pillow", "optuna", "wandb")
_SECONDS_FOR_GIT = 5


def environment(device: torch.device) -> dict[str, Any]:
    """Return the environment of a run, for results/<run>.json.

    `{packages, commit, dirty, device, threads}`; commit and dirty are None unless deep_cnn runs
    from a clone of its repository.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {**_code(), "device": name, "threads": torch.get_num_threads()}


@cache
def _code() -> dict[str, Any]:
    packages = {"deep_cnn": __version__, **{name: _version(name) for name in _PACKAGES}}
    commit = _git("rev-parse", "HEAD")
    dirty = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"packages": packages, "commit": commit, "dirty": None if dirty is None else bool(dirty)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return what git says of the clone that this file is in, or None if it is in none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS_FOR_GIT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""Find what a job needs to know of the machine that it is submitted from."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deep_cnn.cluster.request import Environment

# Variables that jobs get, none of which holds a credential.
_PASSED = (
    "PYTHONPATH", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "DEEP_CNN_LEASE", "NETRC", "SLURM_CONF",
    "WB_PROJECT", "WB_USER", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL", "WANDB_MODE",
    "WANDB_DIR", "WANDB_TAGS", "WANDB_NOTES", "WANDB_RUN_GROUP",
)  # fmt: skip
_OF_ONE_MACHINE = ("/tmp", "/var/tmp", "/dev/shm")
_IN_MEMORY = ("tmpfs", "ramfs")


def find_environment(prefix: Path, environ: Mapping[str, str]) -> Environment:
    """Return the Python environment with this sys.prefix."""
    python = "python" if (prefix / "bin" / "python").exists() else sys.executable
    if (prefix / "conda-meta").is_dir():
        base = Path(environ["CONDA_EXE"]).parent.parent if environ.get("CONDA_EXE") else None
        return Environment(prefix, "conda", base, python)
    is_venv = (prefix / "pyvenv.cfg").exists() and (prefix / "bin" / "activate").exists()
    return Environment(prefix, "venv" if is_venv else "system", None, python)


def torch_home(environ: Mapping[str, str]) -> Path:
    """Return the folder in which torch keeps weights."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - Path's may fail.


def passed_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that jobs get, without addresses that hold a password."""
    passed = {name: environ[name] for name in _PASSED if environ.get(name)}
    safe = {k: v for k, v in passed.items() if not ("://" in v and "@" in v)}
    return {"TORCH_HOME": str(torch_home(environ)), **safe}


def local_folder(path: Path) -> str | None:
    """Return why other machines cannot see a folder, or None if nothing speaks against it."""
    resolved = path.resolve()
    for folder in (tempfile.gettempdir(), os.environ.get("TMPDIR", ""), *_OF_ONE_MACHINE):
        if folder and resolved.is_relative_to(Path(folder).resolve()):
            return f"it is in {folder}"
    return "it is in memory (tmpfs)" if _file_system(resolved) in _IN_MEMORY else None


def _file_system(path: Path) -> str:
    """Return the type of the file system of a path, or "" if the system does not say it."""
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    kinds = {}
    for line in lines:
        _, mount, kind, *_ = line.split(" ")
        kinds[Path(mount.encode().decode("unicode_escape"))] = kind
    return next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "")

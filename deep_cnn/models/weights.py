"""Load pretrained weights into a network, from torchvision or from a file."""

import logging
import os
import pickletools
import re
import socket
import sys
import warnings
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deep_cnn.errors import WeightsError
from deep_cnn.text import first_line
from deep_cnn.vision import torchvision

_LOGGER = logging.getLogger("deep_cnn")
_DOWNLOAD_TIMEOUT = 20.0
# What torch need not refuse in the checkpoints of other programs, because it only holds values.
_HARMLESS: list[Any] = [
    Namespace, PosixPath, PurePosixPath, np.dtype, np.float64, np.float32, np.int64,
    type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64)),
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
]  # fmt: skip
# Where a checkpoint has its state dict: Lightning's and ours, that of PyTorch's tutorials, and
# that of torchvision's training scripts.
_STATE_DICTS = ("state_dict", "model_state_dict", "model")
# What a pickle has beside models: tensors, and the dicts and settings around them.
_VALUES = re.compile(r"(torch\._utils|torch \w+Storage|collections|argparse|numpy|pathlib)\b")
# What the files of DenseNet call their layers, as in denselayer1.norm.1.weight.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


def weights_address(name: str, entry: str | None = None) -> tuple[str, Path]:
    """Return the URL of torchvision's weights of `name`, and the path of the file in TORCH_HOME.

    `entry` is their name, such as IMAGENET1K_V2, by default that of torchvision's DEFAULT.
    """
    url: str = torchvision().models.get_model_weights(name)[entry or "DEFAULT"].url
    file = f"hub/checkpoints/{url.rpartition('/')[2]}"
    usual = Path(os.path.expanduser("~/.cache/torch")) / file  # noqa: PTH111 - or it may fail.
    # A home that can only be read may have the file, while downloads go elsewhere.
    is_usual = "TORCH_HOME" not in os.environ and usual.is_file()
    return url, usual if is_usual else Path(torch.hub.get_dir()).parent / file


def fetch_command(name: str, entry: str | None = None) -> str:
    """Return the command that downloads the weights `entry` of the network `name`."""
    return f"python -m deep_cnn fetch --model={name}" + (f" --weights={entry}" if entry else "")


def download_weights(
    name: str, url: str, file: Path, digest: str | None, entry: str | None = None
) -> None:
    """Download `file`, whose SHA-256 begins with `digest`; raise WeightsError if that fails."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        _LOGGER.info("Downloading %s to %s", url, file)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digest, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        reason = first_line(error)
        raise WeightsError(
            f"--model={name}: the ImageNet weights {file} cannot be downloaded; fetch {url}"
            f" elsewhere ({fetch_command(name, entry)}) and put it there (TORCH_HOME"
            " moves the folder), or give --weights=FILE, or train from scratch with --weights=none"
            f" ({reason})"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def hash_in(url: str) -> str | None:
    """Return the first digits of a file's SHA-256 from its name, as torchvision writes them."""
    match = re.search(r"-([0-9a-f]{8,})\.", url.rpartition("/")[2])
    return match[1] if match else None


def load_weights(trunk: nn.Module, name: str, file: Path, *, fetch: str = "") -> None:
    """Load a file into the trunk of `name`; raise WeightsError unless all fit and are finite.

    `fetch` is the command that downloads torchvision's weights again, if the file has these.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(
            f"--weights={file} does not exist; use imagenet, none or a file"
        ) from None
    except IsADirectoryError:
        raise WeightsError(f"--weights={file} is a folder; name a file in it") from None
    except Exception as error:  # Damaged bytes make the reader fail in a dozen ways.
        way = f"{fetch} replaces it" if fetch else "name another, or use imagenet or none"
        text = _pickled(file, str(error)) or (
            f"is not a file of weights that torch saved, or damaged; {way}"
        )
        raise WeightsError(f"--weights={file} {text}") from error
    if not any(isinstance(value, Tensor) for value in _unwrapped(content).values()):
        text = f"a {type(content).__name__} without tensors by name; save model.state_dict() in it"
        raise WeightsError(f"--weights={file} has {text}")
    wrong = _load(trunk, content)
    if wrong:
        raise WeightsError(
            f"--weights={file} does not fit --model={name}: {len(wrong)} tensors are missing, left"
            f" over or of another shape, the first is {wrong[0]}; choose the right --model"
        )
    broken = next((k for k, v in trunk.state_dict().items() if not v.isfinite().all()), None)
    if broken:  # Otherwise the first step would fail, with the advice to lower --lr.
        raise WeightsError(f"--weights={file} has a nan or an infinity in {broken}; replace it")


def _pickled(file: Path, error: str) -> str | None:
    """Return what to do with a file that torch reads only by running code, or None for others."""
    script, other = "TorchScript archives" in error, re.search(r"GLOBAL (\S+)", error)
    if not script and not other:
        return None
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # A file of an old torch, or damaged.
        classes = []
    layers = [each for each in classes if each.startswith("torch.nn.modules.")]
    what = "TorchScript" if script else f"a pickled {other[1] if other else ''}"
    model = script or not classes or bool(layers)
    load = f"torch.jit.load({str(file)!r})" if script else f"torch.load({str(file)!r}, **old)"
    load = load.replace("**old", "weights_only=False")
    key = _key_of_model(file) if model and not script else None
    holder = f'model["{key}"]' if key else "model"
    state = f"{holder}.state_dict()" if model else 'model["state_dict"]'
    return (
        f"is {what}, which may run any code when it is read; if you trust it, save its state dict"
        f" where it was made: model = {load}; torch.save({state}, 'weights.pt')"
    )


def _key_of_model(file: Path) -> str | None:
    """Return the key of a pickled model in a dict, or None if the file holds nothing else."""
    with suppress(Exception), zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        key = None
        for code, value, _ in pickletools.genops(archive.read(name)):
            if code.name == "GLOBAL" and not _VALUES.match(str(value)):
                return key
            if "PUT" not in code.name:  # Which only stores what is before it.
                key = value if code.name == "BINUNICODE" else None
    return None


def _unwrapped(content: Any) -> Mapping[str, Any]:
    """Return the state dict in the checkpoint of any usual program, or {} if there is none."""
    found: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
    for key in _STATE_DICTS:
        found = found[key] if isinstance(found.get(key), Mapping) else found
    return found


def _prefix(keys: Iterable[str], wanted: Collection[str]) -> str:
    """Return what precedes most names of `wanted` in `keys`, such as module. or model.trunk."""
    counts = Counter(
        key[:i] for key in keys for i in _starts(key) if key[i:] in wanted
    ).most_common()
    # A moving average or a teacher may lie beside the network itself.
    usual = re.compile(r"(module\.|model\.|net\.|network\.|backbone\.)*")
    order = [(-n, usual.fullmatch(prefix) is None, len(prefix), prefix) for prefix, n in counts]
    return min(order)[-1] if order else ""


def _starts(key: str) -> list[int]:
    return [0, *(i + 1 for i, char in enumerate(key) if char == ".")]


def _load(trunk: nn.Module, content: Any) -> list[str]:
    """Load a state dict, or a checkpoint that holds one; return the tensors that do not fit.

    The last layer and auxiliary heads, which the trunk does not have, are left out.
    """
    content, wanted = _unwrapped(content), trunk.state_dict()
    tensors = {
        _OLD_DENSENET.sub(r"\1", k): v
        for k, v in content.items()
        if isinstance(k, str) and isinstance(v, Tensor)
    }
    prefix = _prefix(tensors, wanted)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in tensors.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and value.shape == wanted.get(name, value).shape:
            state[name] = value
    # Some layers have changed their tensors; they recognize older files by these versions.
    versions = getattr(content, "_metadata", None) or {}
    versions = {k[len(prefix) :]: v for k, v in versions.items() if f"{k}.".startswith(prefix)}
    state._metadata = versions or wanted._metadata  # type: ignore[attr-defined]
    missing, left = trunk.load_state_dict(state, strict=False)
    cut = tuple(f"{k}." for k, module in trunk.named_modules() if isinstance(module, nn.Identity))
    parts = {k for k, _ in trunk.named_children()}
    return [key for key in missing if not key.endswith("num_batches_tracked")] + [
        key for key in left if key.partition(".")[0] in parts and not key.startswith(cut)
    ]

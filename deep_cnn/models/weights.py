"""Load pretrained weights into a network, from torchvision or from a file."""

import logging
import os
import re
import socket
import sys
from collections import OrderedDict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deep_cnn.errors import WeightsError
from deep_cnn.text import first_line
from deep_cnn.vision import torchvision

_LOGGER = logging.getLogger("deep_cnn")
_DOWNLOAD_TIMEOUT = 20.0
# What the files of DenseNet call their layers, as in denselayer1.norm.1.weight.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


def weights_address(name: str) -> tuple[str, Path]:
    """Return the URL of torchvision's weights of `name`, and the path of the file in TORCH_HOME."""
    url: str = torchvision().models.get_model_weights(name).DEFAULT.url
    file = f"hub/checkpoints/{url.rpartition('/')[2]}"
    usual = Path(os.path.expanduser("~/.cache/torch")) / file  # noqa: PTH111 - or it may fail.
    # A home that can only be read may have the file, while downloads go elsewhere.
    is_usual = "TORCH_HOME" not in os.environ and usual.is_file()
    return url, usual if is_usual else Path(torch.hub.get_dir()).parent / file


def download_weights(name: str, url: str, file: Path, digest: str | None) -> None:
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
            f" elsewhere (python -m deep_cnn fetch --model={name}) and put it there (TORCH_HOME"
            " moves the folder), or give --weights=FILE, or train from scratch with --weights=none"
            f" ({reason})"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def hash_in(url: str) -> str | None:
    """Return the first digits of a file's SHA-256 from its name, as torchvision writes them."""
    match = re.search(r"-([0-9a-f]{8,})\.", url.rpartition("/")[2])
    return match[1] if match else None


def load_weights(trunk: nn.Module, name: str, file: Path, *, fetched: bool = False) -> None:
    """Load a file into the trunk of `name`; raise WeightsError unless all fit and are finite.

    `fetched` means that the weights are torchvision's and can be downloaded again.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(
            f"--weights={file} does not exist; use imagenet, none or a file"
        ) from None
    except Exception as error:  # Damaged bytes make the reader fail in a dozen ways.
        way = f"python -m deep_cnn fetch --model={name} replaces it"
        raise WeightsError(
            f"--weights={file} is not a file of weights that torch saved, or damaged;"
            f" {way if fetched else 'name another, or use imagenet or none'}"
        ) from error
    wrong = _load(trunk, content)
    if wrong:
        raise WeightsError(
            f"--weights={file} does not fit --model={name}: {len(wrong)} tensors are missing, left"
            f" over or of another shape, the first is {wrong[0]}; choose the right --model"
        )
    broken = next((k for k, v in trunk.state_dict().items() if not v.isfinite().all()), None)
    if broken:  # Otherwise the first step would fail, with the advice to lower --lr.
        raise WeightsError(f"--weights={file} has a nan or an infinity in {broken}; replace it")


def _load(trunk: nn.Module, content: Any) -> list[str]:
    """Load a state dict, or a checkpoint that holds one; return the tensors that do not fit.

    The last layer and auxiliary heads, which the trunk does not have, are left out.
    """
    content = content if isinstance(content, Mapping) else {}
    for key in ("state_dict", "model"):  # Ours, and what torchvision's own training scripts save.
        content = content[key] if isinstance(content.get(key), Mapping) else content
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    prefixes = ("trunk.", "module.")  # Ours, and nn.DataParallel's.
    prefix = next((p for p in prefixes if any(k.startswith(p) for k in tensors)), "")
    wanted = trunk.state_dict()
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in tensors.items():
        name = _OLD_DENSENET.sub(r"\1", key.removeprefix(prefix))
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

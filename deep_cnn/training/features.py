"""Compute the features of a frozen trunk once, instead of in every epoch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deep_cnn.data.image_cache import ImageCache, open_features
from deep_cnn.progress import Progress
from deep_cnn.training.devices import every_core
from deep_cnn.training.session import Session, Split


def compute_features(session: Session, *names: str) -> None:
    """Replace the pictures of these splits by their features, if they are the same in every epoch.

    They are if the trunk is frozen and nothing random comes before it. Raises Interrupted.
    """
    if not session.network.frozen or session.preprocessing.augments:
        return
    session.network.eval()
    kept = _open(session)  # Once: what cannot be kept is not computed for each split again.
    for name in names:
        split = session.splits[name]
        if kept is not None and split.rows is not None:
            features = torch.from_numpy(kept[split.rows]).to(session.device)
        else:
            features = _compute(session, split, f"Features of {name}")
        session.splits[name] = replace(split, features=features)


def _compute(session: Session, split: Split, title: str) -> Tensor:
    batches = session.batches_in_order(split)
    found = []
    with torch.inference_mode(), Progress(title, batches.count) as progress:
        for x, _ in batches.items:
            session.stop.raise_if_set()
            found.append(session.network.features(x.to(session.device), session.dtype))
            progress.step()
    return torch.cat(found).clone()


def _open(session: Session) -> NDArray[np.float32] | None:
    """Return the features of every picture in the image cache, computed once for all runs."""
    images, folder = session.images, session.config.cache_path
    if images is None or folder is None:
        return None
    network = session.network
    key = f"{session.dtype} {network.input_spec} {_digest(network.trunk)}"

    def compute(rows: Sequence[int]) -> NDArray[np.float32]:
        return _compute_rows(session, images, rows)

    check = session.stop.raise_if_set
    return open_features(images, key, network.width, folder, compute, check)


def _compute_rows(session: Session, images: ImageCache, rows: Sequence[int]) -> NDArray[np.float32]:
    x = torch.from_numpy(images.values[list(rows)]).to(session.device)
    found = []
    with torch.inference_mode(), every_core():
        for part in torch.split(x, session.evaluation_batch):
            session.stop.raise_if_set()
            found.append(session.network.features(part, session.dtype))
    return torch.cat(found).cpu().numpy()


def _digest(module: nn.Module) -> str:
    """Return a hash of every number of a network."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]

"""Compute the features of a frozen trunk once, instead of in every epoch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deep_cnn.data.image_cache import open_features
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
    cached = _open_cached(session)  # Once: if it fails, each split would fail again.
    for name in names:
        split = session.splits[name]
        if cached is not None and split.rows is not None:
            features = torch.from_numpy(cached[split.rows]).to(session.device)
        else:
            features = _compute(session, split, f"Features of {name}")
        session.splits[name] = replace(split, features=features)


def _compute(session: Session, split: Split, title: str) -> Tensor:
    order, features = session.order(split), []
    with torch.inference_mode(), Progress(title, len(order)) as progress:
        for x, _ in session.batches(split, order):
            session.stop.raise_if_set()
            features.append(session.network.features(x.to(session.device), session.dtype))
            progress.step()
    # Outside of the inference mode, because autograd takes none of its tensors.
    return torch.cat(features)


def _open_cached(session: Session) -> NDArray[np.float32] | None:
    """Return the features of every picture in the image cache, computed once for all runs."""
    images, folder, network = session.images, session.config.cache_path, session.network
    if images is None or folder is None:
        return None
    key = f"{session.dtype} {network.input_spec} {_digest(network.trunk)}"

    def compute(rows: Sequence[int]) -> NDArray[np.float32]:
        x = torch.from_numpy(images.values[list(rows)]).to(session.device)
        features = []
        with torch.inference_mode(), every_core():
            for part in torch.split(x, session.evaluation_batch):
                session.stop.raise_if_set()
                features.append(network.features(part, session.dtype))
            return torch.cat(features).cpu().numpy()

    return open_features(images, key, network.width, folder, compute, session.stop.raise_if_set)


def _digest(module: nn.Module) -> str:
    """Return a hash of every number of a network."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]

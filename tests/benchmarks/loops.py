"""Fine-tune a ResNet-18 in three ways, each in a process of its own.

`reference` is the loop that everybody writes first: a DataLoader with four workers, float32,
contiguous tensors, the loss read in every step. `limit` is the arithmetic alone: the same steps as
ours, with our settings, on tensors that are in memory. `ours` is the command line.
"""

import csv
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from deep_cnn.data.preprocessing import centre, decode, to_array
from deep_cnn.models import Backbone, Network, build_network
from deep_cnn.names import IMAGENET
from deep_cnn.training.devices import choose_dtype
from deep_cnn.vision import torchvision
from tests.benchmarks.common import timed

BATCH = 32
LR = 1e-4


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each epoch (training and validation), of everything, and the last loss."""

    epochs: list[float]
    whole: float
    loss: float  # Mean squared error over the validation split, in training variances.


Loop = Callable[[Path, int], Timing]


def apart(loop: Loop, folder: Path, epochs: int) -> Timing:
    """Run a loop in a fresh process; its start counts."""
    begun = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(loop, folder, epochs).result()
    return Timing(found.epochs, time.perf_counter() - begun, found.loss)


def initial_weights(path: Path) -> None:
    """The weights that all of them begin with."""
    torch.manual_seed(0)
    torch.save(torchvision().models.resnet18(weights=None).state_dict(), path)


def ours(folder: Path, epochs: int, *flags: str) -> Timing:
    """`python -m deep_cnn`."""
    words = ["--data_dir=data", "--model=resnet18", "--weights=start.pt", f"--lr={LR}"]
    words += ["--dropout=0", f"--batch_size={BATCH}", f"--epochs={epochs}", "--wandb=False"]
    name = f"run{time.time_ns()}"
    whole = timed(folder, *words, f"--run_name={name}", *flags)
    with (folder / "outputs" / "results" / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    return Timing([float(row["seconds"]) for row in rows], whole, float(rows[-1]["loss_val"]))


def reference(folder: Path, epochs: int) -> Timing:
    """What one writes first."""
    transforms = torchvision().transforms
    pre = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    return _plain_loop(_resnet(folder), pre, folder, epochs)


def head_reference(folder: Path, epochs: int) -> Timing:
    """The same for the last layer of efficientnet_lite0: the frozen trunk runs in each epoch."""
    network = build_network("efficientnet_lite0", 1, weights="imagenet", dropout=0.2)
    network.freeze("trunk")
    form = network.input_spec

    def pre(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(to_array(centre(image, form), 3))

    return _plain_loop(network, pre, folder, epochs)


def _plain_loop(
    network: nn.Module, pre: Callable[[Image.Image], torch.Tensor], folder: Path, epochs: int
) -> Timing:
    sets = {split: _Pictures(folder, split, pre) for split in ("train", "val")}
    mean, std = _scale(folder)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=LR)
    seconds, total = [], 0.0
    for _ in range(epochs):
        begun = time.perf_counter()
        network.train()
        for x, y in _loader(sets["train"], shuffle=True):
            loss = nn.functional.mse_loss(network(x).squeeze(1), ((y - mean) / std).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        network.eval()
        total = 0.0
        with torch.no_grad():
            for x, y in _loader(sets["val"]):
                errors = network(x).squeeze(1) - (y - mean) / std
                total += errors.square().sum().item()
        seconds.append(time.perf_counter() - begun)
    return Timing(seconds, 0.0, total / len(sets["val"]))


def _loader(pictures: "_Pictures", *, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(
        pictures, BATCH, shuffle=shuffle, num_workers=4, multiprocessing_context="fork"
    )


def limit(folder: Path, epochs: int) -> Timing:
    """The same steps on tensors that are in memory already, with our settings."""
    mean, std = _scale(folder)
    data = {}
    for split in ("train", "val"):
        rows = _rows(folder, split)
        pictures = [to_array(centre(decode(path), IMAGENET), 3) for path, _ in rows]
        scores = torch.tensor([(score - mean) / std for _, score in rows]).float()
        data[split] = torch.from_numpy(np.stack(pictures)), scores
    trunk = _resnet(folder)
    trunk.fc = nn.Identity()
    network = Network(Backbone(trunk, 512, IMAGENET), 1, dropout=0.0)
    dtype = choose_dtype("auto", torch.device("cpu"))
    if dtype != torch.float32:
        network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, fused=True)
    seconds, total = [], 0.0
    for _ in range(epochs):
        begun = time.perf_counter()
        network.train()
        x, y = data["train"]
        for batch in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.mse_loss(network(x[batch], dtype).squeeze(1), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        x, y = data["val"]
        with torch.inference_mode():
            parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
            errors = [network(some, dtype).squeeze(1) - truth for some, truth in parts]
            total = float(torch.cat(errors).square().mean())
        seconds.append(time.perf_counter() - begun)
    return Timing(seconds, 0.0, total)


class _Pictures(Dataset[tuple[torch.Tensor, float]]):
    def __init__(
        self, folder: Path, split: str, pre: Callable[[Image.Image], torch.Tensor]
    ) -> None:
        self.rows, self.pre = _rows(folder, split), pre

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        path, score = self.rows[index]
        return self.pre(Image.open(path).convert("RGB")), score


def _rows(folder: Path, split: str) -> list[tuple[Path, float]]:
    with (folder / "data" / "scores.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [(folder / "data" / row["image"], float(row["score"])) for row in rows]


def _scale(folder: Path) -> tuple[float, float]:
    scores = np.array([score for _, score in _rows(folder, "train")])
    return float(scores.mean()), float(scores.std())


def _resnet(folder: Path) -> nn.Module:
    network: nn.Module = torchvision().models.resnet18(weights=None)
    network.load_state_dict(torch.load(folder / "start.pt", weights_only=True))
    network.fc = nn.Linear(512, 1)
    return network

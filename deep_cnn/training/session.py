"""Bring the data, the network and the optimizer of one run together."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import ImageCache, open_image_cache
from deep_cnn.data.loading import Augmentation, PictureSet, epoch_order, load_batches
from deep_cnn.data.preprocessing import Preprocessing
from deep_cnn.data.splits import Examples, joined, subset
from deep_cnn.data.unreadable import drop_unreadable
from deep_cnn.models import Network
from deep_cnn.tasks import Labels, Task, get_task
from deep_cnn.training.checkpoint import Checkpoint
from deep_cnn.training.devices import choose_device, choose_dtype, choose_workers, seed_everything
from deep_cnn.training.loop import (
    Batch,
    Batches,
    EpochOutput,
    Objective,
    run_epoch,
    to_device,
    weighted_mean,
)
from deep_cnn.training.optim import Stepper
from deep_cnn.training.stop import StopToken

# Without gradients memory is no limit; a CPU is quickest with what its caches hold (measured).
_EVALUATION_BATCHES = {"cpu": 32}
_EVALUATION_BATCH = 128


@dataclass(frozen=True, slots=True)
class Split:
    """One split, ready to learn from.

    Attributes:
        examples: Its N pictures.
        targets: Encoded targets, (N,).
        weights: Weights of the losses, (N,) float32, 1 on average.
        rows: Where the image cache has the pictures, (N,).
        features: What a frozen trunk makes of them, (N, F) float32, on the device.
    """

    examples: Examples
    targets: Tensor
    weights: Tensor
    rows: NDArray[np.int64] | None = None
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(slots=True, kw_only=True)
class Session:
    """All that one run computes with; it knows no other epoch, no file and no tracker.

    Attributes:
        sizes: How many pictures train, val and test have, before --train_samples.
        digest: Differs between runs with other pictures or targets.
    """

    config: TrainConfig
    task: Task
    labels: Labels
    network: Network
    stepper: Stepper
    preprocessing: Preprocessing
    device: torch.device
    dtype: torch.dtype
    stop: StopToken
    images: ImageCache | None
    splits: dict[str, Split]
    sizes: Mapping[str, int]
    digest: str

    @property
    def evaluation_batch(self) -> int:
        """Pictures in a batch that is not learned from."""
        return _EVALUATION_BATCHES.get(self.device.type, _EVALUATION_BATCH)

    @property
    def parameters(self) -> int:
        """How many numbers the network has, frozen ones included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def train(self, epoch: int) -> EpochOutput:
        """Learn from the training split once."""
        self.network.train()
        split, seed = self.splits["train"], self.config.seed
        order = epoch_order(len(split), self.config.batch_size, seed=seed, epoch=epoch)
        batches = Batches(len(order), self._batches(split, order, Augmentation(seed, epoch)))
        objective = self.objective(split, learn=True)
        output = run_epoch(objective, batches, f"Epoch {epoch}", self.stepper.step)
        self.stepper.end()
        return output

    def evaluate(self, name: str, title: str) -> EpochOutput:
        """Return the outputs for a whole split, in order, without learning."""
        self.stepper.ema_model.eval()
        split = self.splits[name]
        return run_epoch(self.objective(split), self.batches_in_order(split), title)

    def batches_in_order(self, split: Split) -> Batches:
        """Return the batches of a split, in order and not augmented."""
        order = epoch_order(len(split), self.evaluation_batch, seed=0, epoch=None)
        return Batches(len(order), self._batches(split, order))

    def objective(self, split: Split, *, learn: bool = False) -> Objective:
        """Return what is computed for a batch of the split."""
        network = self.network if learn else self.stepper.ema_model
        cached, dtype = split.features is not None, self.dtype
        forward = network.head if cached else lambda x: network(x, dtype)
        loss = partial(self.task.loss, config=self.config, learn=learn)
        return Objective(forward, loss, split.targets, split.weights, self.device, self.stop)

    def score(self, output: EpochOutput, name: str) -> dict[str, float]:
        """Return `{metric_split: value}` over the whole split, on the scale of the targets.

        The loss is in training variances for scores, in nats for classes.
        """
        examples = self.splits[name].examples
        loss = weighted_mean(output.losses, examples.weights)
        return {f"loss_{name}": loss, **self._metrics(examples, output.outputs, name)}

    def baseline(self, name: str) -> dict[str, float]:
        """Return the same for a network that has seen the training labels but no picture."""
        split, train = self.splits[name], self.splits["train"].examples
        outputs = self.task.baseline(train.targets, len(split), self.labels)
        losses = self.task.loss(outputs, split.targets, self.config, learn=False)
        loss = weighted_mean(losses.double().numpy(), split.examples.weights)
        return {f"loss_{name}": loss, **self._metrics(split.examples, outputs, name)}

    def state(self, *, copied: bool = False) -> dict[str, Any]:
        """Return the fields of a Checkpoint that belong to the session; see `Stepper.state`."""
        spec = self.network.input_spec
        return {
            **self.stepper.state(copied=copied),
            "threads": torch.get_num_threads(),
            "labels": dict(self.labels),
            "input": {
                "pre": self.config.pre,
                "crop_bottom": self.config.crop_bottom,
                "resize": spec.resize,
                "crop": spec.crop,
                "mean": spec.mean,
                "std": spec.std,
                "interpolation": spec.interpolation,
            },
        }

    def _metrics(self, examples: Examples, outputs: Tensor, name: str) -> dict[str, float]:
        predictions = self.task.predictions(outputs, self.labels)
        with np.errstate(all="ignore"):  # Scores of 1e200 give inf and nan.
            values = {k: fn(predictions, examples.targets) for k, fn in self.task.metrics.items()}
        return {f"{key}_{name}": value for key, value in values.items()}

    def _batches(
        self, split: Split, order: list[list[int]], augmentation: Augmentation | None = None
    ) -> Iterable[Batch]:
        if split.features is not None:
            features = split.features
            indices = (torch.tensor(batch) for batch in order)
            return ((features[to_device(i, self.device)], i) for i in indices)
        shaped = None
        if self.images is not None and split.rows is not None:
            shaped = self.images.values, split.rows
        if shaped and not (augmentation and self.preprocessing.augments):
            values, rows = shaped
            return ((torch.from_numpy(values[rows[b]]), torch.tensor(b)) for b in order)
        return load_batches(
            PictureSet(split.examples, self.preprocessing, augmentation, shaped),
            order,
            workers=choose_workers(self.config.num_workers, self.device),
            pin=self.device.type == "cuda",
            seed=self.config.seed,
        )


def open_session(
    config: TrainConfig,
    wanted: Collection[str],
    stop: StopToken,
    checkpoint: Checkpoint | None = None,
) -> Session:
    """Read the wanted splits of the data, and build the network and its optimizer.

    With a checkpoint the labels are its own, and the network waits for its weights. Raises
    Interrupted if the run was asked to end, and a DeepCnnError if something is not usable.
    """
    device = choose_device(config.device)
    seed_everything(config.seed)
    task = get_task(config.task)
    every_split = task.all_splits(config)
    task.check_splits(every_split, config, wanted)
    parts = _choose_pictures(config, {name: every_split[name] for name in wanted})
    if checkpoint:
        task.check_labels(checkpoint.labels, config)
    labels = checkpoint.labels if checkpoint else task.labels(parts["train"], config)
    network = task.network(config, labels, weights="none" if checkpoint else None)
    preprocessing = Preprocessing(config.pre, network.input_spec, config.crop_bottom)
    images, check = None, stop.raise_if_set
    if "test" not in wanted:  # The test split is looked at once, so it is not cached.
        pictures = joined(every_split["train"], every_split["val"])
        images = open_image_cache(pictures, preprocessing, config.cache_path, check)
    parts = {k: drop_unreadable(part, config, check, images) for k, part in parts.items()}
    if not checkpoint:  # Again, without the pictures that turned out to be unreadable.
        labels = task.labels(parts["train"], config)
    dtype = choose_dtype(config.amp, device)
    return Session(
        config=config,
        task=task,
        labels=labels,
        network=_place(network, config, device, dtype),
        stepper=Stepper(network, config, device, dtype),
        preprocessing=preprocessing,
        device=device,
        dtype=dtype,
        stop=stop,
        images=images,
        splits={name: _encode(task, labels, part, images) for name, part in parts.items()},
        sizes={name: len(examples) for name, examples in every_split.items()},
        digest=data_digest(*parts.values()),
    )


def _choose_pictures(config: TrainConfig, parts: dict[str, Examples]) -> dict[str, Examples]:
    """Return the splits as --train_samples and --train_on change them."""
    if config.train_samples is not None and "train" in parts:
        parts["train"] = subset(parts["train"], config.train_samples, config.seed)
    if config.train_on == "train+val" and "val" in parts:
        return {"train": joined(parts["train"], parts["val"])}
    return parts


def _place(
    network: Network, config: TrainConfig, device: torch.device, dtype: torch.dtype
) -> Network:
    """Freeze what does not train, and move the network to the device."""
    network.freeze(config.freeze)
    network.to(device)
    if dtype != torch.float32:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _encode(task: Task, labels: Labels, examples: Examples, images: ImageCache | None) -> Split:
    mean = examples.weights.mean() or 1.0
    weights = torch.from_numpy(examples.weights / mean).float()
    rows = images.rows_of(examples) if images else None
    return Split(examples, task.encode(examples.targets, labels), weights, rows)


def data_digest(*splits: Examples) -> str:
    """Return a short hash of pictures and targets."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr((split.names, split.targets.tolist())).encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]

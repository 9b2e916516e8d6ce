"""Prepare the data, the network and the optimizer of one run."""

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from reprlib import repr as repr_of

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.config import TrainConfig
from deep_cnn.data.image_cache import (
    ImageCache,
    drop_unreadable,
    open_image_cache,
    read_digests,
)
from deep_cnn.data.loading import Augmentation, PictureSet, epoch_order, load_batches
from deep_cnn.data.preprocessing import Preprocessing
from deep_cnn.data.splits import Examples, Splits, choose_pictures, joined
from deep_cnn.errors import CheckpointError, DeepCnnError
from deep_cnn.models import Network
from deep_cnn.models.own import OwnNetwork
from deep_cnn.source import Source
from deep_cnn.tasks import Labels, Task, get_task
from deep_cnn.tasks.describe_data import summarize
from deep_cnn.training import devices
from deep_cnn.training.checkpoint import Checkpoint
from deep_cnn.training.digests import dataset_of, digest_of
from deep_cnn.training.optim import Stepper
from deep_cnn.training.schedule import OwnSchedule
from deep_cnn.training.stop import StopToken

_LOGGER = logging.getLogger("deep_cnn")
# Without gradients, memory is no limit. A CPU is fastest if a batch fits its caches (measured).
_EVALUATION_BATCHES = {"cpu": 32}
_EVALUATION_BATCH = 128


@dataclass(frozen=True, slots=True)
class Split:
    """One split, ready for training.

    Attributes:
        examples: Its N pictures.
        targets: Encoded targets, (N,), on the CPU.
        weights: Weights of the losses, (N,) float32, 1 on average, on the CPU.
        shaped: The values of the image cache, (M, C, H, W) uint8, and the rows that hold the
            pictures, (N,).
        features: Their features from a frozen trunk, (N, F) float32, on the device.
    """

    examples: Examples
    targets: Tensor
    weights: Tensor
    shaped: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(slots=True, kw_only=True)
class Session:
    """Everything that one run computes with, except epochs, result files and trackers.

    Attributes:
        sizes: The numbers of pictures in train, val and test, before --train_samples.
        digest: A hash of the pictures and their targets.
        dataset: The same for all splits together, which does not depend on the splits.
        digests: Hashes of the content of the pictures that can be read, by split.
        marked: The splits that the data mark.
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
    dataset: str
    digests: Mapping[str, NDArray[np.uint64]]
    marked: frozenset[str]

    @property
    def sources(self) -> list[Source]:
        """The sources of the user's network and schedule, if any."""
        users = (self.network, self.stepper.schedule)
        return [each.source for each in users if isinstance(each, OwnNetwork | OwnSchedule)]

    @property
    def evaluation_batch(self) -> int:
        """The number of pictures in a batch for evaluation."""
        return _EVALUATION_BATCHES.get(self.device.type, _EVALUATION_BATCH)

    def order(self, split: Split) -> list[list[int]]:
        """Return the indices of each batch of a split for evaluation."""
        return epoch_order(len(split), self.evaluation_batch, seed=0, epoch=None)

    def batches(
        self,
        split: Split,
        order: list[list[int]],
        check: Callable[[], None],
        augmentation: Augmentation | None = None,
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Return the inputs, (B, ...), and the indices, (B,) int64, of each batch.

        Close the generator if it is not used up. `check` is called while batches are waited for,
        and may raise.
        """
        if split.features is not None:
            features = split.features
            indices = (torch.tensor(batch) for batch in order)
            return ((features[devices.to_device(i, self.device)], i) for i in indices)
        if split.shaped and not (augmentation and self.preprocessing.augments):
            values, rows = split.shaped
            return ((torch.from_numpy(values[rows[b]]), torch.tensor(b)) for b in order)
        return load_batches(
            PictureSet(split.examples, self.preprocessing, augmentation, split.shaped),
            order,
            workers=devices.choose_workers(self.config.num_workers, self.device),
            pin=self.device.type == "cuda",
            check=check,
        )

    def forward(self, split: Split, x: Tensor, *, learn: bool = False) -> Tensor:
        """Return (B, outputs) float32 for a batch; without `learn`, from `ema_model`."""
        network = self.network if learn else self.stepper.ema_model
        size = len(x)
        if "test" in self.splits:  # A picture has the same numbers in a batch that is not full.
            x = padded(x, self.evaluation_batch)
        outputs: Tensor = network(x, self.dtype) if split.features is None else network.head(x)
        return outputs[:size]

    def losses(self, outputs: Tensor, targets: Tensor, *, learn: bool = False) -> Tensor:
        """Return the loss of each picture, (B,), for encoded targets, (B,)."""
        return self.task.loss(outputs, targets, self.config, learn=learn)

    def restore(self, checkpoint: Checkpoint, source: object) -> None:
        """Load the checkpoint's weights; raise CheckpointError if they do not fit."""
        try:
            self.stepper.restore(checkpoint)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise CheckpointError(
                f"{source} does not fit --model={self.config.model} ({reason}); it is damaged or"
                " was changed, take another checkpoint"
            ) from error


def padded(x: Tensor, size: int) -> Tensor:
    """Return a batch, (B, ...), with zeros added up to `size`.

    The last digits of a row depend on the size of its batch, but not on the other rows.
    """
    return torch.cat([x, x.new_zeros(size - len(x), *x.shape[1:])]) if len(x) < size else x


def check_labels(
    task: Task, checkpoint: Checkpoint, config: TrainConfig, *, has_data: bool = True
) -> None:
    """Raise CheckpointError if the labels are damaged, or do not fit the data."""
    labels = checkpoint.labels
    try:
        if has_data:
            task.check_labels(labels, config)
        task.display(task.predictions(torch.zeros(1, task.outputs(labels)), labels), labels)
    except DeepCnnError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{config.test_net or config.resume} does not fit --task={config.task} (its labels are"
            f" {repr_of(labels)[:100]}); it is damaged or was changed, take another checkpoint"
        ) from error


def open_session(
    config: TrainConfig,
    wanted: Collection[str],
    stop: StopToken,
    checkpoint: Checkpoint | None = None,
) -> Session:
    """Read the requested splits of the data, and build the network and its optimizer.

    With a checkpoint, the labels are from it, and its weights are loaded later. If no split is
    requested, the session is for pictures without targets, and the data are not read. Raises
    Interrupted if the run was asked to end, and a DeepCnnError if something is not usable.
    """
    device, task = devices.choose_device(config.device), get_task(config.task)
    devices.choose_deterministic()
    if wanted:  # Before the network, whose new layers are random.
        devices.seed_everything(config.seed)
    every_split = _read_splits(task, config, wanted) if wanted else Splits()
    parts = choose_pictures(config, {name: every_split[name] for name in wanted})
    if checkpoint:
        check_labels(task, checkpoint, config, has_data=bool(wanted))
    labels = checkpoint.labels if checkpoint else task.labels(parts["train"], config)
    network = task.network(config, labels, weights="none" if checkpoint else None)
    preprocessing = Preprocessing(config.pre, network.input_spec, config.crop_bottom)
    images, digests = _read_pictures(parts, every_split, config, preprocessing, stop)
    # Again, without the pictures that turned out to be unreadable.
    labels = labels if checkpoint else task.labels(parts["train"], config)
    dtype = devices.choose_dtype(config.amp, device)
    return Session(
        config=config,
        task=task,
        labels=labels,
        network=_place(network, config.freeze, device, dtype),
        stepper=Stepper(network, config, device, dtype),
        preprocessing=preprocessing,
        device=device,
        dtype=dtype,
        stop=stop,
        images=images,
        splits={name: _encode(task, labels, part, images) for name, part in parts.items()},
        sizes={name: len(examples) for name, examples in every_split.items()},
        digest=digest_of(*parts.values()),
        dataset=dataset_of(every_split),
        digests=digests,
        marked=every_split.marked,
    )


def _read_splits(task: Task, config: TrainConfig, wanted: Collection[str]) -> Splits:
    splits = task.all_splits(config)
    _LOGGER.info(summarize(task, splits, config))
    task.check_splits(splits, config, wanted)
    return splits


def _read_pictures(
    parts: dict[str, Examples],
    every_split: Splits,
    config: TrainConfig,
    preprocessing: Preprocessing,
    stop: StopToken,
) -> tuple[ImageCache | None, dict[str, NDArray[np.uint64]]]:
    """Return the image cache and the digests of a run that trains, by split.

    Pictures that cannot be read are removed from `parts`.
    """
    images, folder, check = None, config.cache_path, stop.raise_if_set
    digests: dict[str, NDArray[np.uint64]] = {}
    if "train" in parts:  # The test split is looked at once, so it is not cached.
        both = joined(every_split["train"], every_split["val"])
        images = open_image_cache(both, preprocessing, folder, check)
        digests = {name: np.zeros(len(part), np.uint64) for name, part in parts.items()}
        digests["test"] = read_digests(every_split["test"], check)
    for name, part in parts.items():
        parts[name] = drop_unreadable(part, config, check, images, digests.get(name))
    return images, digests


def _place(
    network: Network, freeze: int | str, device: torch.device, dtype: torch.dtype
) -> Network:
    """Freeze the network as --freeze says, and move it to the device."""
    network.freeze(freeze)
    network.to(device)
    if dtype != torch.float32 and not isinstance(network, OwnNetwork):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _encode(task: Task, labels: Labels, examples: Examples, images: ImageCache | None) -> Split:
    mean = examples.weights.mean() or 1.0
    weights = torch.from_numpy(examples.weights / mean).float()
    shaped = None
    if images:
        shaped = images.values, np.array([images.rows[name] for name in examples.names])
    return Split(examples, task.encode(examples.targets, labels), weights, shaped)

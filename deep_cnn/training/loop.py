"""Run over a split in batches: train, evaluate, score, compute features of a frozen trunk."""

import hashlib
import math
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deep_cnn.data.array_cache import ArrayEntry, Notes, fingerprint, open_array
from deep_cnn.data.image_cache import CACHE_VERSION
from deep_cnn.data.loading import Augmentation, epoch_order
from deep_cnn.models.own import OwnNetwork
from deep_cnn.progress import Progress, track
from deep_cnn.training.devices import every_core, to_device
from deep_cnn.training.session import Session, Split, padded


class LossNotFinite(Exception):
    """The loss of the step `step` is not a finite number."""

    def __init__(self, loss: float, step: int) -> None:
        super().__init__(loss)
        self.loss, self.step = loss, step


@dataclass(frozen=True, slots=True)
class EpochOutput:
    """The output of one epoch over a split of N pictures, in the order of the split."""

    outputs: Tensor  # (N, outputs) float32
    losses: NDArray[np.float64]  # (N,)
    step_losses: list[float]


def batches_per_epoch(session: Session) -> int:
    """Return the number of batches of an epoch, those of its validation included."""
    train, val = session.splits["train"], session.splits.get("val")
    order = epoch_order(len(train), session.config.batch_size, seed=0, epoch=0)
    return len(order) + (len(session.order(val)) if val else 0)


def learn(session: Session, epoch: int, progress: Progress) -> EpochOutput:
    """Train on the training split once, and return the outputs before each step.

    Raises:
        LossNotFinite: The loss of a step is nan or infinite.
        Interrupted: The run was asked to end.
    """
    session.network.train()
    split, config = session.splits["train"], session.config
    order = epoch_order(len(split), config.batch_size, seed=config.seed, epoch=epoch)
    augmentation = Augmentation(config.seed, epoch)
    output = _run_epoch(session, split, order, progress, augmentation)
    session.stepper.end()
    return output


def evaluate(session: Session, name: str, progress: Progress) -> EpochOutput:
    """Return the outputs for a whole split, in order, without training; raise as `learn`."""
    session.stepper.ema_model.eval()
    split = session.splits[name]
    return _run_epoch(session, split, session.order(split), progress)


def _run_epoch(
    session: Session,
    split: Split,
    order: list[list[int]],
    progress: Progress,
    augmentation: Augmentation | None = None,
) -> EpochOutput:
    """Run once over the batches in `order`; with an augmentation, train on them.

    The loop does not wait for the device, except to display the loss twice a second.
    """
    learns, device = augmentation is not None, session.device
    targets, weights = split.targets.to(device), split.weights.to(device)
    steps: list[tuple[Tensor, ...]] = []
    mode = torch.enable_grad() if learns else torch.inference_mode()

    def check() -> None:
        session.stop.raise_if_set(len(steps))

    batches = closing(session.batches(split, order, check, augmentation))
    with mode, batches as loaded:
        for x, indices in loaded:
            check()
            rows = to_device(indices, device)
            output = session.forward(split, to_device(x, device), learn=learns)
            losses = session.losses(output, targets[rows], learn=learns)
            loss = (losses * weights[rows]).mean()
            if learns:
                session.stepper.step(loss)
            steps.append((output.detach(), losses.detach(), loss.detach(), indices))
            read = progress.is_due() or len(steps) == len(order)
            value = loss.item() if read else None
            progress.step(value)
            if value is not None and not math.isfinite(value):
                break
    outputs, each, means, indices_of = zip(*steps, strict=True)
    step_losses = torch.stack(means).tolist()
    for step, value in enumerate(step_losses):
        if not math.isfinite(value):
            raise LossNotFinite(value, step)
    back = torch.cat(indices_of).argsort()
    by_picture = torch.cat(each).cpu()[back].double().numpy()
    return EpochOutput(torch.cat(outputs).cpu()[back], by_picture, step_losses)


def score(session: Session, name: str, output: EpochOutput) -> dict[str, float]:
    """Return `{metric_split: value}` over the whole split, on the scale of the targets.

    The loss is in training variances for scores and in nats for classes. Each picture counts by
    its weight, independent of its batch.
    """
    examples, task = session.splits[name].examples, session.task
    weights = examples.weights if examples.weights.any() else None
    predictions = task.predictions(output.outputs, session.labels)
    with np.errstate(all="ignore"):  # Scores of 1e200 give inf and nan.
        values = {k: fn(predictions, examples.targets) for k, fn in task.metrics.items()}
    values = {"loss": float(np.average(output.losses, weights=weights)), **values}
    return {f"{metric}_{name}": value for metric, value in values.items()}


def baseline(session: Session, name: str) -> dict[str, float]:
    """Return the metrics of a baseline that knows the training labels but no picture."""
    split, train = session.splits[name], session.splits["train"].examples
    outputs = session.task.baseline(train.targets, len(split), session.labels)
    losses = session.losses(outputs, split.targets).double().numpy()
    return score(session, name, EpochOutput(outputs, losses, []))


def compute_features(session: Session, *names: str) -> None:
    """Replace the pictures of splits by their features, if these are the same in every epoch.

    This is so if the trunk is frozen and no augmentation precedes it. Raises Interrupted.
    """
    if not session.network.frozen or session.preprocessing.augments:
        return
    session.network.eval()
    cached = _open_cached(session)  # Once: if it fails, each split would fail again.
    for name in names:
        split = session.splits[name]
        if cached is not None and split.shaped:
            features = torch.from_numpy(cached[split.shaped[1]]).to(session.device)
        else:
            features = _compute_features(session, split, f"Features of {name}")
        session.splits[name] = replace(split, features=features)


def _compute_features(session: Session, split: Split, title: str) -> Tensor:
    order, features, check = session.order(split), [], session.stop.raise_if_set
    batches = closing(session.batches(split, order, check))
    with torch.inference_mode(), batches as loaded, Progress(title, len(order)) as progress:
        for x, _ in loaded:
            check()
            x = x.to(session.device)
            full = padded(x, session.evaluation_batch) if "test" in session.splits else x
            features.append(session.network.features(full, session.dtype)[: len(x)])
            progress.step()
    # Outside of inference mode, because autograd does not accept its tensors.
    return torch.cat(features)


def _open_cached(session: Session) -> NDArray[np.float32] | None:
    """Return the features of every picture in the image cache, computed once for all runs.

    They are (N, F), in the order of the cache; rows of unreadable pictures are zero. Returns None
    if they cannot be stored.
    """
    images, folder, network = session.images, session.config.cache_path, session.network
    if images is None or folder is None:
        return None

    def fill(values: NDArray[np.float32]) -> Notes:
        rows = [row for name, row in images.rows.items() if name not in images.unreadable]
        size = session.evaluation_batch
        batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        with torch.inference_mode(), every_core(session.config):
            for batch in track(batches, "Features, once for all", len(batches)):
                session.stop.raise_if_set()
                x = torch.from_numpy(images.values[batch]).to(session.device)
                values[batch] = network.features(x, session.dtype).cpu().numpy()
        return {}

    computed_by = f"{session.dtype} {network.input_spec} {weights_digest(network.trunk)}"
    computed_by += network.source.digest if isinstance(network, OwnNetwork) else ""
    key = fingerprint([CACHE_VERSION, images.fingerprint, computed_by])
    shape = (len(images.rows), network.width)
    entry = ArrayEntry(folder / f"features-{key}", shape, np.float32, fill)
    opened = open_array(entry, session.stop.raise_if_set)
    return opened and opened[0]


def weights_digest(module: nn.Module) -> str:
    """Return a hash of all weights and buffers of a network."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]

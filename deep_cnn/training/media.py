"""Collect what trackers show of a run besides its numbers: pictures, predictions, histograms."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.data.loading import Augmentation, PictureSet, epoch_order
from deep_cnn.data.preprocessing import thumbnail
from deep_cnn.tracking import Example, Histogram, Inputs, Validation
from deep_cnn.training.loop import EpochOutput
from deep_cnn.training.session import Session

_BINS = 64


def inputs_of(session: Session, epoch: int) -> Inputs:
    """Return the network and the first pictures of `epoch`."""
    config, split = session.config, session.splits["train"]
    pictures = PictureSet(
        split.examples, session.preprocessing, Augmentation(config.seed, epoch), split.shaped
    )

    def first_batch(count: int) -> NDArray[np.uint8]:
        order = epoch_order(len(split), config.batch_size, seed=config.seed, epoch=epoch)
        return np.stack([pictures[i] for i in order[0][:count]])

    spec = session.network.input_spec
    return Inputs(session.network, (spec.channels, spec.crop, spec.crop), first_batch)


def validation_of(session: Session, epoch: int, output: EpochOutput) -> Validation:
    """Return the predictions for the validation pictures, `output`, for display."""
    split, task, labels = session.splits["val"], session.task, session.labels
    targets = split.examples.targets
    truths = task.display(targets, labels)
    predictions = task.display(task.predictions(output.outputs, labels), labels)

    def examples(count: int) -> list[Example]:
        order = targets.argsort(kind="stable")
        ranks = sorted({round(i) for i in np.linspace(0, len(order) - 1, count)})
        chosen = []
        for i in (int(order[rank]) for rank in ranks):
            with suppress(ValueError):  # The file may be gone by now; the run does not need it.
                image = thumbnail(split.examples.pictures[i], session.config.crop_bottom)
                chosen.append(Example(image, truths[i], predictions[i], i))
        return chosen

    def features(indices: Sequence[int]) -> NDArray[np.float32]:
        size, network = session.evaluation_batch, session.stepper.ema_model
        network.eval()
        parts = [list(indices[i : i + size]) for i in range(0, len(indices), size)]
        found = []
        loading = closing(session.batches(split, parts, session.stop.raise_if_set))
        with torch.inference_mode(), loading as batches:
            for x, _ in batches:
                on_device = x.to(session.device)
                ready = split.features is not None
                found.append(on_device if ready else network.get_features(on_device, session.dtype))
        return torch.cat(found).float().cpu().numpy()

    return Validation(epoch, truths, predictions, labels.get("classes"), examples, features)


def histograms_of(session: Session) -> Mapping[str, Histogram]:
    """Return a histogram of each trainable weight, and of its gradient in the last step."""
    return dict(_histograms(session))


def _histograms(session: Session) -> Iterator[tuple[str, Histogram]]:
    for name, weight in session.network.named_parameters():
        if weight.requires_grad:
            for kind, values in (("weights", weight), ("gradients", weight.grad)):
                if values is not None and (found := _histogram(values.detach())):
                    yield f"{kind}/{name}", found


def _histogram(values: Tensor) -> Histogram | None:
    finite = values.float().flatten()
    finite = finite[finite.isfinite()]
    if not len(finite):
        return None
    low, high = finite.min().item(), finite.max().item()
    if low == high:  # Bins need a width.
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(finite, _BINS, low, high).long().tolist()
    edges = np.linspace(low, high, _BINS + 1).tolist()
    total, squares = finite.double().sum().item(), finite.double().square().sum().item()
    return Histogram(counts, edges, total, squares)

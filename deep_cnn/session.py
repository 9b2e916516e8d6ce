"""Bring the data, the network and the optimizer of one run together."""

import gc
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deep_cnn.config import TrainConfig
from deep_cnn.data.cache import Store, open_features
from deep_cnn.data.images import AUGMENTS, UNSHAPED
from deep_cnn.data.splits import Examples, epoch_order, load_batches
from deep_cnn.devices import choose_dtype, choose_workers, every_core, survives
from deep_cnn.loop import (
    Batch,
    Learner,
    Pass,
    heed,
    moved,
    run_pass,
    weighted_mean,
)
from deep_cnn.models import Network
from deep_cnn.optim import Stepper
from deep_cnn.progress import Progress
from deep_cnn.tasks import Labels, Task

# Without gradients memory is no limit; a CPU is quickest with what its caches hold (measured).
_EVALUATION_BATCHES = {"cpu": 32}
_EVALUATION_BATCH = 128


@dataclass(slots=True)
class Split:
    """One split, ready to learn from: encoded targets, and features where the trunk is frozen.

    `rows` say where in the store its pictures are.
    """

    examples: Examples
    targets: Tensor  # (N,)
    weights: Tensor  # (N,) float32, 1 on average
    features: Tensor | None = None  # (N, F) float32, on the device
    rows: NDArray[np.int64] | None = None  # (N,)


class Session:
    """All that one run computes with; it knows no other epoch, no file and no tracker."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        labels: Labels,
        network: Network,
        device: torch.device,
        check: Callable[[], int | None],
        store: Store | None = None,
    ) -> None:
        self.config, self.task, self.labels, self.device = config, task, labels, device
        self.check, self.store = check, store
        network.freeze(config.freeze)
        self.network = network.to(device)
        self.dtype = choose_dtype(config.amp, device)
        if self.dtype != torch.float32:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features_once = network.frozen and config.pre not in AUGMENTS
        self.kept_features: NDArray[np.float32] | None = None
        self.opened = False
        self.evaluation_batch = _EVALUATION_BATCHES.get(device.type, _EVALUATION_BATCH)
        self.stepper = Stepper(self.network, config, device, self.dtype)

    def split(self, examples: Examples) -> Split:
        """`examples` with their targets encoded."""
        mean = examples.weights.mean() or 1.0
        weights = torch.from_numpy(examples.weights / mean).float()
        rows = self.store.rows_of(examples) if self.store else None
        return Split(examples, self.task.encode(examples.targets, self.labels), weights, None, rows)

    def train(self, split: Split, epoch: int) -> Pass:
        """One epoch of learning."""
        self.network.train()
        order = epoch_order(
            len(split.examples), self.config.batch_size, seed=self.config.seed, epoch=epoch
        )
        batches = self._batches(split, order, epoch=epoch, augment=True)
        learned = self._pass(split, batches, f"Epoch {epoch}", len(order), learn=True)
        self.stepper.end()
        return learned

    def evaluate(self, split: Split, title: str) -> Pass:
        """Answers for the whole split, in order, without learning."""
        self.stepper.averaged.eval()
        order = epoch_order(len(split.examples), self.evaluation_batch, seed=0, epoch=None)
        return self._pass(split, self._batches(split, order), title, len(order))

    def prepare_features(self, split: Split, title: str) -> None:
        """Run a frozen trunk once over the split, where nothing random comes before it."""
        if not self.features_once:
            return
        self.network.eval()
        if not self.opened:  # Once: what cannot be kept now is not computed for all again.
            self.kept_features, self.opened = self._open_features(), True
        if self.kept_features is not None and split.rows is not None:
            split.features = torch.from_numpy(self.kept_features[split.rows]).to(self.device)
            return
        order = epoch_order(len(split.examples), self.evaluation_batch, seed=0, epoch=None)
        found = []
        with torch.inference_mode(), Progress(title, len(order)) as progress:
            for x, _ in self._batches(split, order):
                heed(self.check)
                found.append(self.network.features(x.to(self.device), self.dtype))
                progress.step()
        split.features = torch.cat(found).clone()

    def _open_features(self) -> NDArray[np.float32] | None:
        """The features of every picture in the store, computed once for all runs."""
        store = self.store
        if store is None:
            return None
        trunk = self.network.trunk
        key = f"{self.dtype} {self.network.form} {_digest(trunk)}"

        def compute(rows: Sequence[int]) -> NDArray[np.float32]:
            x = torch.from_numpy(store.values[list(rows)]).to(self.device)
            found = []
            with torch.inference_mode(), every_core():
                for part in torch.split(x, self.evaluation_batch):
                    heed(self.check)
                    found.append(self.network.features(part, self.dtype))
            return torch.cat(found).cpu().numpy()

        folder, count = self.config.cache_path, self.network.width
        return open_features(store, key, count, folder, compute, partial(heed, self.check))

    def score(self, split: Split, answers: Pass, name: str) -> dict[str, float]:
        """`{metric_name: value}`, over the whole split, on the original scale but for the loss."""
        loss = weighted_mean(answers.losses, split.examples.weights)
        return {f"loss_{name}": loss, **self._metrics(split, answers.outputs, name)}

    def baseline(self, train: Split, split: Split, name: str) -> dict[str, float]:
        """The same numbers for a network that has seen the training labels but no picture."""
        count = len(split.examples)
        outputs = self.task.baseline(train.examples.targets, count, self.labels)
        losses = self._loss(outputs, split.targets).double().numpy()
        loss = weighted_mean(losses, split.examples.weights)
        return {f"loss_{name}": loss, **self._metrics(split, outputs, name)}

    @property
    def parameters(self) -> int:
        """How many numbers the network has, frozen ones included."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def state(self, *, copied: bool = False) -> dict[str, Any]:
        """What of this session a checkpoint keeps; `copied`, it no longer changes with it."""
        form = self.network.form
        return {
            **self.stepper.state(copied=copied),
            "threads": torch.get_num_threads(),
            "labels": dict(self.labels),
            "input": {
                "pre": self.config.pre,
                "crop_bottom": self.config.crop_bottom,
                "resize": form.resize,
                "crop": form.crop,
                "mean": form.mean,
                "std": form.std,
                "interpolation": form.interpolation,
            },
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.stepper.restore(content)

    def _metrics(self, split: Split, outputs: Tensor, name: str) -> dict[str, float]:
        predictions = self.task.predictions(outputs, self.labels)
        targets = split.examples.targets
        with np.errstate(all="ignore"):  # Scores of 1e200 are told as inf and nan.
            found = {key: fn(predictions, targets) for key, fn in self.task.metrics.items()}
        return {f"{key}_{name}": value for key, value in found.items()}

    def _batches(
        self, split: Split, order: list[list[int]], *, epoch: int = 0, augment: bool = False
    ) -> Iterable[Batch]:
        if split.features is not None:
            features = split.features
            indices = (torch.tensor(batch) for batch in order)
            return ((features[moved(i, self.device)], i) for i in indices)
        pre, shaped = self.config.pre, None
        if self.store is not None and split.rows is not None:
            shaped = self.store.values, split.rows
        if shaped and not (augment and pre in AUGMENTS):
            return self._from_store(*shaped, order)
        return load_batches(
            split.examples,
            order,
            pre=pre,
            form=self.network.form,
            augment=augment,
            seed=self.config.seed,
            epoch=epoch,
            workers=choose_workers(self.config.num_workers, self.device),
            pin=self.device.type == "cuda",
            crop_bottom=self.config.crop_bottom,
            shaped=None if pre in UNSHAPED else shaped,
        )

    def _from_store(
        self, values: NDArray[np.uint8], rows: NDArray[np.int64], order: list[list[int]]
    ) -> Iterable[Batch]:
        for batch in order:
            yield torch.from_numpy(values[rows[batch]]), torch.tensor(batch)

    def fits(self, count: int, *, cached: bool) -> bool:
        """Whether a step with `count` pictures (or cached features) fits into memory; it learns."""
        attempt = partial(self._attempt, count, cached=cached)
        return survives(attempt) if self.device.type == "cpu" else attempt()

    def _attempt(self, count: int, *, cached: bool) -> bool:
        form, width = self.network.form, self.network.width
        learner = self._learner(cached=cached, learn=True)
        # What a failed step left: autograd's queue holds its tensors until the next backward pass.
        torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
        self.stepper.forget_step()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            shape = (count, form.channels, form.crop, form.crop)
            x = torch.zeros(count, width) if cached else torch.zeros(shape, dtype=torch.uint8)
            encoded = self.task.encode(np.zeros(count, dtype=np.int64), self.labels)
            answers = learner.answer(x.to(self.device))
            self.stepper.step(learner.loss(answers, encoded.to(self.device)).mean())
        except (MemoryError, RuntimeError):
            return False
        return True

    def _loss(self, outputs: Tensor, encoded: Tensor, *, learn: bool = False) -> Tensor:
        return self.task.loss(outputs, encoded, self.config.options, learn=learn)

    def _learner(self, *, cached: bool, learn: bool) -> Learner:
        network, dtype = self.network if learn else self.stepper.averaged, self.dtype
        answer = network.head if cached else lambda x: network(x, dtype)
        return Learner(answer, partial(self._loss, learn=learn), self.device, self.check)

    def _pass(
        self,
        split: Split,
        batches: Iterable[Batch],
        title: str,
        count: int,
        *,
        learn: bool = False,
    ) -> Pass:
        return run_pass(
            self._learner(cached=split.features is not None, learn=learn),
            batches,
            split.targets,
            split.weights,
            title=title,
            count=count,
            step=self.stepper.step if learn else None,
        )


def _digest(module: nn.Module) -> str:
    """A hash of every number of a network."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]


def data_digest(*splits: Examples) -> str:
    """Which pictures and targets these are: a short hash."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr((split.names, split.targets.tolist())).encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]

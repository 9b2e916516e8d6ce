"""Define a task: its pictures, their targets, and how outputs are scored."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deep_cnn import metrics
from deep_cnn.bootstrap import Statistic
from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import SPLITS, Examples, Splits, assign_splits
from deep_cnn.errors import CheckpointError, DataError
from deep_cnn.models import Network, build_backbone, preprocessing_spec
from deep_cnn.models.own import build_own
from deep_cnn.names import IMAGENET, InputSpec
from deep_cnn.options import is_code

Labels = Mapping[str, Any]


class Task(ABC):
    """One way to learn from pictures.

    A task holds no data of a run. `Labels` is a mapping of plain values with all that is needed
    to use a trained network (a scale, the class names); the checkpoint stores it.
    """

    metrics: ClassVar[Mapping[str, metrics.Metric]]
    # The pictures that a network of the user expects, unless its class says it.
    input_spec: ClassVar[InputSpec] = IMAGENET

    @abstractmethod
    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return every picture with the split that the data mark, if any; raise DataError.

        This opens no picture.
        """

    @abstractmethod
    def labels(self, train: Examples, config: TrainConfig) -> Labels:
        """Return the labels of the training split; raise DataError if nothing can be learned."""

    @abstractmethod
    def encode(self, targets: NDArray[Any], labels: Labels) -> Tensor:
        """Return (N,) targets in the form that the loss expects."""

    @abstractmethod
    def predictions(self, outputs: Tensor, labels: Labels) -> NDArray[np.float64]:
        """Return (N, outputs) of the network on the targets' scale, as the metrics expect."""

    @abstractmethod
    def loss(self, outputs: Tensor, encoded: Tensor, config: TrainConfig, *, learn: bool) -> Tensor:
        """Return the loss of each picture, (N,); `learn` is True in training."""

    @abstractmethod
    def outputs(self, labels: Labels) -> int:
        """Return the number of outputs of the network."""

    @abstractmethod
    def baseline(self, train: NDArray[Any], count: int, labels: Labels) -> Tensor:
        """Return (count, outputs) of a baseline that knows the training labels but no picture."""

    @abstractmethod
    def display(self, predictions: NDArray[Any], labels: Labels) -> list[Any]:
        """Return predictions for display: scores or class names, (N,)."""

    def left_out(self, config: TrainConfig) -> Mapping[str, int] | None:
        """Return how much of the data is left out, by reason; None if the log says it already."""
        return {}

    def notes(self, config: TrainConfig) -> Iterable[str]:
        """Return lines about the targets for the log and --dry_run; raise DataError."""
        return ()

    def check_labels(self, labels: Labels, config: TrainConfig) -> None:  # noqa: B027
        """Raise CheckpointError if a checkpoint with these labels does not fit the data."""

    def extra_metrics(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """Return more metrics of the test split, `{metric_test: value}`; raise DataError."""
        return {}

    def extra_statistics(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, Statistic]:
        """Return those of `extra_metrics` that have a bootstrap interval, by the same names."""
        return {}

    def network(self, config: TrainConfig, labels: Labels, weights: str | None = None) -> Network:
        """Return the network for this configuration; `weights` overrides --weights."""
        if is_code(config.model):
            spec = preprocessing_spec(config.pre, config.model)
            source = weights or config.weights
            return build_own(config.model, self.outputs(labels), self.input_spec, spec, source)
        source, hidden = weights or config.weights, config.options.get("hidden")
        backbone = build_backbone(
            config.model, source, config.weights, dropout=config.dropout, hidden=hidden
        )
        spec = preprocessing_spec(config.pre, config.model)
        return Network(backbone, self.outputs(labels), config.dropout, spec)

    def check_splits(
        self, splits: Mapping[str, Examples], config: TrainConfig, wanted: Collection[str]
    ) -> None:
        """Raise DataError if one of the wanted splits has too few pictures."""
        grouped = config.options.get("group", "none") != "none"
        train = splits["train"]
        if "train" in wanted and len(train) and not train.weights.any():
            raise DataError(f"{config.data_path}: every weight in train is 0; nothing is learned")
        for name, least in (("train", 2), ("val", 1), ("test", 1)):
            # Users of --group learn before training that no group is left for the test.
            needed = name in wanted or (name == "test" and grouped and config.test_split > 0)
            if needed and len(splits[name]) < least:
                count = sum(len(examples) for examples in splits.values())
                way = "change --val_split or --test_split, or use --group=none"
                raise DataError(
                    f"--data_dir={config.data_path}: the {name} split has {len(splits[name])} of"
                    f" {count} pictures, {least} at least are needed;"
                    f" {way if grouped else 'add pictures'}"
                )

    def all_splits(self, config: TrainConfig) -> Splits:
        """Return train, val and test, even if empty; raise DataError if marks split a group."""
        examples, marks = self.all_examples(config)
        keys = examples.keys or examples.names
        val, test = config.val_split, config.test_split
        splits = assign_splits(keys, marks, val_split=val, test_split=test, seed=config.seed)
        home: dict[str, str] = {}
        for key, split in zip(keys, splits, strict=True):
            if home.setdefault(key, split) != split:
                raise DataError(
                    f"{config.data_path}: the column split puts {key} into {home[key]} and {split};"
                    " mark all of its pictures alike, or use --group=none"
                )
        parts = Splits(
            (name, examples.take([i for i, split in enumerate(splits) if split == name]))
            for name in SPLITS
        )
        parts.marked = frozenset(mark for mark in marks if mark)
        return parts


class Regression(Task):
    """A task with a score per picture, standardised by the training split; MSE or Huber loss."""

    metrics = metrics.REGRESSION

    def labels(self, train: Examples, config: TrainConfig) -> Labels:
        """Return mean and standard deviation of the training scores, which must not be constant."""
        mean, std = metrics.mean_and_std(train.targets.astype(np.float64))
        if train.targets.min() == train.targets.max() or std == 0:
            raise DataError(
                f"--data_dir={config.data_path}: all {len(train)} training scores are {mean:g};"
                " there is nothing to learn, check the file or --study"
            )
        return {"mean": mean, "std": std}

    def encode(self, targets: NDArray[Any], labels: Labels) -> Tensor:
        """Return (N,) float32 scores, standardised by the training mean and standard deviation."""
        mean, std = labels["mean"], labels["std"]
        if std > metrics.HUGE:  # Differences may be infinite.
            return torch.from_numpy(targets / std - mean / std).float()
        return torch.from_numpy((targets - mean) / std).float()

    def predictions(self, outputs: Tensor, labels: Labels) -> NDArray[np.float64]:
        """Return (N, 1) outputs as (N,) scores on the original scale."""
        scores: NDArray[np.float64] = outputs.squeeze(1).double().cpu().numpy()
        with np.errstate(over="ignore"):  # Scores of 1e308 give inf.
            return scores * float(labels["std"]) + float(labels["mean"])

    def loss(self, outputs: Tensor, encoded: Tensor, config: TrainConfig, *, learn: bool) -> Tensor:
        """Return the squared error of each standardised score, or its Huber loss with delta 1."""
        loss = functional.huber_loss if config.options["loss"] == "huber" else functional.mse_loss
        return loss(outputs.squeeze(1), encoded, reduction="none")

    def outputs(self, labels: Labels) -> int:
        """Return 1: the score."""
        return 1

    def baseline(self, train: NDArray[Any], count: int, labels: Labels) -> Tensor:
        """Return the standardised training mean for every picture: zeros, (count, 1)."""
        return torch.zeros(count, 1)

    def display(self, predictions: NDArray[Any], labels: Labels) -> list[Any]:
        """Return the scores."""
        return [float(score) for score in predictions]


class Classification(Task):
    """A task with one class per picture; cross-entropy loss."""

    metrics = metrics.CLASSIFICATION

    @abstractmethod
    def classes(self, config: TrainConfig) -> list[str]:
        """Return the names of the classes, in the order of the targets."""

    def labels(self, train: Examples, config: TrainConfig) -> Labels:
        """Return the class names."""
        return {"classes": self.classes(config)}

    def check_labels(self, labels: Labels, config: TrainConfig) -> None:
        """Raise CheckpointError if the classes of the data are not those of the checkpoint."""
        expected, classes = list(labels["classes"]), self.classes(config)
        if expected != classes:
            raise CheckpointError(
                f"the checkpoint has {len(expected)} outputs, {config.data_path} needs"
                f" {len(classes)} or has classes of other names; take the data that it was trained"
                " on, or begin a new run with --weights=CHECKPOINT"
            )

    def encode(self, targets: NDArray[Any], labels: Labels) -> Tensor:
        """Return (N,) classes, int64."""
        return torch.from_numpy(targets).long()

    def predictions(self, outputs: Tensor, labels: Labels) -> NDArray[np.float64]:
        """Return (N, C) scores of the classes."""
        scores: NDArray[Any] = outputs.cpu().numpy()  # Of a million pictures, double is too much.
        return scores

    def loss(self, outputs: Tensor, encoded: Tensor, config: TrainConfig, *, learn: bool) -> Tensor:
        """Return the cross-entropy of each picture, in nats; in training with --label_smoothing."""
        smoothing = config.options["label_smoothing"] if learn else 0.0
        return functional.cross_entropy(
            outputs, encoded, reduction="none", label_smoothing=smoothing
        )

    def outputs(self, labels: Labels) -> int:
        """Return the number of classes."""
        return len(labels["classes"])

    def baseline(self, train: NDArray[Any], count: int, labels: Labels) -> Tensor:
        """Return the log frequency of each training class, counting one extra picture for each."""
        # Without the extra picture, a class that is only in validation would have an infinite loss.
        counts = np.bincount(train, minlength=self.outputs(labels)) + 1.0
        return torch.from_numpy(np.log(counts / counts.sum())).float().repeat(count, 1)

    def display(self, predictions: NDArray[Any], labels: Labels) -> list[Any]:
        """Return the class names: the best ones for (N, C) scores, or those of (N,) indices."""
        indices = predictions.argmax(1) if predictions.ndim == 2 else predictions
        return [labels["classes"][int(i)] for i in indices]

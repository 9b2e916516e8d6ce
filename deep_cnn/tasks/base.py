"""What a task is: the pictures, what is to be learned of each, and how an answer is scored."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deep_cnn import metrics
from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import SPLITS, Examples, assign_splits
from deep_cnn.errors import CheckpointError, DataError
from deep_cnn.models import Network, build_network, preprocessing_format

Labels = Mapping[str, Any]


class Task(ABC):
    """One way to learn from pictures.

    A task owns no data of a run. What must be known about the labels to use a trained network (a
    scale, the class names) is a mapping of plain values, `Labels`, that the checkpoint keeps.
    """

    metrics: ClassVar[Mapping[str, metrics.Metric]]

    @abstractmethod
    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Every picture, and the split that the data mark it with; opens no picture. DataError."""

    @abstractmethod
    def labels(self, train: Examples, config: TrainConfig) -> Labels:
        """What the training split says about the labels; DataError if there is nothing to learn."""

    @abstractmethod
    def encode(self, targets: NDArray[Any], labels: Labels) -> Tensor:
        """(N,) targets as the loss wants them."""

    @abstractmethod
    def predictions(self, outputs: Tensor, labels: Labels) -> NDArray[np.float64]:
        """(N, outputs) of the network as the metrics want them, on the original scale."""

    @abstractmethod
    def loss(
        self, outputs: Tensor, encoded: Tensor, options: Mapping[str, Any], *, learn: bool
    ) -> Tensor:
        """The loss of each picture, (N,); `options` are the task's, `learn` while training."""

    @abstractmethod
    def outputs(self, labels: Labels) -> int:
        """How many outputs the network needs."""

    @abstractmethod
    def baseline(self, train: NDArray[Any], count: int, labels: Labels) -> Tensor:
        """(count, outputs) as of a network that saw the training labels but no picture."""

    @abstractmethod
    def shown(self, predictions: NDArray[Any], labels: Labels) -> list[Any]:
        """Predictions as a person reads them: scores or class names, (N,)."""

    @abstractmethod
    def check_labels(self, labels: Labels, config: TrainConfig) -> None:
        """Raise CheckpointError where a checkpoint with these labels does not fit the data."""

    def judge(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """More numbers for the test split, `{metric_test: value}`; DataError."""
        return {}

    def network(self, config: TrainConfig, labels: Labels, weights: str | None = None) -> Network:
        """The network for this configuration; `weights` overrides --weights."""
        return build_network(
            config.model,
            self.outputs(labels),
            weights=weights or config.weights,
            dropout=config.dropout,
            form=preprocessing_format(config.pre, config.model),
        )

    def splits(self, config: TrainConfig, wanted: Collection[str]) -> dict[str, Examples]:
        """The wanted ones of train, val and test. DataError where one of them has too little."""
        found = self.all_splits(config)
        self.check_splits(found, config, wanted)
        return {name: found[name] for name in wanted}

    def check_splits(
        self, found: Mapping[str, Examples], config: TrainConfig, wanted: Collection[str]
    ) -> None:
        """DataError where the wanted ones of train, val and test have too little to go on with."""
        grouped = config.options.get("group", "none") != "none"
        if "train" in wanted and len(found["train"]) and not found["train"].weights.any():
            raise DataError(f"{config.data_path}: every weight in train is 0; nothing is learned")
        for name, least in (("train", 2), ("val", 1), ("test", 1)):
            # Who keeps groups together learns before the training that none is left for the test.
            needed = name in wanted or (name == "test" and grouped and config.test_split > 0)
            if needed and len(found[name]) < least:
                count = sum(len(examples) for examples in found.values())
                way = "change --val_split or --test_split, or use --group=none"
                raise DataError(
                    f"--data_dir={config.data_path}: the {name} split has {len(found[name])} of"
                    f" {count} pictures, {least} at least are needed;"
                    f" {way if grouped else 'add pictures'}"
                )

    def all_splits(self, config: TrainConfig) -> dict[str, Examples]:
        """train, val and test, whatever is in them. DataError where marks part a group."""
        examples, marks = self.all_examples(config)
        keys = examples.keys or examples.names
        splits = assign_splits(
            keys,
            marks,
            val_split=config.val_split,
            test_split=config.test_split,
            seed=config.seed,
        )
        home: dict[str, str] = {}
        for key, split in zip(keys, splits, strict=True):
            if home.setdefault(key, split) != split:
                raise DataError(
                    f"{config.data_path}: the column split puts {key} into {home[key]} and {split};"
                    " mark all of its pictures alike, or use --group=none"
                )
        return {
            name: examples.take([i for i, split in enumerate(splits) if split == name])
            for name in SPLITS
        }


class Regression(Task):
    """A score for each picture, standardised by the training split; squared error or Huber's."""

    metrics = metrics.REGRESSION

    def labels(self, train: Examples, config: TrainConfig) -> Labels:
        """Mean and standard deviation of the training scores; DataError where all are equal."""
        mean, std = float(train.targets.mean()), float(train.targets.std())
        if np.ptp(train.targets) == 0 or std == 0:
            raise DataError(
                f"--data_dir={config.data_path}: all {len(train)} training scores are {mean:g};"
                " there is nothing to learn, check the file or --study"
            )
        return {"mean": mean, "std": std}

    def check_labels(self, labels: Labels, config: TrainConfig) -> None:
        """Any score fits: new ones are scaled as the old ones were."""

    def encode(self, targets: NDArray[Any], labels: Labels) -> Tensor:
        """(N,) scores in training standard deviations from the training mean, float32."""
        return torch.from_numpy((targets - labels["mean"]) / labels["std"]).float()

    def predictions(self, outputs: Tensor, labels: Labels) -> NDArray[np.float64]:
        """(N, 1) outputs as (N,) scores on the original scale."""
        scores: NDArray[np.float64] = outputs.squeeze(1).double().cpu().numpy()
        return scores * float(labels["std"]) + float(labels["mean"])

    def loss(
        self, outputs: Tensor, encoded: Tensor, options: Mapping[str, Any], *, learn: bool
    ) -> Tensor:
        """Squared error of each picture, in training variances; or Huber's loss, delta 1."""
        loss = functional.huber_loss if options["loss"] == "huber" else functional.mse_loss
        return loss(outputs.squeeze(1), encoded, reduction="none")

    def outputs(self, labels: Labels) -> int:
        """One, the score."""
        return 1

    def baseline(self, train: NDArray[Any], count: int, labels: Labels) -> Tensor:
        """The training mean for every picture."""
        return torch.zeros(count, 1)

    def shown(self, predictions: NDArray[Any], labels: Labels) -> list[Any]:
        """The scores."""
        return [float(score) for score in predictions]


class Classification(Task):
    """One class for each picture; cross-entropy."""

    metrics = metrics.CLASSIFICATION

    @abstractmethod
    def classes(self, config: TrainConfig) -> list[str]:
        """The names of the classes, in the order of the targets."""

    def labels(self, train: Examples, config: TrainConfig) -> Labels:
        """The class names."""
        return {"classes": self.classes(config)}

    def check_labels(self, labels: Labels, config: TrainConfig) -> None:
        """Raise CheckpointError where the data have other classes than the checkpoint."""
        known, there = list(labels["classes"]), self.classes(config)
        if known != there:
            raise CheckpointError(
                f"the checkpoint has {len(known)} outputs, {config.data_path} needs {len(there)} or"
                " has classes of other names; take the data that it was trained on, or begin a new"
                " run with --weights=CHECKPOINT"
            )

    def encode(self, targets: NDArray[Any], labels: Labels) -> Tensor:
        """(N,) classes, int64."""
        return torch.from_numpy(targets).long()

    def predictions(self, outputs: Tensor, labels: Labels) -> NDArray[np.float64]:
        """(N, C) scores of the classes."""
        scores: NDArray[Any] = outputs.cpu().numpy()  # Of a million pictures, double is too much.
        return scores

    def loss(
        self, outputs: Tensor, encoded: Tensor, options: Mapping[str, Any], *, learn: bool
    ) -> Tensor:
        """Cross-entropy of each picture, in nats; while training with --label_smoothing."""
        smoothing = options["label_smoothing"] if learn else 0.0
        return functional.cross_entropy(
            outputs, encoded, reduction="none", label_smoothing=smoothing
        )

    def outputs(self, labels: Labels) -> int:
        """One for each class."""
        return len(labels["classes"])

    def baseline(self, train: NDArray[Any], count: int, labels: Labels) -> Tensor:
        """The log of how often each class is in training, with one more picture for each."""
        counts = np.bincount(train, minlength=self.outputs(labels)) + 1.0
        return torch.from_numpy(np.log(counts / counts.sum())).float().repeat(count, 1)

    def shown(self, predictions: NDArray[Any], labels: Labels) -> list[Any]:
        """The class names; (N, C) scores give the best one, (N,) indices their own."""
        indices = predictions.argmax(1) if predictions.ndim == 2 else predictions
        return [labels["classes"][int(i)] for i in indices]

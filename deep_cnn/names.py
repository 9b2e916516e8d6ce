"""List the legal names as data, so that the command line can check them without importing torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """A flag that belongs to one task: its default (which also gives its type) and its help."""

    default: str | int | float | bool
    help: str
    low: float = -math.inf


@dataclass(frozen=True, slots=True)
class TaskNames:
    """What the command line knows of a task; the file `deep_cnn/tasks/<name>.py` does the rest."""

    summary: str
    metrics: tuple[str, ...]
    watch: str = "loss_val"
    goal: str = "minimize"
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


REGRESSION_METRICS = ("mae", "rmse", "r2", "pearson", "spearman", "kendall")
CLASSIFICATION_METRICS = ("precision@1", "precision@5")

TASKS: Mapping[str, TaskNames] = MappingProxyType(
    {
        "perception": TaskNames(
            "a score for a picture, from scores.csv beside the pictures",
            REGRESSION_METRICS,
            options={"study": Option("score", "column of scores.csv to learn")},
        ),
        "folders": TaskNames(
            "a class for a picture, from train/<class>/ and val/<class>/",
            CLASSIFICATION_METRICS,
            options={"keep": Option("auto", "file of the classes to keep; auto: keep.txt; none")},
        ),
        "digits": TaskNames(
            "scikit-learn's handwritten digits, 28x28x1, for a LeNet",
            CLASSIFICATION_METRICS,
            options={"hidden": Option(120, "units in the hidden layer of LeNet", low=1)},
            defaults={
                "model": "lenet",
                "weights": "none",
                "optimizer": "sgd",
                "lr": 0.01,
                "batch_size": 64,
                "dropout": 0.5,
                "epochs": 5,
            },
        ),
    }
)

MODELS = (
    "efficientnet_lite0",
    "lenet",
    "mobilenet_v3_small",
    "resnet101",
    "resnet18",
    "resnet50",
)
NOT_PRETRAINED = ("lenet",)
PREPROCESSING = ("default", "resnet", "squash", "augment")
OPTIMIZERS = ("adam", "adamw", "sgd")
CACHE = ("auto", "off")
TRAIN_ON = ("train", "train+val")
SCHEDULES = ("constant", "hyperbolic", "step", "cosine")
FREEZE = ("none", "trunk")
AMP = ("auto", "bf16", "off")
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class InputFormat:
    """How a network wants its pictures.

    The shorter side is resized to `resize` pixels, the middle `crop` x `crop` pixels are kept, and
    values in [0, 1] are normalised to (value - mean) / std, one number for each of `channels`.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.mean)


IMAGENET = InputFormat(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

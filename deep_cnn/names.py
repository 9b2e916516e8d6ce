"""List the legal names as data, so that the command line can check them without importing torch."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from deep_cnn.errors import choose_from
from deep_cnn.options import OptionModel, is_code, option

# The studies of Place Pulse 2.0 with their common names, the released name first.
STUDIES: Mapping[str, tuple[str, ...]] = {
    "50a68a51fdc9f05596000002": ("safer", "safe", "safety"),
    "50f62c41a84ea7c5fdd2e454": ("livelier", "lively"),
    "50f62c68a84ea7c5fdd2e456": ("more boring", "boring"),
    "50f62cb7a84ea7c5fdd2e458": ("wealthier", "wealthy", "wealth"),
    "50f62ccfa84ea7c5fdd2e459": ("more depressing", "depressing"),
    "5217c351ad93a7d3e7b07a64": ("more beautiful", "beautiful", "beauty"),
}
REGRESSION_METRICS = ("mae", "rmse", "r2", "pearson", "spearman", "kendall")
CLASSIFICATION_METRICS = ("accuracy", "precision@1", "precision@5")
# Higher values of these metrics are better; for all others, lower values are better.
MORE_IS_BETTER = (
    "r2", "pearson", "spearman", "kendall", *CLASSIFICATION_METRICS, "pairwise",
)  # fmt: skip


class TaskOptions(OptionModel):
    """The options of a task, and other facts that the command line needs without torch.

    The task itself is in `deep_cnn/tasks/<name>.py`.

    Attributes:
        summary: One line for `-h`.
        metrics: The metrics that are logged in addition to the loss.
        watch: The metric that determines the best epoch.
        defaults: Default values that the task changes, by option.
        reads_folder: Whether the pictures are in data_dir.
    """

    summary: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    watch: ClassVar[str] = "loss_val"
    defaults: ClassVar[Mapping[str, str | float]] = {}
    reads_folder: ClassVar[bool] = True


class RegressionOptions(TaskOptions):
    """Options of every task that learns a score."""

    metrics = REGRESSION_METRICS
    loss: str = option(
        "mse",
        "loss of standardised scores; huber: Huber loss with delta 1",
        choices=("mse", "huber"),
    )


class ClassificationOptions(TaskOptions):
    """Options of every task that learns a class."""

    metrics = CLASSIFICATION_METRICS
    label_smoothing: float = option(
        0.0,
        "label smoothing of the training loss",
        low=0,
        high=1,
        open_high=True,
    )


class PerceptionOptions(RegressionOptions):
    """Options of the task perception."""

    summary = "a score for each picture, from scores.csv or Place Pulse 2.0"
    study: str = option(
        "score", "name of the score: a column, or study of Place Pulse (safer by default)"
    )
    group: str = option(
        "none", "city: put all pictures of a city into the same split", choices=("none", "city")
    )
    scores: str | None = option(
        None, "table of scores, in data_dir or elsewhere; None: scores.csv or qscores.tsv"
    )
    image_column: str | None = option(None, "its column with the pictures; None: image")
    score_column: str | None = option(None, "its column with the scores; None: that of --study")
    rater_column: str | None = option(
        None, "its column with the raters, if it has one row per rating; the mean is learned"
    )
    weighting: str = option(
        "none",
        "weights in the loss; sigma: 1/sigma^2 of Place Pulse; votes: number of votes or ratings",
        choices=("none", "sigma", "votes"),
    )
    min_votes: int = option(0, "Place Pulse: leave out pictures with fewer votes", low=0)
    no_imagery: str = option(
        "drop", "Place Pulse: what to do with 'no imagery' tiles", choices=("drop", "keep")
    )


class FoldersOptions(ClassificationOptions):
    """Options of the task folders."""

    summary = "a class for each picture, from folders train/<class>/, val/<class>/ or <class>/"
    test_folder: str = option(
        "val", "folder with the test split; test, if there is one, takes precedence over val"
    )
    keep: str = option(
        "auto", "file that lists the classes to use; auto: keep.txt if it exists; none: all classes"
    )


class DigitsOptions(ClassificationOptions):
    """Options of the task digits."""

    summary = "scikit-learn's handwritten digits, resized to 28x28"
    defaults = {  # noqa: RUF012 - a class variable by its base.
        "model": "lenet", "weights": "none", "optimizer": "sgd", "lr": 0.01, "batch_size": 64,
        "dropout": 0.5, "epochs": 5,
    }  # fmt: skip
    reads_folder = False
    hidden: int = option(500, "number of units in the hidden layer of LeNet", low=1)


class MnistOptions(DigitsOptions):
    """Options of the task mnist."""

    summary = "MNIST's handwritten digits, from its IDX files"
    defaults = {  # noqa: RUF012 - a class variable by its base.
        **DigitsOptions.defaults, "data_dir": "mnist", "lr": 0.1, "batch_size": 128,
        "dropout": 0.25, "epochs": 10,
    }  # fmt: skip
    reads_folder = True


TASKS: Mapping[str, type[TaskOptions]] = {
    "perception": PerceptionOptions,
    "folders": FoldersOptions,
    "digits": DigitsOptions,
    "mnist": MnistOptions,
}

# Every network, with its number of stages for --freeze.
MODELS: Mapping[str, int] = {
    "alexnet": 7, "convnext_base": 8, "convnext_large": 8, "convnext_small": 8, "convnext_tiny": 8,
    "densenet121": 8, "densenet161": 8, "densenet169": 8, "densenet201": 8, "efficientnet_b0": 9,
    "efficientnet_b1": 9, "efficientnet_b2": 9, "efficientnet_b3": 9, "efficientnet_b4": 9,
    "efficientnet_b5": 9, "efficientnet_b6": 9, "efficientnet_b7": 9, "efficientnet_lite0": 18,
    "efficientnet_v2_l": 9, "efficientnet_v2_m": 9, "efficientnet_v2_s": 8, "googlenet": 12,
    "inception_v3": 16, "lenet": 3, "maxvit_t": 6, "mnasnet0_5": 10, "mnasnet0_75": 10,
    "mnasnet1_0": 10, "mnasnet1_3": 10, "mnistnet": 4, "mobilenet_v2": 19, "mobilenet_v3_large": 18,
    "mobilenet_v3_small": 14, "regnet_x_16gf": 5, "regnet_x_1_6gf": 5, "regnet_x_32gf": 5,
    "regnet_x_3_2gf": 5, "regnet_x_400mf": 5, "regnet_x_800mf": 5, "regnet_x_8gf": 5,
    "regnet_y_128gf": 5, "regnet_y_16gf": 5, "regnet_y_1_6gf": 5, "regnet_y_32gf": 5,
    "regnet_y_3_2gf": 5, "regnet_y_400mf": 5, "regnet_y_800mf": 5, "regnet_y_8gf": 5,
    "resnet101": 5, "resnet152": 5, "resnet18": 5, "resnet34": 5, "resnet50": 5,
    "resnext101_32x8d": 5, "resnext101_64x4d": 5, "resnext50_32x4d": 5, "shufflenet_v2_x0_5": 5,
    "shufflenet_v2_x1_0": 5, "shufflenet_v2_x1_5": 5, "shufflenet_v2_x2_0": 5, "squeezenet1_0": 9,
    "squeezenet1_1": 9, "swin_b": 8, "swin_s": 8, "swin_t": 8, "swin_v2_b": 8, "swin_v2_s": 8,
    "swin_v2_t": 8, "vgg11": 10, "vgg11_bn": 10, "vgg13": 12, "vgg13_bn": 12, "vgg16": 15,
    "vgg16_bn": 15, "vgg19": 18, "vgg19_bn": 18, "vit_b_16": 13, "vit_b_32": 13, "vit_h_14": 33,
    "vit_l_16": 25, "vit_l_32": 25, "wide_resnet101_2": 5, "wide_resnet50_2": 5,
}  # fmt: skip
# Networks of earlier versions, which only their checkpoints may name, by what replaced them.
EARLIER_MODELS: Mapping[str, str] = {"lenet_v1": "lenet"}
# Millions of numbers in the weights of each trunk, buffers included.
WEIGHTS: Mapping[str, float] = {
    "alexnet": 57.0, "convnext_base": 87.6, "convnext_large": 196.2, "convnext_small": 49.5,
    "convnext_tiny": 27.8, "densenet121": 7.0, "densenet161": 26.7, "densenet169": 12.6,
    "densenet201": 18.3, "efficientnet_b0": 4.0, "efficientnet_b1": 6.6, "efficientnet_b2": 7.8,
    "efficientnet_b3": 10.8, "efficientnet_b4": 17.7, "efficientnet_b5": 28.5,
    "efficientnet_b6": 41.0, "efficientnet_b7": 64.1, "efficientnet_lite0": 3.4,
    "efficientnet_v2_l": 117.7, "efficientnet_v2_m": 53.2, "efficientnet_v2_s": 20.3,
    "googlenet": 5.6, "inception_v3": 21.8, "lenet": 0.1, "lenet_v1": 0.1, "maxvit_t": 30.5,
    "mnasnet0_5": 1.0, "mnasnet0_75": 1.9, "mnasnet1_0": 3.1, "mnasnet1_3": 5.1, "mnistnet": 0.0,
    "mobilenet_v2": 2.3, "mobilenet_v3_large": 4.2, "mobilenet_v3_small": 1.5,
    "regnet_x_16gf": 52.3, "regnet_x_1_6gf": 8.3, "regnet_x_32gf": 105.5, "regnet_x_3_2gf": 14.4,
    "regnet_x_400mf": 5.1, "regnet_x_800mf": 6.6, "regnet_x_8gf": 37.7, "regnet_y_128gf": 637.8,
    "regnet_y_16gf": 80.7, "regnet_y_1_6gf": 10.4, "regnet_y_32gf": 141.5, "regnet_y_3_2gf": 18.0,
    "regnet_y_400mf": 3.9, "regnet_y_800mf": 5.7, "regnet_y_8gf": 37.5, "resnet101": 42.6,
    "resnet152": 58.3, "resnet18": 11.2, "resnet34": 21.3, "resnet50": 23.6,
    "resnext101_32x8d": 86.9, "resnext101_64x4d": 81.6, "resnext50_32x4d": 23.0,
    "shufflenet_v2_x0_5": 0.3, "shufflenet_v2_x1_0": 1.3, "shufflenet_v2_x1_5": 2.5,
    "shufflenet_v2_x2_0": 5.4, "squeezenet1_0": 0.7, "squeezenet1_1": 0.7, "swin_b": 86.8,
    "swin_s": 48.9, "swin_t": 27.5, "swin_v2_b": 87.0, "swin_v2_s": 49.1, "swin_v2_t": 27.6,
    "vgg11": 128.8, "vgg11_bn": 128.8, "vgg13": 129.0, "vgg13_bn": 129.0, "vgg16": 134.3,
    "vgg16_bn": 134.3, "vgg19": 139.6, "vgg19_bn": 139.6, "vit_b_16": 85.8, "vit_b_32": 87.5,
    "vit_h_14": 632.2, "vit_l_16": 303.3, "vit_l_32": 305.5, "wide_resnet101_2": 125.0,
    "wide_resnet50_2": 66.9,
}  # fmt: skip
# These are for digits and have no ImageNet weights.
NOT_PRETRAINED = ("lenet", "mnistnet", *EARLIER_MODELS)


def stages_of(model: str) -> float:
    """Return the number of stages for --freeze; those of a user's network are counted later."""
    return MODELS.get(EARLIER_MODELS.get(model, model), math.inf)


_V1, _V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"
_E2E, _LINEAR = "IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"
# The networks for which torchvision has other weights than IMAGENET1K_V1, with their names.
_OTHER_WEIGHTS: Mapping[tuple[str, ...], str] = {
    (_V1, _V2): "efficientnet_b1 mobilenet_v2 mobilenet_v3_large regnet_x_16gf regnet_x_1_6gf"
    " regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_1_6gf"
    " regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet50"
    " resnext101_32x8d resnext50_32x4d wide_resnet101_2 wide_resnet50_2",
    (_E2E, _LINEAR): "regnet_y_128gf vit_h_14",
    (_V1, _V2, _E2E, _LINEAR): "regnet_y_16gf regnet_y_32gf",
    (_V1, _E2E, _LINEAR): "vit_b_16 vit_l_16",
    (): "efficientnet_lite0 lenet mnistnet lenet_v1",
}
# The names of torchvision's weights of each network. Those of vgg16 that lack layers are left out.
TORCHVISION_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(MODELS, (_V1,)),
    **{name: known for known, models in _OTHER_WEIGHTS.items() for name in models.split()},
}
_WEIGHTS_NAME = re.compile(r"(?:\w+_Weights\.)?((?:IMAGENET|(?i:imagenet1k))\w*|DEFAULT)")
# Networks that accept only one picture size, other than the 224 of --pre=resnet.
FIXED_SIZE = {"vit_h_14": 518}
_FIXED_BY_WEIGHTS = {("vit_b_16", _E2E): 384, ("vit_l_16", _E2E): 512, ("vit_h_14", _LINEAR): None}


def weights_name(weights: str) -> str | None:
    """Return the name of torchvision's weights in --weights, or None for anything else."""
    match = _WEIGHTS_NAME.fullmatch(weights)
    return match[1] if match else None


def weights_problem(model: str, weights: str) -> tuple[str, str] | None:
    """Return an option and what is wrong with it, if `weights` are not available for `model`."""
    name, legal = weights_name(weights), TORCHVISION_WEIGHTS.get(model, ())
    if is_code(model) and (name or weights == "imagenet"):
        return (
            "weights",
            f"is not for {model}, which has no pretrained weights; give none or a file",
        )
    if weights == "imagenet" and model in NOT_PRETRAINED:
        return "model", "has no ImageNet weights; add --weights=none"
    if name and not legal:
        return "weights", f"is for networks of torchvision; {model} takes imagenet, none or a file"
    if name and name not in (*legal, "DEFAULT"):
        return "weights", f"is unknown for {model}; {choose_from(name, legal)}"
    return None


def fixed_size(model: str, weights: str) -> int | None:
    """Return the only picture size that the network accepts, if it is not 224, or None."""
    return _FIXED_BY_WEIGHTS.get((model, weights_name(weights) or ""), FIXED_SIZE.get(model))


PREPROCESSING = ("default", "resnet", "squash", "augment", "trivial", "randaug", "colour")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "hyperbolic", "step", "cosine", "plateau", "onecycle")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The pictures that a network expects.

    Attributes:
        resize: Pixels to which the shorter side is resized.
        crop: Side in pixels of the square that is then cropped from the middle.
        mean, std: Values in [0, 1] are normalised to (value - mean) / std, by channel.
        interpolation: bilinear or bicubic.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    @property
    def channels(self) -> int:
        """The number of channels: 1 for grey, 3 for RGB."""
        return len(self.mean)


IMAGENET = InputSpec(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

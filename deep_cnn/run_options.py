"""Declare the options of a run: one field = one option = one name that a sweep may set."""

from typing import Literal

from deep_cnn import names
from deep_cnn.options import OptionModel, option

SAMPLE_DATA = "tests/places_test_input"


class DataOptions(OptionModel):
    """Options that say what is learned, and from which pictures."""

    heading = "data"

    task: str = option("auto", "what is learned", choices=("auto", *names.TASKS))
    data_dir: str = option(SAMPLE_DATA, "folder with the pictures")
    train_samples: int | None = option(None, "train on this many pictures only", low=2)
    val_split: float = option(
        0.2, "part of train for validation", low=0, high=1, open_low=True, open_high=True
    )
    test_split: float = option(
        0.15, "part set aside as test where nothing marks one", low=0, high=1, open_high=True
    )
    crop_bottom: int = option(
        0, "rows of pixels to cut off below, 25 for Google's logo in Place Pulse", low=0
    )
    strict_data: bool = option(False, "stop at the first bad picture")
    num_workers: int | Literal["auto"] = option(
        "auto", "processes that decode pictures", low=0, affects_result=False
    )
    cache: str = option(
        "auto", "keep decoded pictures and features", choices=names.CACHE, affects_result=False
    )
    cache_dir: str | None = option(
        None, "folder to keep them in, else OUT_DIR/cache", affects_result=False
    )
    pre: str = option("default", "preprocessing", choices=names.PREPROCESSING)


class ModelOptions(OptionModel):
    """Options of the network."""

    heading = "model"

    model: str = option("efficientnet_lite0", "network", choices=tuple(names.MODELS))
    weights: str = option("imagenet", "imagenet, none, or a file of weights")
    freeze: int | Literal["none", "trunk"] = option(
        "none", "what does not train: none, trunk, or this many stages from the input", low=0
    )
    dropout: float = option(0.2, "dropout before the last layer", low=0, high=1, open_high=True)


class TrainingOptions(OptionModel):
    """Options of training."""

    heading = "training"

    epochs: int = option(20, "number of epochs", low=1)
    initial_epoch: int = option(0, "number of the first epoch", low=0)
    batch_size: int = option(32, "pictures in a step", low=1)
    lr: float = option(1e-3, "learning rate", low=0, high=1e30, open_low=True)
    optimizer: str = option("adam", "optimizer", choices=names.OPTIMIZERS)
    momentum: float = option(0.9, "momentum, for sgd", low=0, high=1, open_high=True)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: str = option("constant", "learning rate over the epochs", choices=names.SCHEDULES)
    decay: float = option(
        0.1,
        "hyperbolic: lr/(1+decay*epoch); step: factor a third; plateau: factor",
        low=0,
        high=1e3,
    )
    warmup: int = option(0, "epochs in which the rate rises linearly to lr", low=0)
    lr_trunk: float = option(
        1.0, "factor of lr for all but the last layer", low=0, high=1e3, open_low=True
    )
    clip: float = option(0.0, "largest norm of the gradient; 0: any", low=0)
    ema: float = option(0.0, "decay of averaged weights; 0: none", low=0, high=1, open_high=True)
    patience: int | None = option(None, "stop after this many epochs without a better one", low=1)
    train_on: str = option(
        "train", "train+val leaves nothing to validate on", choices=names.TRAIN_ON
    )
    seed: int = option(0, "seed of everything random", low=0, high=2**32 - 1)
    amp: str = option("auto", "auto: bfloat16 where the processor gains", choices=names.AMP)
    device: str = option("auto", "where to compute", choices=names.DEVICES, affects_result=False)


class RunOptions(OptionModel):
    """Options that say where things go, and what is done."""

    heading = "run"

    root_dir: str = option(
        ".", "folder that --data_dir and --out_dir start from", affects_result=False
    )
    out_dir: str = option("outputs", "folder for results", affects_result=False)
    run_name: str | None = option(None, "name of the run", affects_result=False)
    resume: str | None = option(None, "checkpoint to go on from", affects_result=False)
    test_net: str | None = option(
        None, "checkpoint to evaluate once on the test split", affects_result=False
    )
    dry_run: bool = option(False, "describe the data and stop", affects_result=False)
    wandb: bool | None = option(
        None,
        "log to Weights & Biases; None: where WB_KEY, WB_PROJECT and WB_USER are set",
        affects_result=False,
    )
    wandb_artifacts: str | None = option(
        None,
        "checkpoint that W&B keeps; None: best, and none in a sweep",
        choices=("none", "best"),
        affects_result=False,
    )

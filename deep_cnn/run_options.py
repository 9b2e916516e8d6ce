"""Declare the options of a run, in the groups of `-h`."""

from functools import partial
from typing import Literal

from deep_cnn import names
from deep_cnn.options import OptionModel, option

SAMPLE_DATA = "tests/places_test_input"
# Declares an option that cannot change a number that a run logs.
_no_effect = partial(option, affects_result=False)


class DataOptions(OptionModel):
    """Options that say what is learned, and from which pictures."""

    heading = "data"

    task: str = option(
        "auto", "task; auto: detect it from the files in data_dir", choices=("auto", *names.TASKS)
    )
    data_dir: str = option(SAMPLE_DATA, "folder with the pictures")
    train_samples: int | None = option(None, "use only this many training pictures", low=2)
    val_split: float = option(
        0.2,
        "fraction of the non-test pictures for validation",
        low=0,
        high=1,
        open_low=True,
        open_high=True,
    )
    test_split: float = option(
        0.15, "fraction of pictures for the test, if none is marked", low=0, high=1, open_high=True
    )
    crop_bottom: int = option(
        0, "pixel rows to remove from the bottom; 25 removes Google's logo in Place Pulse", low=0
    )
    strict_data: bool = option(False, "stop at the first picture that cannot be decoded")
    num_workers: int | Literal["auto"] = _no_effect("auto", "processes that decode pictures", low=0)
    cache: str = _no_effect(
        "auto", "keep decoded pictures and features on disk", choices=("auto", "off")
    )
    cache_dir: str | None = _no_effect(None, "folder of the cache; None: OUT_DIR/cache")
    pre: str = option("default", "preprocessing of pictures", choices=names.PREPROCESSING)


class ModelOptions(OptionModel):
    """Options of the network."""

    heading = "model"

    model: str = option(
        "efficientnet_lite0",
        "network; your own: file.py:Class or package.module:Class",
        choices=tuple(names.MODELS),
        takes_code=True,
    )
    weights: str = option("imagenet", "weights: imagenet, none, a name of torchvision, or a file")
    freeze: int | Literal["none", "trunk"] = option(
        "none", "layers to freeze: none, trunk (all but the last), or the first N stages", low=0
    )
    dropout: float = option(0.2, "dropout before the last layer", low=0, high=1, open_high=True)


class TrainingOptions(OptionModel):
    """Options of training."""

    heading = "training"

    epochs: int = option(20, "number of epochs", low=1)
    initial_epoch: int = option(0, "number of the first epoch", low=0)
    batch_size: int = option(32, "pictures per step", low=1)
    lr: float = option(1e-3, "learning rate", low=0, high=1e30, open_low=True)
    optimizer: str = option("adam", "optimizer", choices=names.OPTIMIZERS)
    momentum: float = option(0.9, "momentum of sgd", low=0, high=1, open_high=True)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: str = option(
        "constant",
        "how the learning rate changes over the epochs; your own: file.py:Class",
        choices=names.SCHEDULES,
        takes_code=True,
    )
    decay: float = option(
        0.1,
        "hyperbolic: the rate is lr/(1+decay*epoch); step: multiply the rate by decay after each"
        " third of the epochs; plateau: multiply it by decay when loss_val stops improving",
        low=0,
        high=1e3,
    )
    warmup: int = option(0, "initial epochs in which the rate rises to lr", low=0)
    lr_trunk: float = option(
        1.0, "multiply lr by this for all layers except the last", low=0, high=1e3, open_low=True
    )
    clip: float = option(0.0, "scale down gradients with a larger norm; 0: never", low=0)
    ema: float = option(
        0.0, "decay of a moving average of the weights; 0: none", low=0, high=1, open_high=True
    )
    patience: int | None = option(
        None, "stop after this many epochs without a lower loss_val; None: never", low=1
    )
    train_on: str = option("train", "splits to train on", choices=("train", "train+val"))
    seed: int = option(0, "random seed", low=0, high=2**32 - 1)
    amp: str = option(
        "auto", "precision; auto: bfloat16 if it is faster", choices=("auto", "bf16", "fp16", "off")
    )
    threads: int | None = _no_effect(
        None, "threads; None: OMP_NUM_THREADS, or 1 for small networks, or all", low=1, high=1024
    )
    device: str = _no_effect("auto", "device to use", choices=("auto", "cpu", "cuda", "mps"))


class RunOptions(OptionModel):
    """Options that say where things go, and what is done."""

    heading = "run"

    root_dir: str = _no_effect(".", "folder that --data_dir and --out_dir are relative to")
    out_dir: str = _no_effect("outputs", "folder for results")
    run_name: str | None = _no_effect(None, "name of the run; None: model, date and time")
    resume: str | None = _no_effect(None, "checkpoint of the run to resume")
    test_net: str | None = _no_effect(None, "checkpoint to evaluate once on the test split")
    dry_run: bool = _no_effect(False, "describe the data without training")
    wandb: bool | None = _no_effect(
        None, "log to Weights & Biases; None: if WB_KEY, WB_PROJECT and WB_USER are set"
    )
    wandb_artifacts: str | None = _no_effect(
        None, "checkpoint for W&B; None: none in a sweep, else best", choices=("none", "best")
    )
    wandb_media: bool | None = _no_effect(
        None, "pictures, plots and step losses for W&B; None: unless the run is part of a sweep"
    )
    tensorboard: bool | None = _no_effect(
        None,
        "write event files; None: unless the run is part of a sweep; True: also the graph, the"
        " projector and histograms",
    )
    histograms: int | None = _no_effect(
        None,
        "log weights and gradients every N epochs; None: all with --tensorboard=True, or none",
        low=1,
    )

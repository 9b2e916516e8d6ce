"""Prepare a run: its pictures in their splits, its network, and the session of both."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from deep_cnn.config import SAMPLE_DATA, TrainConfig
from deep_cnn.data.cache import open_pictures
from deep_cnn.data.splits import joined, subset
from deep_cnn.data.usable import usable
from deep_cnn.devices import seed_everything
from deep_cnn.loop import heed
from deep_cnn.session import Session, Split, data_digest
from deep_cnn.tasks import get_task

_LOGGER = logging.getLogger("deep_cnn")


class Prepared(NamedTuple):
    """What a run computes with and learns from; `digest` tells other pictures or scores apart."""

    session: Session
    train: Split
    val: Split | None
    digest: str


def prepare(
    config: TrainConfig,
    content: Mapping[str, Any] | None,
    device: torch.device,
    signalled: Callable[[], int | None],
) -> Prepared:
    """Read the data that `config` names and build its network, from the weights that it names.

    With the `content` of a checkpoint the network waits for its weights, and the labels are its.
    Interrupted where `signalled()` asks for it; a DeepCnnError for what the user can mend.
    """
    check = partial(heed, signalled)
    seed_everything(config.seed)
    if config.data_dir == SAMPLE_DATA and config.task != "digits":
        _LOGGER.info("Data: the bundled sample %s; --data_dir=FOLDER takes yours", SAMPLE_DATA)
    task = get_task(config.task)
    found = task.splits(config, ("train", "val"))
    everything = joined(found["train"], found["val"])
    if config.train_samples is not None:
        found["train"] = subset(found["train"], config.train_samples, config.seed)
    if config.train_on == "train+val":
        found = {"train": joined(found["train"], found["val"])}
    if content:
        task.check_labels(content["labels"], config)
    labels = content["labels"] if content else task.labels(found["train"], config)
    network = task.network(config, labels, weights="none" if content else None)
    store = open_pictures(
        everything, config.pre, network.form, config.cache_path, check, config.crop_bottom
    )
    found = {name: usable(some, config, check, store) for name, some in found.items()}
    if not content:  # Again, without the pictures that turned out to be bad.
        labels = task.labels(found["train"], config)
    session = Session(config, task, labels, network, device, signalled, store)
    train = session.split(found["train"])
    val = session.split(found["val"]) if "val" in found else None
    _LOGGER.info(
        "Run %s: task %s, model %s, %d pictures for training, %d for validation",
        config.run_name,
        config.task,
        config.model,
        len(found["train"]),
        len(found.get("val", ())),
    )
    return Prepared(session, train, val, data_digest(*found.values()))

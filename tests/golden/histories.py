"""Train short runs of every kind, and describe all that they leave."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from tests.golden.common import run_well
from tests.golden.parts import SHORT, table

_DIGITS = ("--task=digits",)
_FEW = ("--train_samples=24", "--batch_size=8", "--epochs=1")
# The commands of each run; the last of its words may go on with or test what was before.
RUNS: dict[str, list[tuple[str, ...]]] = {
    "digits": [
        (*_DIGITS, "--epochs=2", "--run_name=r"),
        ("--test_net=outputs/models/r.best.pt",),
    ],
    "digits_finer": [
        (
            *(*_DIGITS, "--train_samples=400", "--epochs=3", "--hidden=16", "--run_name=r"),
            *("--ema=0.5", "--schedule=plateau", "--warmup=1", "--clip=1", "--lr_trunk=0.5"),
            *("--label_smoothing=0.1", "--optimizer=adamw", "--weight_decay=0.01", "--seed=7"),
        )
    ],
    "resumed": [
        (
            *(*_DIGITS, "--train_samples=400", "--epochs=2", "--hidden=16", "--run_name=r"),
            *("--schedule=cosine", "--patience=5"),
        ),
        ("--resume=outputs/models/r.pt", "--epochs=3"),
    ],
    "whole": [(*_FEW, "--run_name=r")],
    "stages": [(*_FEW, "--freeze=3", "--optimizer=sgd", "--run_name=r")],
    "trunk": [
        ("--freeze=trunk", "--epochs=3", "--lr=0.01", "--run_name=r"),
        ("--test_net=outputs/models/r.best.pt",),
    ],
    "augment": [("--pre=augment", *_FEW, "--epochs=2", "--freeze=trunk", "--run_name=r")],
    "squash": [("--pre=squash", "--freeze=trunk", "--epochs=2", "--loss=huber", "--run_name=r")],
    "onecycle": [
        (
            *("--freeze=trunk", "--epochs=3", "--ema=0.9", "--schedule=onecycle", "--seed=3"),
            *("--train_on=train+val", "--run_name=r"),
        )
    ],
}
# What holds a path once a run has gone on.
_PLACES = ("resume", "test_net", "out_dir")
_TIMES = ("seconds", "images_per_second")


def trained(name: str, folder: Path) -> Any:
    """Train the run of this name, and describe its history, result and checkpoint."""
    for words in RUNS[name]:
        run_well(folder, *words, "--wandb=False", *SHORT)
    out = folder / "outputs"
    text = (out / "results" / "r.csv").read_text(encoding="utf-8")
    columns = next(csv.reader(text.splitlines()))
    result = json.loads((out / "results" / "r.json").read_text(encoding="utf-8"))
    checkpoint = torch.load(out / "models" / "r.pt", map_location="cpu", weights_only=True)
    weights = {key: list(value.shape) for key, value in checkpoint["state_dict"].items()}
    return {
        "argv": [list(words) for words in RUNS[name]],
        "columns": columns,
        "history": [
            [row[column] for column in columns if column not in _TIMES] for row in table(text)
        ],
        "best": result["best"],
        "test": result["test"],
        "result_keys": list(result),
        "config": {k: v for k, v in result["config"].items() if k not in _PLACES},
        "files": sorted(
            str(path.relative_to(out))
            for part in ("results", "models", "logger")
            for path in (out / part).iterdir()
        ),
        "checkpoint_keys": sorted(checkpoint),
        "optimizer_keys": sorted(checkpoint["optimizer"]),
        "data": checkpoint["data"],
        "epoch": checkpoint["epoch"],
        "state_dict": weights,
    }

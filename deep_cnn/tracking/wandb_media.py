"""Make W&B's tables, plots and histograms from what a tracker receives."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from deep_cnn.tracking.base import Histogram, Validation

_EXAMPLES, _IN_TABLE = 8, 64
_MOST_POINTS = 5_000


def pictures_of(validation: Validation) -> dict[str, Any]:
    """Return some validation pictures with truth and prediction in their captions."""
    pictures = [
        wandb.Image(
            one.image, caption=f"truth {_short(one.truth)}, prediction {_short(one.prediction)}"
        )
        for one in validation.examples(_EXAMPLES)
    ]
    return {"examples": pictures} if pictures else {}


def tables_of(validation: Validation, steps: Path) -> dict[str, Any]:
    """Return a table of validation pictures, a plot of all predictions, and one of the losses.

    `steps` is results/<run>.steps_train.csv. The plot is a confusion matrix for classes, and a
    scatter plot for scores.
    """
    rows = [
        [wandb.Image(one.image), one.truth, one.prediction]
        for one in validation.examples(_IN_TABLE)
    ]
    table = wandb.Table(columns=["image", "truth", "prediction"], data=rows)
    found = {"predictions": table, **_prediction_plot(validation)}
    with suppress(OSError, ValueError):  # The disk may have been full.
        found |= {"step_loss": _step_plot(steps)}
    return found


def _prediction_plot(validation: Validation) -> dict[str, Any]:
    truths, predictions = validation.truths, validation.predictions
    if validation.classes is not None:
        number = {name: i for i, name in enumerate(validation.classes)}
        plot = wandb.plot.confusion_matrix(
            y_true=[number[name] for name in truths],
            preds=[number[name] for name in predictions],
            class_names=list(validation.classes),
        )
        return {"confusion_matrix": plot}
    chosen = np.linspace(0, len(truths) - 1, min(len(truths), _MOST_POINTS)).round().astype(int)
    rows = [[truths[i], predictions[i]] for i in chosen]
    table = wandb.Table(columns=["truth", "prediction"], data=rows)
    return {"scatter": wandb.plot.scatter(table, "truth", "prediction", "Validation pictures")}


def _step_plot(path: Path) -> Any:
    """Return a plot of the loss of each step; of many steps, means of consecutive ones."""
    losses = np.loadtxt(path, delimiter=",", skiprows=1, usecols=2, ndmin=1)
    each = -(-len(losses) // _MOST_POINTS)
    rows = [[i, float(losses[i : i + each].mean())] for i in range(0, len(losses), each or 1)]
    table = wandb.Table(columns=["step", "loss"], data=rows)
    return wandb.plot.line(table, "step", "loss", "Training loss of each step")


def histogram(one: Histogram) -> wandb.Histogram:
    """Return a histogram of weights or gradients."""
    return wandb.Histogram(np_histogram=(np.array(one.counts), np.array(one.edges)))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

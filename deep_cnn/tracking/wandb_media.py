"""Make W&B's tables, plots and histograms from what a tracker receives."""

from pathlib import Path
from typing import Any

import numpy as np
import wandb

from deep_cnn.tracking.base import Example, Histogram, Validation

_PICTURES = 64
_MOST_POINTS = 5_000


def example(one: Example) -> wandb.Image:
    """Return a picture with truth and prediction in its caption."""
    caption = f"truth {_short(one.truth)}, prediction {_short(one.prediction)}"
    return wandb.Image(one.image, caption=caption)


def prediction_table(validation: Validation) -> wandb.Table:
    """Return a table of validation pictures with truth and prediction."""
    rows = [
        [wandb.Image(one.image), one.truth, one.prediction]
        for one in validation.examples(_PICTURES)
    ]
    return wandb.Table(columns=["image", "truth", "prediction"], data=rows)


def prediction_plot(validation: Validation) -> dict[str, Any]:
    """Return a confusion matrix of the classes, or a scatter plot of the scores."""
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


def step_plot(path: Path) -> dict[str, Any]:
    """Return a plot of the loss of each step, from results/<run>.steps_train.csv.

    Of many steps, it shows means of as many consecutive ones as are needed.
    """
    losses = np.loadtxt(path, delimiter=",", skiprows=1, usecols=2, ndmin=1)
    each = -(-len(losses) // _MOST_POINTS)
    rows = [[i, float(losses[i : i + each].mean())] for i in range(0, len(losses), each or 1)]
    table = wandb.Table(columns=["step", "loss"], data=rows)
    return {"step_loss": wandb.plot.line(table, "step", "loss", "Training loss of each step")}


def histogram(one: Histogram) -> wandb.Histogram:
    """Return a histogram of weights or gradients."""
    return wandb.Histogram(np_histogram=(np.array(one.counts), np.array(one.edges)))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Train epoch after epoch: metrics, checkpoints, trackers, and the reasons to stop early."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deep_cnn.config import SAMPLE_DATA, TrainConfig
from deep_cnn.data.preprocessing import thumbnail
from deep_cnn.files import RunFiles
from deep_cnn.names import TASKS
from deep_cnn.results import Best, EpochRecord, Metric, StopReason, SweepTrial
from deep_cnn.tracking import Example, Tracker
from deep_cnn.training.checkpoint import Checkpoint, CheckpointWriter, random_states
from deep_cnn.training.features import compute_features
from deep_cnn.training.loop import EpochOutput
from deep_cnn.training.session import Session
from deep_cnn.training.stop import Interrupted, StopToken

_LOGGER = logging.getLogger("deep_cnn")
ShouldStop = Callable[[Sequence[EpochRecord]], StopReason | None]
_EXAMPLES = 8


def never(history: Sequence[EpochRecord]) -> StopReason | None:
    """Never stop a run early."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run is given."""

    config: TrainConfig
    files: RunFiles
    tracker: Tracker
    sweep: SweepTrial | None
    environment: Mapping[str, Any]
    checkpoint: Checkpoint | None
    checkpoints: CheckpointWriter
    should_stop: ShouldStop = never
    stop: StopToken = field(default_factory=StopToken)


@dataclass(slots=True, kw_only=True)
class Course:
    """How far one run has come."""

    epoch: int
    history: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None
    started: float = field(default_factory=time.monotonic)
    session: Session | None = None
    validation: EpochOutput | None = None
    tracked: bool = False

    @classmethod
    def begin(cls, config: TrainConfig, checkpoint: Checkpoint | None) -> "Course":
        """Return the course of a run that begins, or goes on from a checkpoint."""
        if checkpoint is None:
            return cls(epoch=config.initial_epoch)
        return cls(
            epoch=checkpoint.epoch,
            history=list(checkpoint.history),
            best=checkpoint.best,
            started=time.monotonic() - checkpoint.seconds,
        )


def train(run: Run, course: Course, session: Session) -> StopReason | None:
    """Train until the last epoch, or until there is a reason to stop before."""
    epochs = run.config.epochs
    reason = _reason_to_stop(run, course) if course.epoch < epochs else None
    if reason or course.epoch >= epochs:
        return reason
    compute_features(session, *session.splits)
    if "val" in session.splits:
        baseline = session.baseline("val")
        _LOGGER.info("Baseline that sees no picture: %s", format_metrics(baseline))
    while course.epoch < epochs:
        _keep(run, course, _train_epoch(run, course, session))
        reason = _reason_to_stop(run, course)
        if reason:
            return reason
    return None


def _train_epoch(run: Run, course: Course, session: Session) -> EpochRecord:
    """Learn from every training picture once, then validate."""
    epoch = course.epoch
    watched = "loss_val" if "val" in session.splits else "loss_train"
    lr = session.stepper.begin(epoch, [record.metrics[watched] for record in course.history])
    started = time.monotonic()
    learned = session.train(epoch)
    seconds = time.monotonic() - started
    metrics = session.score(learned, "train")
    step_losses = {"train": learned.step_losses}
    if "val" in session.splits:
        try:
            course.validation = session.evaluate("val", f"Validation {epoch}")
        except Interrupted as error:
            raise Interrupted(error.request, len(learned.step_losses)) from None
        val = session.score(course.validation, "val")
        pairs = zip(metrics.items(), val.items(), strict=True)
        metrics = {key: value for pair in pairs for key, value in pair}
        step_losses["val"] = course.validation.step_losses
    for split, losses in step_losses.items():
        run.tracker.log_steps(split, epoch, losses)
    speed = len(session.splits["train"]) / max(seconds, 1e-9)
    return EpochRecord(epoch, lr, metrics, time.monotonic() - started, speed)


def _keep(run: Run, course: Course, record: EpochRecord) -> None:
    """Tell the trackers first, then save: what a kill in between loses is done again."""
    session = course.session
    assert session is not None
    watched = Metric.named(TASKS[run.config.task].watch)
    course.history.append(record)
    course.epoch += 1
    value = record.metrics.get(watched.name, math.nan)
    better = math.isfinite(value) and (
        course.best is None or watched.is_better(value, course.best.value)
    )
    if better:
        course.best = Best(record.epoch, watched.name, value)
    text, mark = format_metrics(record.metrics), " (best)" if better else ""
    _LOGGER.info("Epoch %d: lr=%.4g %s%s", record.epoch, record.lr, text, mark)
    is_last = course.epoch == run.config.epochs
    if course.validation is not None and is_last:
        run.tracker.images(record.epoch, lambda: examples(course, session))
    run.tracker.log(record)
    due = is_last or run.checkpoints.is_due
    # Without a validation split the last checkpoint is as good as any.
    best = better or "val" not in session.splits
    run.checkpoints.keep(make_checkpoint(run, course, session, copied=not due), best=best)
    if due:
        run.checkpoints.write()


def make_checkpoint(
    run: Run, course: Course, session: Session, *, copied: bool = False
) -> Checkpoint:
    """Return the checkpoint of a run as it stands; see `Stepper.state` for `copied`."""
    return Checkpoint(
        **session.state(copied=copied),
        run_name=run.files.name,
        # With absolute folders, so that --test_net finds the data from anywhere.
        config={**run.config.to_dict(), **_absolute_paths(run.config)},
        epoch=course.epoch,
        random=random_states(),
        data=session.digest,
        history=tuple(course.history),
        best=course.best,
        seconds=time.monotonic() - course.started,
        tracking=run.tracker.state,
    )


def _absolute_paths(config: TrainConfig) -> Mapping[str, str]:
    given, keep = config.data_dir, config.options.get("keep", "auto")
    bundled, no_file = given == SAMPLE_DATA, keep in ("auto", "none")
    return {
        "data_dir": given if bundled else str(config.data_path.resolve()),
        **({} if no_file else {"keep": str(Path(keep).expanduser().resolve())}),
    }


def _reason_to_stop(run: Run, course: Course) -> StopReason | None:
    patience, best = run.config.patience, course.best
    if patience is not None and best and course.epoch - 1 - best.epoch >= patience:
        value = course.history[-1].metrics[best.metric]
        return StopReason("patience", value=value, threshold=best.value)
    return run.should_stop(tuple(course.history)) if course.history else None


def examples(course: Course, session: Session) -> list[Example]:
    """Return some validation pictures, from the lowest target to the highest."""
    assert course.validation is not None
    pictures = session.splits["val"].examples
    order = pictures.targets.argsort(kind="stable")
    places = sorted({round(i) for i in np.linspace(0, len(order) - 1, _EXAMPLES)})
    task, labels = session.task, session.labels
    predictions = task.predictions(course.validation.outputs, labels)
    predicted, truths = task.display(predictions, labels), task.display(pictures.targets, labels)
    found = []
    for i in (int(order[place]) for place in places):
        with suppress(ValueError):  # The file may be gone by now; the run does not need it.
            image = thumbnail(pictures.pictures[i], session.config.crop_bottom)
            found.append(Example(image, truths[i], predicted[i]))
    return found


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics as they stand in a line of the log."""
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())

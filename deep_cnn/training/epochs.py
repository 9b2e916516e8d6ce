"""Train over epochs: metrics, checkpoints, trackers, and early stopping."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch

from deep_cnn.config import TrainConfig
from deep_cnn.files import RunFiles, claim_run
from deep_cnn.home import expand_user
from deep_cnn.names import TASKS
from deep_cnn.progress import Progress
from deep_cnn.results import Best, EpochRecord, Metric, RunResult, StopReason, SweepTrial
from deep_cnn.run_options import SAMPLE_DATA
from deep_cnn.tracking import Tracker
from deep_cnn.training.checkpoint import Checkpoint, CheckpointWriter, load_resumable
from deep_cnn.training.devices import choose_device, choose_threads, environment
from deep_cnn.training.loop import (
    EpochOutput,
    baseline,
    batches_per_epoch,
    compute_features,
    evaluate,
    learn,
    score,
)
from deep_cnn.training.media import histograms_of, inputs_of, validation_of
from deep_cnn.training.optim import weights_of
from deep_cnn.training.random_states import random_states
from deep_cnn.training.session import Session
from deep_cnn.training.stop import Interrupted, StopToken

_LOGGER = logging.getLogger("deep_cnn")
ShouldStop = Callable[[Sequence[EpochRecord]], StopReason | None]


class Run:
    """One run: its settings, and its progress.

    Attributes:
        checkpoint: The checkpoint that the run continues, if any.
        epoch: The number of the next epoch.
        started: The `time.monotonic` at which the run would have begun without interruptions.
        validation: The output of the last validation, until it is shown.
        tracked: Whether the tracker was asked to start.
        is_logged: Whether the tracker has started.
        earlier: The result of the run before it was resumed.
    """

    def __init__(
        self,
        config: TrainConfig,
        tracker: Tracker,
        should_stop: ShouldStop | None,
        stop: StopToken,
        files: RunFiles | None,
        sweep: SweepTrial | None,
    ) -> None:
        device = choose_device(config.device)
        _LOGGER.info("Running on %s device", device.type)
        checkpoint = load_resumable(Path(config.resume), config) if config.resume else None
        if checkpoint:  # A trial may have begun with the network of an earlier version.
            config = config.replace(model=checkpoint.config.get("model", config.model))
        self.files = files or _choose_files(config, checkpoint)
        # The work folder of a trial is gone when others read its configuration.
        self.resumed = config.resume
        resume = None if self.files.work else config.resume
        self.config = config.replace(run_name=self.files.name, resume=resume)
        self.tracker, self.sweep = tracker, sweep
        self.should_stop, self.stop = should_stop, stop
        earlier = checkpoint.threads if checkpoint else None
        torch.set_num_threads(choose_threads(config, earlier))
        self.environment = environment(device)
        self.writer = CheckpointWriter(self.files)
        self.checkpoint = checkpoint
        self.epoch = checkpoint.epoch if checkpoint else config.initial_epoch
        self.history = list(checkpoint.history) if checkpoint else []
        self.best = checkpoint.best if checkpoint else None
        self.started = time.monotonic() - (checkpoint.seconds if checkpoint else 0)
        self.session: Session | None = None
        self.validation: EpochOutput | None = None
        self.tracked = self.is_logged = False
        self.earlier: RunResult | None = None


def _choose_files(config: TrainConfig, checkpoint: Checkpoint | None) -> RunFiles:
    """Return the checkpoint's files, or new ones if an older checkpoint would overwrite them."""
    if checkpoint:
        files = RunFiles(config.out_path, checkpoint.run_name)
        own = files.last.exists() and files.last.samefile(str(config.resume))
        if config.run_name in (None, files.name) and (own or not files.exist()):
            for rest in files.last.parent.glob(f".{files.name}.*.part"):
                rest.unlink(missing_ok=True)  # Of a save that was killed.
            return files
    files = claim_run(config)
    if config.run_name not in (None, files.name):
        text = "--run_name=%s is taken or no file name: this run is %s"
        _LOGGER.warning(text, config.run_name, files.name)
    return files


def train(run: Run, session: Session) -> StopReason | None:
    """Train until the last epoch, or until a reason to stop early."""
    epochs = run.config.epochs
    reason = _reason_to_stop(run) if run.epoch < epochs else None
    if reason or run.epoch >= epochs:
        return reason
    compute_features(session, *session.splits)
    if "val" in session.splits:
        text = format_metrics(baseline(session, "val"))
        _LOGGER.info("Baseline that sees no picture: %s", text)
        for note in session.task.notes(run.config):
            _LOGGER.info(note)
    run.tracker.inputs(inputs_of(session, run.epoch))
    each = batches_per_epoch(session)
    with Progress(_title(run), epochs * each, run.epoch * each) as progress:
        while run.epoch < epochs and not reason:
            _save(run, session, _train_epoch(run, session, progress))
            reason = _reason_to_stop(run)
    return reason


def _title(run: Run) -> str:
    return f"Epoch {run.epoch}/{run.config.epochs}"


def _train_epoch(run: Run, session: Session, progress: Progress) -> EpochRecord:
    """Train on every training picture once, then validate."""
    epoch = run.epoch
    progress.begin(_title(run))
    watched = "loss_val" if "val" in session.splits else "loss_train"
    lr = session.stepper.begin(epoch, [record.metrics[watched] for record in run.history])
    started = time.monotonic()
    training = learn(session, epoch, progress)
    speed = len(session.splits["train"]) / max(time.monotonic() - started, 1e-9)
    metrics = score(session, "train", training)
    step_losses = {"train": training.step_losses}
    if "val" in session.splits:
        try:
            progress.begin(f"{_title(run)}, validation")
            run.validation = evaluate(session, "val", progress)
            progress.begin(_title(run))
        except Interrupted as error:
            raise Interrupted(error.request, len(training.step_losses)) from None
        validation = score(session, "val", run.validation)
        # Columns of the table alternate between train and val.
        pairs = zip(metrics.items(), validation.items(), strict=True)
        metrics = {name: value for pair in pairs for name, value in pair}
        step_losses["val"] = run.validation.step_losses
    for split, losses in step_losses.items():
        run.tracker.log_steps(split, epoch, losses)
    return EpochRecord(epoch, lr, metrics, time.monotonic() - started, speed)


def _save(run: Run, session: Session, record: EpochRecord) -> None:
    """Log an epoch, then save it; if the process is killed in between, the epoch is repeated."""
    watched = Metric.named(TASKS[run.config.task].watch)
    run.history.append(record)
    run.epoch += 1
    value = record.metrics.get(watched.name, math.nan)
    better = math.isfinite(value) and (not run.best or watched.is_better(value, run.best.value))
    if better:
        run.best = Best(record.epoch, watched.name, value)
    text, mark = format_metrics(record.metrics), " (best)" if better else ""
    _LOGGER.info("Epoch %d: lr=%.4g %s%s", record.epoch, record.lr, text, mark)
    is_last = run.epoch == run.config.epochs
    every = run.config.histograms or (1 if run.config.tensorboard else 0)
    if every and run.epoch % every == 0:
        run.tracker.histograms(record.epoch, lambda: histograms_of(session))
    if is_last or _has_lost_patience(run):
        show_validation(run, session)
    run.tracker.log(record)
    due = is_last or run.writer.is_due
    # Without a validation split the last checkpoint is as good as any.
    best = better or "val" not in session.splits
    run.writer.keep(make_checkpoint(run, session, copied=not due), best=best)
    if due:
        run.writer.write()


def make_checkpoint(run: Run, session: Session, *, copied: bool = False) -> Checkpoint:
    """Return a checkpoint of a run's current state; if `copied`, later steps do not change it."""
    config, stepper, spec = run.config, session.stepper, session.network.input_spec
    optimizer = stepper.optimizer.state_dict()
    return Checkpoint(
        run_name=run.files.name,
        # With absolute folders, so that --test_net finds the data from anywhere.
        config={**config.to_dict(), **_absolute_paths(config)},
        epoch=run.epoch,
        state_dict=weights_of(stepper.ema_model, copied=copied),
        learning=weights_of(session.network, copied=copied) if config.ema else None,
        optimizer=deepcopy(optimizer) if copied else optimizer,
        scaler=stepper.scaler.state_dict(),
        random=random_states(),
        threads=torch.get_num_threads(),
        labels=dict(session.labels),
        input={"pre": config.pre, "crop_bottom": config.crop_bottom, **asdict(spec)},
        data=session.digest,
        dataset=session.dataset,
        history=tuple(run.history),
        best=run.best,
        seconds=time.monotonic() - run.started,
        tracking=run.tracker.state,
        code={source.option: source.digest for source in session.sources} or None,
        schedule=stepper.schedule.state_dict() if stepper.schedule else None,
    )


def _absolute_paths(config: TrainConfig) -> Mapping[str, str]:
    paths = {}
    if config.data_dir != SAMPLE_DATA:
        paths["data_dir"] = str(config.data_path.resolve())
    keep = config.options.get("keep", "auto")
    if keep not in ("auto", "none"):
        paths["keep"] = str(expand_user(keep).resolve())
    return paths


def show_validation(run: Run, session: Session) -> None:
    """Let the trackers show the predictions of the last epoch for the validation pictures."""
    if run.validation is not None:
        run.tracker.validated(validation_of(session, run.epoch - 1, run.validation))
        run.validation = None  # They are shown only once.


def _has_lost_patience(run: Run) -> bool:
    patience, best = run.config.patience, run.best
    return patience is not None and best is not None and run.epoch - 1 - best.epoch >= patience


def _reason_to_stop(run: Run) -> StopReason | None:
    if run.best and _has_lost_patience(run):
        value = run.history[-1].metrics[run.best.metric]
        return StopReason("patience", value=value, threshold=run.best.value)
    return run.should_stop(tuple(run.history)) if run.should_stop and run.history else None


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics as text for a line of the log."""
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())

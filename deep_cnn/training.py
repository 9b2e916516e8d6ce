"""Fine-tune a network, from the beginning or from a checkpoint: `fit`."""

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from deep_cnn import runs
from deep_cnn.checkpoint import (
    Checkpoints,
    copy_checkpoint,
    load_checkpoint,
    random_states,
    restore_random_states,
)
from deep_cnn.config import SAMPLE_DATA, TrainConfig
from deep_cnn.data.images import thumbnail
from deep_cnn.devices import choose_device
from deep_cnn.errors import ConfigError
from deep_cnn.loop import Interrupted, LossNotFinite, Pass, is_out_of_memory, largest
from deep_cnn.names import TASKS
from deep_cnn.preparing import prepare
from deep_cnn.resolve import resolve
from deep_cnn.resuming import check_resumable, restore_into, say_changes, test_of
from deep_cnn.runs import Best, EpochRecord, Metric, RunFiles, RunResult, State, StopReason
from deep_cnn.signals import is_agents_stop
from deep_cnn.tracking import Shown, Start, Tracker

_LOGGER = logging.getLogger("deep_cnn")
History = Sequence[EpochRecord]
ShouldStop = Callable[[History], StopReason | None]
Signal = Callable[[], int | None]
_PICTURES_SHOWN = 8


def never(history: History) -> StopReason | None:
    """Never stop a run early."""
    return None


def no_signal() -> int | None:
    """No signal has asked the run to end."""
    return None


def fit(
    config: TrainConfig,
    tracker: Tracker | None = None,
    *,
    should_stop: ShouldStop = never,
    signalled: Signal = no_signal,
    files: RunFiles | None = None,
    sweep: Mapping[str, Any] | None = None,
    sigterm_stops: bool = False,
) -> RunResult:
    """Fine-tune the network that `config` describes, or go on from the checkpoint config.resume.

    After each epoch the last and where it is so the best checkpoint are saved, and
    `should_stop(history)` may end the run as stopped. `signalled()` is asked between two steps and
    ends it as interrupted, as does KeyboardInterrupt; it never raises to say that it was stopped.
    Numbers go to `tracker` (to nowhere by default; `FileTracker()` writes what the command line
    writes). A trial of a sweep brings the `files` that are its own, and `sweep` says which it is;
    with `sigterm_stops`, as W&B's agent means it, SIGTERM ends it as stopped.
    Raises a DeepCnnError for what the user can mend.
    """
    tracker = tracker or Tracker()
    if config.dry_run:
        raise ConfigError("--dry_run trains nothing; fit() and sweeps do not take it, drop it")
    config = resolve(config)
    device = choose_device(config.device)
    _LOGGER.info("Running on %s device", device.type)
    content = load_checkpoint(Path(config.resume)) if config.resume else None
    if content is not None:
        check_resumable(config, content)
    files = files or _files_of(config, content)
    config = config.replace(run_name=files.name)
    run = _Run(config, tracker, files, content, should_stop, signalled, sweep, sigterm_stops)
    try:
        return run.go(device)
    finally:
        if (
            not run.closed
        ):  # An error that the user can mend: a run that never began leaves nothing.
            tracker.abandon()
            if not files.last.exists():
                files.log.unlink(missing_ok=True)


def _files_of(config: TrainConfig, content: Mapping[str, Any] | None) -> RunFiles:
    """The checkpoint's own files, or new ones: going on from an older state overwrites nothing."""
    if content is not None:
        files = RunFiles(config.out_path, content["run_name"])
        ours = files.last.exists() and files.last.samefile(str(config.resume))
        if config.run_name in (None, files.name) and (ours or not files.exist()):
            for rest in files.last.parent.glob(f".{files.name}.*.part"):
                rest.unlink(missing_ok=True)  # Of a save that was killed.
            return files
    files = runs.claim_run(config)
    if config.run_name not in (None, files.name):
        _LOGGER.warning(
            "--run_name=%s is taken or no file name: this run is %s", config.run_name, files.name
        )
    return files


class _Run:
    """The course of one run: epochs, checkpoints, the reasons to end."""

    def __init__(
        self,
        config: TrainConfig,
        tracker: Tracker,
        files: RunFiles,
        content: dict[str, Any] | None,
        should_stop: ShouldStop,
        signalled: Signal,
        sweep: Mapping[str, Any] | None,
        sigterm_stops: bool,
    ) -> None:
        self.config, self.tracker, self.files = config, tracker, files
        self.should_stop, self.ask_signal = should_stop, signalled
        self.content, self.sweep, self.sigterm_stops = content, sweep, sigterm_stops
        self.begun = self.closed = False
        self.checked: Pass | None = None
        self.checkpoints = Checkpoints(files.last, files.best)
        # As a checkpoint has it: of a thousand epochs each is put into words once.
        self.rows: list[dict[str, Any]] = list(content["history"]) if content else []
        self.history = [EpochRecord(**row) for row in self.rows]
        self.best = Best(**content["best"]) if content and content["best"] else None
        self.epoch: int = content["epoch"] if content else config.initial_epoch
        self.started = time.monotonic() - (content["seconds"] if content else 0.0)

    def go(self, device: torch.device) -> RunResult:
        """Prepare, train to the end, and tell the tracker how it ended."""
        too_large = ""
        try:
            self._prepare(device)
            tested = test_of(self.files) if self.content else None
            self._begin()
            if not self.content:
                self.checkpoints.keep(self._state(), best=False)
                self.checkpoints.write()
            reason = self._train()
            if self.checked is not None and self.epoch < self.config.epochs:
                self.tracker.images(self.epoch - 1, self._shown)
            state = State.STOPPED if reason else State.FINISHED
            kept = tested if self.content and self.content["epoch"] == self.epoch else None
            result = self._result(state, stop_reason=reason, test=kept)
        except LossNotFinite as error:
            lr = self.session.stepper.optimizer.param_groups[0]["lr"]
            text = (
                f"loss is {error.loss} at epoch {self.epoch}, step {error.step}, lr {lr:g};"
                " lower --lr, or train with --amp=off"
            )
            result = self._result(State.FAILED, error=text)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            too_large = str(error).splitlines()[0] or "MemoryError"
        except Interrupted as error:
            result = self._interrupted(error.signum, error.steps)
        except KeyboardInterrupt:
            result = self._interrupted(signal.SIGINT, 0)
        except Exception as error:
            if not is_agents_stop(error):
                raise
            result = self._stopped()
        if too_large:  # Only now the error is gone, and what it held of the memory.
            result = self._result(State.FAILED, error=self._advice(too_large))
        self.checkpoints.write()
        self._say_end(result)
        if self.sweep and not self.begun:  # Whoever searches must learn how every trial ended.
            self._begin()
        if self.begun:
            self.tracker.close(result)
            self.closed = True
        return result

    def _begin(self) -> None:
        prepared = hasattr(self, "session")
        start = Start(
            self.files,
            self.config.to_dict(),
            self.history,
            self._tracked(),
            self.session.parameters if prepared else None,
        )
        self.begun = True
        self.tracker.start(start)

    def _tracked(self) -> Mapping[str, Any]:
        """What trackers kept of this very run; going on under another name is another run."""
        if not self.content or self.content["run_name"] != self.files.name:
            return {}
        ours = Path(str(self.config.resume)).resolve() == self.files.last.resolve()
        tracked: Mapping[str, Any] = self.content.get("tracking", {}) if ours else {}
        return tracked

    def signalled(self) -> int | None:
        """What asks the run to end; a request from afar counts as SIGTERM does."""
        return self.ask_signal() or (signal.SIGTERM if self.tracker.asked_to_stop else None)

    def _shown(self) -> list[Shown]:
        """Some pictures of the validation split, from the lowest truth to the highest."""
        assert self.checked is not None
        assert self.val is not None
        examples = self.val.examples
        order = examples.targets.argsort(kind="stable")
        chosen = sorted({round(i) for i in np.linspace(0, len(order) - 1, _PICTURES_SHOWN)})
        picked = [int(order[i]) for i in chosen]
        task, labels = self.session.task, self.session.labels
        predictions = task.shown(task.predictions(self.checked.outputs, labels), labels)
        truths = task.shown(examples.targets, labels)
        shown = []
        for i in picked:
            with suppress(ValueError):  # It may be gone by now; the run does not need it.
                image = thumbnail(examples.pictures[i], self.config.crop_bottom)
                shown.append(Shown(image, truths[i], predictions[i]))
        return shown

    def _prepare(self, device: torch.device) -> None:
        ready = prepare(self.config, self.content, device, self.signalled)
        self.session, self.train, self.val, self.digest = ready
        if self.content:
            self._restore(self.content)

    def _restore(self, content: Mapping[str, Any]) -> None:
        restore_into(self.session, content, self.config.resume)
        restore_random_states(content["random"])
        say_changes(content, self.digest)
        source = Path(str(self.config.resume))
        beside = source.with_name(source.name.removesuffix(".pt") + ".best.pt")
        if self.best and self.best.epoch == self.epoch - 1:
            copy_checkpoint(source, self.files.best)
        elif beside.exists() and not self.files.best.exists():
            copy_checkpoint(beside, self.files.best)
        _LOGGER.info("Going on at epoch %d of %d", self.epoch, self.config.epochs)

    def _train(self) -> StopReason | None:
        session = self.session
        reason = self._reason() if self.epoch < self.config.epochs else None
        if reason or self.epoch >= self.config.epochs:
            return reason
        session.prepare_features(self.train, "Features of train")
        if self.val:
            session.prepare_features(self.val, "Features of val")
            baseline = session.baseline(self.train, self.val, "val")
            _LOGGER.info("Baseline that sees no picture: %s", shown(baseline))
        while self.epoch < self.config.epochs:
            record = self._one_epoch()
            self._keep(record)
            reason = self._reason()
            if reason:
                return reason
        return None

    def _one_epoch(self) -> EpochRecord:
        session, epoch = self.session, self.epoch
        watched = "loss_val" if self.val else "loss_train"
        lr = session.stepper.begin(epoch, [r.metrics[watched] for r in self.history])
        started = time.monotonic()
        learned = session.train(self.train, epoch)
        seconds = time.monotonic() - started
        metrics = session.score(self.train, learned, "train")
        steps = {"train": learned.step_losses}
        if self.val:
            try:
                self.checked = session.evaluate(self.val, f"Validation {epoch}")
            except Interrupted as error:
                raise Interrupted(error.signum, len(learned.step_losses)) from None
            val = session.score(self.val, self.checked, "val")
            pairs = zip(metrics.items(), val.items(), strict=True)
            metrics = {key: value for pair in pairs for key, value in pair}
            steps["val"] = self.checked.step_losses
        for split, losses in steps.items():
            self.tracker.log_steps(split, epoch, losses)
        speed = len(self.train.examples) / max(seconds, 1e-9)
        return EpochRecord(epoch, lr, metrics, time.monotonic() - started, speed)

    def _keep(self, record: EpochRecord) -> None:
        """Trackers first, then the checkpoint: what a kill in between loses is done again."""
        watched = Metric.named(TASKS[self.config.task].watch)
        self.history.append(record)
        self.rows.append(asdict(record))
        self.epoch += 1
        value = record.metrics.get(watched.name, math.nan)
        better = math.isfinite(value) and (
            self.best is None or watched.is_better(value, self.best.value)
        )
        if better:
            self.best = Best(record.epoch, watched.name, value)
        _LOGGER.info(
            "Epoch %d: lr=%.4g %s%s",
            record.epoch,
            record.lr,
            shown(record.metrics),
            " (best)" if better else "",
        )
        if self.checked is not None and self.epoch == self.config.epochs:
            self.tracker.images(record.epoch, self._shown)
        self.tracker.log(record)
        due = self.epoch == self.config.epochs or self.checkpoints.due
        # Without a validation the last one is as good as any.
        self.checkpoints.keep(self._state(copied=not due), best=better or not self.val)
        if due:
            self.checkpoints.write()

    def _state(self, *, copied: bool = False) -> dict[str, Any]:
        return {
            **self.session.state(copied=copied),
            "run_name": self.files.name,
            # With its places in full, so that --test_net finds the data from any folder.
            "config": {**self.config.to_dict(), **self._places()},
            "epoch": self.epoch,
            "random": random_states(),
            "data": self.digest,
            "history": list(self.rows),
            "best": asdict(self.best) if self.best else None,
            "seconds": time.monotonic() - self.started,
            "tracking": dict(self.tracker.kept),
        }

    def _places(self) -> Mapping[str, str]:
        given, keep = self.config.data_dir, self.config.options.get("keep", "auto")
        bundled, no_file = given == SAMPLE_DATA, keep in ("auto", "none")
        return {
            "data_dir": given if bundled else str(self.config.data_path.resolve()),
            **({} if no_file else {"keep": str(Path(keep).expanduser().resolve())}),
        }

    def _reason(self) -> StopReason | None:
        patience, best = self.config.patience, self.best
        if patience is not None and best and self.epoch - 1 - best.epoch >= patience:
            value = self.history[-1].metrics[best.metric]
            return StopReason("patience", value=value, threshold=best.value)
        return self.should_stop(tuple(self.history)) if self.history else None

    def _interrupted(self, signum: int, steps: int) -> RunResult:
        if steps:
            _LOGGER.warning(
                "Interrupted in epoch %d after %d steps, which will be done again",
                self.epoch,
                steps,
            )
        if signum == signal.SIGTERM and (self.sigterm_stops or self.tracker.asked_to_stop):
            return self._stopped()
        return self._result(State.INTERRUPTED, signal=signum)

    def _advice(self, error: str) -> str:
        """What to do about memory that was not enough: the largest batch that fits, by trying."""
        size = self.config.batch_size
        if not hasattr(self, "train"):
            return f"out of memory at --batch_size={size}; lower it ({error})"
        cached = self.train.features is not None
        tried = min(size, len(self.train.examples))
        found = largest(tried, lambda count: self.session.fits(count, cached=cached))
        way = f"--batch_size={found} fits" if found else "not even 1 fits, take a smaller --model"
        return f"out of memory at --batch_size={size}; {way} ({error})"

    def _stopped(self) -> RunResult:
        return self._result(State.STOPPED, stop_reason=StopReason("request"))

    def _result(self, state: State, **details: Any) -> RunResult:
        return RunResult(
            run_name=self.files.name,
            state=state,
            config=self.config.to_dict(),
            sweep=self.sweep,
            best=self.best,
            metrics=dict(self.history[-1].metrics) if self.history else {},
            seconds=time.monotonic() - self.started,
            history=tuple(self.history),
            **details,
        )

    def _say_end(self, result: RunResult) -> None:
        if result.state is State.FAILED:
            _LOGGER.error("Failed: %s", result.error)
        if result.state is State.INTERRUPTED:
            last = self.files.last
            resume = f"python -m deep_cnn --resume={quote(str(last))}"
            way = resume if last.exists() else "the same command"
            _LOGGER.warning("Interrupted; go on with: %s", way)
        if result.stop_reason:
            told = asdict(result.stop_reason)
            rule = told.pop("rule")
            numbers = " ".join(f"{name}={v:g}" for name, v in told.items() if v is not None)
            _LOGGER.info("Stopped early by %s %s", rule, numbers)


def shown(metrics: Mapping[str, float]) -> str:
    """Metrics as a line of the log."""
    return " ".join(f"{name}={value:.4g}" for name, value in metrics.items())

"""Fine-tune a network, from the beginning or from a checkpoint."""

import logging
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

from deep_cnn.config import SAMPLE_DATA, TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.files import RunFiles, claim_run
from deep_cnn.resolve import resolve
from deep_cnn.results import RunResult, State, StopReason, SweepTrial
from deep_cnn.tracking import Start, Tracker, TrackingState, is_agents_stop
from deep_cnn.training.checkpoint import Checkpoint, CheckpointWriter, load_checkpoint
from deep_cnn.training.devices import choose_device
from deep_cnn.training.environment import environment
from deep_cnn.training.epochs import (
    Course,
    Run,
    ShouldStop,
    examples,
    make_checkpoint,
    never,
    train,
)
from deep_cnn.training.loop import LossNotFinite
from deep_cnn.training.memory import advise_batch_size, is_out_of_memory
from deep_cnn.training.resume import check_resumable, resume, test_result
from deep_cnn.training.session import Session, open_session
from deep_cnn.training.stop import Interrupted, StopRequest, StopToken

_LOGGER = logging.getLogger("deep_cnn")


def fit(
    config: TrainConfig,
    tracker: Tracker | None = None,
    *,
    should_stop: ShouldStop = never,
    stop: StopToken | None = None,
    files: RunFiles | None = None,
    sweep: SweepTrial | None = None,
) -> RunResult:
    """Fine-tune the network that `config` describes, or go on from the checkpoint config.resume.

    After each epoch the last checkpoint, and the best one if it is better, are saved.

    Args:
        config: The configuration; it is resolved first.
        tracker: Where numbers go; nowhere by default. `FileTracker()` writes what the command line
            writes.
        should_stop: Asked with the epochs so far after each of them; a reason ends the run.
        stop: Asked between two steps; a request ends the run. KeyboardInterrupt does, too.
        files: The files of a trial of a sweep, which are its own already.
        sweep: The sweep that the run belongs to.

    Returns:
        How the run ended. It never raises to say that it was stopped.

    Raises:
        DeepCnnError: The configuration, the data or the checkpoint are not usable.
    """
    if config.dry_run:
        raise ConfigError("--dry_run trains nothing; fit() and sweeps do not take it, drop it")
    run = _open_run(resolve(config), tracker or Tracker(), files, sweep)
    run = replace(run, should_stop=should_stop, stop=_with_tracker(stop, run.tracker))
    course = Course.begin(run.config, run.checkpoint)
    closed = False
    try:
        result = _train_to_the_end(run, course)
        closed = _close(run, course, result)
        return replace(result, unsynced=run.tracker.unsynced)
    finally:
        if not closed:  # A run that never began leaves nothing.
            run.tracker.abandon()
            if not run.files.last.exists():
                run.files.log.unlink(missing_ok=True)


def _open_run(
    config: TrainConfig,
    tracker: Tracker,
    files: RunFiles | None,
    sweep: SweepTrial | None,
) -> Run:
    device = choose_device(config.device)
    _LOGGER.info("Running on %s device", device.type)
    checkpoint = load_checkpoint(Path(config.resume)) if config.resume else None
    if checkpoint is not None:
        check_resumable(config, checkpoint)
    files = files or _choose_files(config, checkpoint)
    return Run(
        config=config.replace(run_name=files.name),
        files=files,
        tracker=tracker,
        sweep=sweep,
        environment=environment(device),
        checkpoint=checkpoint,
        checkpoints=CheckpointWriter(files.last, files.best),
    )


def _choose_files(config: TrainConfig, checkpoint: Checkpoint | None) -> RunFiles:
    """Return the checkpoint's own files, or new ones: an older checkpoint overwrites nothing."""
    if checkpoint is not None:
        files = RunFiles(config.out_path, checkpoint.run_name)
        own = files.last.exists() and files.last.samefile(str(config.resume))
        if config.run_name in (None, files.name) and (own or not files.exist()):
            for rest in files.last.parent.glob(f".{files.name}.*.part"):
                rest.unlink(missing_ok=True)  # Of a save that was killed.
            return files
    files = claim_run(config)
    if config.run_name not in (None, files.name):
        _LOGGER.warning(
            "--run_name=%s is taken or no file name: this run is %s", config.run_name, files.name
        )
    return files


def _with_tracker(stop: StopToken | None, tracker: Tracker) -> StopToken:
    """Return a token that is also set if the run was asked to stop on its page in a dashboard."""

    def asked() -> StopRequest | None:
        return StopRequest(signal.SIGTERM, is_final=True) if tracker.asked_to_stop else None

    return StopToken(asked, *([lambda: stop.reason] if stop else []))


def _train_to_the_end(run: Run, course: Course) -> RunResult:
    """Prepare and train; whatever ends the run, except an error of its user, is a result."""
    no_memory = ""
    try:
        session = course.session = _prepare(run)
        earlier_test = test_result(run.files) if run.checkpoint else None
        _start_tracker(run, course)
        if not run.checkpoint:
            run.checkpoints.keep(make_checkpoint(run, course, session), best=False)
            run.checkpoints.write()
        reason = train(run, course, session)
        if course.validation is not None and course.epoch < run.config.epochs:
            run.tracker.images(course.epoch - 1, lambda: examples(course, session))
        unchanged = run.checkpoint is not None and run.checkpoint.epoch == course.epoch
        test = earlier_test if unchanged else None
        state = State.STOPPED if reason else State.FINISHED
        return _result(run, course, state, stop_reason=reason, test=test)
    except LossNotFinite as error:
        assert course.session is not None
        lr = course.session.stepper.optimizer.param_groups[0]["lr"]
        text = (
            f"loss is {error.loss} at epoch {course.epoch}, step {error.step}, lr {lr:g};"
            " lower --lr, or train with --amp=off"
        )
        return _result(run, course, State.FAILED, error=text)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        no_memory = str(error).splitlines()[0] or "MemoryError"
    except Interrupted as error:
        return _interrupted(run, course, error)
    except KeyboardInterrupt:
        return _interrupted(run, course, Interrupted(StopRequest(signal.SIGINT)))
    except Exception as error:
        if not is_agents_stop(error):
            raise
        return _result(run, course, State.STOPPED, stop_reason=StopReason("request"))
    # Only now the error is gone, and with it what it held of the memory.
    advice = advise_batch_size(course.session, run.config.batch_size, no_memory)
    return _result(run, course, State.FAILED, error=advice)


def _prepare(run: Run) -> Session:
    config = run.config
    if config.data_dir == SAMPLE_DATA and config.task != "digits":
        _LOGGER.info("Data: the bundled sample %s; --data_dir=FOLDER takes yours", SAMPLE_DATA)
    session = open_session(config, ("train", "val"), run.stop, run.checkpoint)
    _LOGGER.info(
        "Run %s: task %s, model %s, %d pictures for training, %d for validation",
        config.run_name,
        config.task,
        config.model,
        len(session.splits["train"]),
        len(session.splits["val"]) if "val" in session.splits else 0,
    )
    if run.checkpoint:
        resume(session, run.checkpoint, run.files, Path(str(config.resume)))
    return session


def _start_tracker(run: Run, course: Course) -> None:
    parameters = course.session.parameters if course.session else None
    start = Start(run.files, run.config.to_dict(), course.history, _tracking_state(run), parameters)
    course.tracked = True
    run.tracker.start(start)


def _tracking_state(run: Run) -> TrackingState:
    """Return what trackers kept of this very run; going on under another name is another run."""
    checkpoint = run.checkpoint
    if checkpoint is None or checkpoint.run_name != run.files.name:
        return TrackingState()
    own = Path(str(run.config.resume)).resolve() == run.files.last.resolve()
    return checkpoint.tracking if own else TrackingState()


def _interrupted(run: Run, course: Course, error: Interrupted) -> RunResult:
    if error.steps:
        text = "Interrupted in epoch %d after %d steps, which will be done again"
        _LOGGER.warning(text, course.epoch, error.steps)
    if error.request.is_final:
        return _result(run, course, State.STOPPED, stop_reason=StopReason("request"))
    return _result(run, course, State.INTERRUPTED, signal=error.request.signum)


def _result(run: Run, course: Course, state: State, **details: Any) -> RunResult:
    return RunResult(
        run_name=run.files.name,
        state=state,
        config=run.config.to_dict(),
        sweep=run.sweep,
        environment=run.environment,
        best=course.best,
        metrics=dict(course.history[-1].metrics) if course.history else {},
        seconds=time.monotonic() - course.started,
        history=tuple(course.history),
        **details,
    )


def _close(run: Run, course: Course, result: RunResult) -> bool:
    """Write what is left, and tell how the run ended; return whether a tracker knows it."""
    run.checkpoints.write()
    _log_end(run, result)
    if run.sweep and not course.tracked:  # A search must learn how every trial ended.
        _start_tracker(run, course)
    if course.tracked:
        run.tracker.close(result)
    return course.tracked


def _log_end(run: Run, result: RunResult) -> None:
    if result.state is State.FAILED:
        _LOGGER.error("Failed: %s", result.error)
    if result.state is State.INTERRUPTED:
        last = run.files.last
        command = f"python -m deep_cnn --resume={quote(str(last))}"
        way = command if last.exists() else "the same command"
        _LOGGER.warning("Interrupted; go on with: %s", way)
    if result.stop_reason:
        values = asdict(result.stop_reason)
        rule = values.pop("rule")
        numbers = " ".join(f"{name}={v:g}" for name, v in values.items() if v is not None)
        _LOGGER.info("Stopped early by %s %s", rule, numbers)

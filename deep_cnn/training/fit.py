"""Fine-tune a network, from the start or from a checkpoint."""

import logging
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from deep_cnn.config import TrainConfig
from deep_cnn.data.content import write_splits
from deep_cnn.effects import format_unused, without_effect
from deep_cnn.errors import CheckpointError, ConfigError, DataError, DeepCnnError, LoadingError
from deep_cnn.files import RunFiles
from deep_cnn.names import TASKS
from deep_cnn.resolve import resolve
from deep_cnn.resources import is_out_of_memory
from deep_cnn.results import RunResult, State, StopReason, SweepTrial
from deep_cnn.run_options import SAMPLE_DATA
from deep_cnn.source import code_arguments, write_archive
from deep_cnn.text import first_line
from deep_cnn.tracking import Start, Tracker, TrackingState, is_agents_stop
from deep_cnn.training.checkpoint import Checkpoint, copy_checkpoint
from deep_cnn.training.devices import threads_restored
from deep_cnn.training.epochs import Run, ShouldStop, make_checkpoint, show_validation, train
from deep_cnn.training.loop import LossNotFinite
from deep_cnn.training.memory import advise_batch_size
from deep_cnn.training.random_states import restore_random_states
from deep_cnn.training.session import Session, open_session
from deep_cnn.training.stop import Interrupted, StopRequest, StopToken, interruptible

_LOGGER = logging.getLogger("deep_cnn")


def fit(
    config: TrainConfig,
    tracker: Tracker | None = None,
    *,
    should_stop: ShouldStop | None = None,
    stop: StopToken | None = None,
    files: RunFiles | None = None,
    sweep: SweepTrial | None = None,
) -> RunResult:
    """Fine-tune the network that `config` describes, or resume from the checkpoint config.resume.

    Args:
        config: The configuration; it is resolved first.
        tracker: The tracker of the run. `FileTracker()` writes the files of the command line.
        should_stop: Called after each epoch with the epochs so far; a returned reason ends the run.
        stop: Checked between two steps; a request ends the run, and so does KeyboardInterrupt.
        files: The files of the run, if a trial of a sweep has reserved them already.
        sweep: The sweep that the run belongs to.

    Returns:
        How the run ended. A stopped run is a result, not an exception. Each epoch has saved the
        last checkpoint, and the best one if it was the best.

    Raises:
        DeepCnnError: The configuration, the data or the checkpoint are not usable.
    """
    if config.dry_run:
        raise ConfigError("--dry_run trains nothing; fit() and sweeps do not take it, drop it")
    tracker = tracker or Tracker()
    with threads_restored():
        stop = _with_tracker(stop, tracker)
        run = Run(resolve(config), tracker, should_stop, stop, files, sweep)
        closed = False
        try:
            result = _train_to_the_end(run)
            closed = _close(run, result)
            return replace(result, unsynced=tracker.unsynced)
        except (ConfigError, DataError) as error:
            closed = _close_failed(run, error)
            raise
        finally:
            if not closed:  # A run that never began leaves nothing.
                tracker.abandon()
                if not run.files.last.exists():
                    run.files.log.unlink(missing_ok=True)


def _with_tracker(stop: StopToken | None, tracker: Tracker) -> StopToken:
    """Return a token that is also set if the run is asked to stop on its web page."""

    def asked() -> StopRequest | None:
        return StopRequest(signal.SIGTERM, is_final=True) if tracker.asked_to_stop else None

    return StopToken(asked, *([lambda: stop.reason] if stop else []))


def _train_to_the_end(run: Run) -> RunResult:
    """Prepare and train; every end of the run except a user error becomes a result."""
    try:
        session = run.session = _prepare(run)
        # Read before the tracker starts, which removes the result of a run that continues.
        run.earlier = RunResult.read(run.files.result) if run.checkpoint else None
        _start_tracker(run)
        files = run.files
        if not (run.checkpoint and files.splits.exists()):
            write_splits(files.splits, session.digests, make_folder=files.may_make_folders)
        if session.sources:
            write_archive(files.source, session.sources, make_folder=files.may_make_folders)
            run.environment["source"] = {each.option: each.digest for each in session.sources}
        if not run.checkpoint:
            run.writer.keep(make_checkpoint(run, session), best=False)
            run.writer.write()
        reason = train(run, session)
        show_validation(run, session)
        state = State.STOPPED if reason else State.FINISHED
        return _result(run, state, stop_reason=reason)
    except LossNotFinite as error:
        assert run.session is not None
        lr = run.session.stepper.optimizer.param_groups[0]["lr"]
        text = f"loss is {error.loss} at epoch {run.epoch}, step {error.step}, lr {lr:g}"
        advice = "lower --lr, or train with --amp=off"
        return _result(run, State.FAILED, error=f"{text}; {advice}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        no_memory = first_line(error)
    except LoadingError as error:
        return _result(run, State.FAILED, error=f"{error}; go on with: {_resuming_command(run)}")
    except Interrupted as error:
        return _interrupted(run, error)
    except KeyboardInterrupt:
        return _interrupted(run, Interrupted(StopRequest(signal.SIGINT)))
    except Exception as error:
        if not is_agents_stop(error):
            raise
        return _result(run, State.STOPPED, stop_reason=StopReason("request"))
    # Only now is the error released, and with it the memory that it referred to.
    advice = advise_batch_size(run.session, run.config.batch_size, no_memory)
    return _result(run, State.FAILED, error=advice)


def _prepare(run: Run) -> Session:
    config = run.config
    if config.data_dir == SAMPLE_DATA and TASKS[config.task].reads_folder:
        _LOGGER.info("Data: the bundled sample %s; --data_dir=FOLDER takes yours", SAMPLE_DATA)
    run.stop.raise_if_set()  # Otherwise a request would wait for the download of the weights.
    with interruptible():
        session = open_session(config, ("train", "val"), run.stop, run.checkpoint)
    session.stepper.follow_own_schedule()
    sizes = {name: len(split) for name, split in session.splits.items()}
    _LOGGER.info(
        f"Run {config.run_name}: task {config.task}, model {config.model}, {sizes['train']}"
        f" pictures for training, {sizes.get('val', 0)} for validation;"
        f" threads: {torch.get_num_threads()}"
    )
    if run.checkpoint:
        _resume(run, run.checkpoint, session)
    elif unused := without_effect(config, session.marked):
        _LOGGER.warning("Options without effect in this run: %s", format_unused(unused))
    return session


def _resume(run: Run, checkpoint: Checkpoint, session: Session) -> None:
    """Restore a run from its checkpoint, including the best checkpoint."""
    source, files = Path(str(run.resumed)), run.files
    session.restore(checkpoint, source)
    if session.stepper.schedule and checkpoint.history:
        session.stepper.schedule.resume(checkpoint.schedule, source)
    try:
        restore_random_states(checkpoint.random)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source} has no states of random generators that fit ({error}); it is damaged or was"
            " changed, take another checkpoint"
        ) from error
    threads = torch.get_num_threads()
    if checkpoint.threads != threads:
        _LOGGER.warning(
            f"The checkpoint was computed with {checkpoint.threads} threads, this is with"
            f" {threads}: numbers may differ in the last digits"
            f" (--threads={checkpoint.threads} repeats them)"
        )
    if checkpoint.data != session.digest:
        _LOGGER.warning("The pictures or scores have changed since the checkpoint")
    best = source.with_name(source.name.removesuffix(".pt") + ".best.pt")
    if checkpoint.best and checkpoint.best.epoch == checkpoint.epoch - 1:
        copy_checkpoint(source, files.best, make_folder=files.may_make_folders)
    elif best.exists() and not files.best.exists():
        copy_checkpoint(best, files.best, make_folder=files.may_make_folders)
    _LOGGER.info("Going on at epoch %d of %d", checkpoint.epoch, session.config.epochs)


def _start_tracker(run: Run) -> None:
    weights = run.session.network.parameters() if run.session else None
    parameters = sum(weight.numel() for weight in weights) if weights else None
    checkpoint = run.checkpoint
    # A copy of a checkpoint, or a new name, begins another run for the trackers.
    own = checkpoint is not None and checkpoint.run_name == run.files.name
    own = own and Path(str(run.resumed)).resolve() == run.files.last.resolve()
    state = checkpoint.tracking if checkpoint and own else TrackingState()
    run.tracked = True
    options = run.config.to_dict()
    run.tracker.start(Start(run.files, options, run.history, state, own, parameters))
    run.is_logged = True


def _interrupted(run: Run, error: Interrupted) -> RunResult:
    if error.steps:
        text = "Interrupted in epoch %d after %d steps, which will be done again"
        _LOGGER.warning(text, run.epoch, error.steps)
    if error.request.is_final:
        return _result(run, State.STOPPED, stop_reason=StopReason("request"))
    return _result(run, State.INTERRUPTED, signal=error.request.signum)


def _result(run: Run, state: State, **details: Any) -> RunResult:
    result = RunResult(
        run_name=run.files.name,
        state=state,
        config=run.config.to_dict(),
        sweep=run.sweep,
        environment=run.environment,
        best=run.best,
        metrics=dict(run.history[-1].metrics) if run.history else {},
        seconds=time.monotonic() - run.started,
        history=tuple(run.history),
        **details,
    )
    if run.earlier is None or run.checkpoint is None:
        return result
    has_new_epochs = run.checkpoint.epoch != run.epoch
    return result.with_tests_of(run.earlier, has_new_epochs=has_new_epochs)


def _close_failed(run: Run, error: DeepCnnError) -> bool:
    """Write that a picture was lost, or the user's code failed, while the run trained.

    Returns whether it is written. A sweep writes by itself how its trials fail.
    """
    if run.sweep or not run.is_logged:
        return False
    run.writer.write()
    run.tracker.close(_result(run, State.FAILED, error=str(error)))
    return True


def _resuming_command(run: Run) -> str:
    is_own = run.files.work is None and run.files.last.exists()
    resume = f"python -m deep_cnn --resume={quote(str(run.files.last))}"
    resume = " ".join([resume, *map(quote, code_arguments(run.config))])
    return resume if is_own else "the same command"


def _close(run: Run, result: RunResult) -> bool:
    """Write and log how the run ended; return whether the tracker has recorded it."""
    run.writer.write()
    if result.state is State.FAILED:
        _LOGGER.error("Failed: %s", result.error)
    if result.state is State.INTERRUPTED:
        _LOGGER.warning("Interrupted; go on with: %s", _resuming_command(run))
    if result.stop_reason:
        numbers = asdict(result.stop_reason)
        rule = numbers.pop("rule")
        text = " ".join(f"{name}={v:g}" for name, v in numbers.items() if v is not None)
        _LOGGER.info("Stopped early by %s %s", rule, text)
    if run.sweep and not run.tracked:  # A search must learn how every trial ended.
        _start_tracker(run)
    if run.tracked:
        run.tracker.close(result)
    return run.tracked

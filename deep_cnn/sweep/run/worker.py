"""Run trials in a warm process, one after the other, until their source has no more."""

import gc
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from deep_cnn.errors import DeepCnnError, OutputError
from deep_cnn.processes import unblock_signals
from deep_cnn.results import RunResult
from deep_cnn.sweep.run.pool import CANNOT_WRITE
from deep_cnn.sweep.run.process import PRELOAD, start_warm
from deep_cnn.text import first_line, printable

_LOGGER = logging.getLogger("deep_cnn")
T = TypeVar("T")


class TrialSource(Protocol[T]):
    """Where a worker gets its trials from, and reports to how they ended."""

    def take(self) -> T | None:
        """Wait for the next trial and return it, or None when there is no more."""

    def run(self, trial: T) -> RunResult:
        """Run a trial."""

    def finish(self, trial: T, result: RunResult) -> None:
        """Report how the run of a trial ended."""

    def fail(self, trial: T, error: BaseException) -> None:
        """Report a trial that has no result; raise `error` if the worker must end with it."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker needs to know; plain values, because they travel to another process.

    Attributes:
        init: Initializes the process as the worker with this number.
        open_source: Opens the worker's source of trials, in its own process.
        preload: The module that the server has imported from which the worker is forked.
    """

    init: Callable[[int], None]
    open_source: Callable[[], TrialSource[Any]]
    preload: str = PRELOAD


def start_worker(config: WorkerConfig, slot: int) -> BaseProcess:
    """Start the worker process number `slot`; raise as `start_warm`."""
    return start_warm(work, (config, slot), f"worker {slot}", config.preload)


def work(config: WorkerConfig, slot: int) -> None:
    """Initialize this process and run trials; exit with CANNOT_WRITE if that is impossible."""
    config.init(slot)
    source = config.open_source()
    unblock_signals()  # Only now can it handle those that have arrived in the meantime.
    gc.collect()
    gc.freeze()  # What is imported stays: collecting after each trial is then quick.
    try:
        run_trials(source)
    except OutputError:
        raise SystemExit(CANNOT_WRITE) from None


def run_trials(source: TrialSource[T]) -> None:
    """Run trials until the source has no more; whatever goes wrong costs the trial alone."""
    while (trial := source.take()) is not None:
        try:
            source.finish(trial, source.run(trial))
        except (Exception, SystemExit) as error:
            if not isinstance(error, DeepCnnError):
                _LOGGER.exception("Failed: %s", trial)
            source.fail(trial, error)
        _free_memory()


def one_line(error: BaseException) -> str:
    """Return an error as one line, with its type if it is not one of ours."""
    if isinstance(error, DeepCnnError):
        return str(error)
    return printable(f"{type(error).__name__}: {first_line(error) if str(error) else ''}")


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")  # Workers that do not train do without it.
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

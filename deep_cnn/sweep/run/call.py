"""Call a function in a warm process, so that this process does without torch."""

import time
from collections.abc import Callable
from multiprocessing import Pipe, connection
from typing import Any, TypeVar

from deep_cnn.errors import DeepCnnError
from deep_cnn.sweep.run.process import init_worker, start_warm, threads_each
from deep_cnn.training.stop import StopToken

_PAUSE = 0.2
_ATTEMPTS = 10
A = TypeVar("A")
R = TypeVar("R")


def call_in_process(function: Callable[[A], R], argument: A, stop: StopToken) -> R:
    """Return `function(argument)`, computed in a warm process that has imported torch.

    Args:
        function: A function of a module.
        argument: What can be pickled.
        stop: Asked while the other process computes.

    Raises:
        DeepCnnError: The function raised it, or the process died.
        Interrupted: `stop` was set.
    """
    for _ in range(_ATTEMPTS):  # The fork server may be killed, and is then started again.
        try:
            answer = _call(function, argument, stop)
        except (EOFError, OSError) as error:
            reason = f"{type(error).__name__} {error}".strip()
            time.sleep(_PAUSE)  # Until the system has noticed that the server is gone.
            continue
        if isinstance(answer, DeepCnnError):
            raise answer
        result: R = answer
        return result
    raise DeepCnnError(f"a process that reads the data died ({reason}); is there memory enough?")


def _call(function: Callable[[A], R], argument: A, stop: StopToken) -> Any:
    ours, theirs = Pipe(duplex=False)
    process = start_warm(_answer, (theirs, function, argument), "call")
    theirs.close()
    try:
        while not ours.poll(_PAUSE):
            stop.raise_if_set()
        return ours.recv()
    finally:
        process.kill()
        process.join()


def _answer(answer: connection.Connection, function: Callable[[A], R], argument: A) -> None:
    init_worker(0, threads_each(1))
    try:
        answer.send(function(argument))
    except DeepCnnError as error:
        answer.send(error)

"""Estimate the cost of a sweep by running a step of its largest configuration."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from timeit import timeit

from deep_cnn.config import TrainConfig
from deep_cnn.errors import DeepCnnError, SpecError
from deep_cnn.options import is_code
from deep_cnn.processes import end_with_parent
from deep_cnn.progress import Progress
from deep_cnn.resolve import resolve
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.text import first_line

# The number of configurations among which the largest is searched.
_LOOKED_AT = 200
# The mean of a few steps, because a single one varies.
_STEPS = 3


@dataclass(frozen=True, slots=True)
class _Doing:
    """What the process that measures is about to do."""

    text: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The time and memory of the largest configuration.

    `once`, `step` and `check` are seconds: per picture before the first epoch, per training step,
    and per picture in validation. `memory` is the peak in bytes of the whole process, and
    `device_memory` that of the GPU or None. `train` and `val` are numbers of pictures.
    """

    config: TrainConfig
    train: int
    val: int
    once: float
    step: float
    check: float
    memory: int
    device_memory: int | None

    def seconds(self, config: TrainConfig) -> float:
        """Return the seconds that a trial takes at this speed; smaller trials take less."""
        picture = self.step / min(self.config.batch_size, self.train)
        epoch = self.train * picture + self.val * self.check
        return (self.train + self.val) * self.once + config.epochs * epoch


def probe(spec: SweepSpec) -> list[str]:
    """Return lines with the time and memory of the largest trial and the time of the sweep."""
    configs = [resolve(spec.config(point)) for point in first_points(spec, 0, _LOOKED_AT)]
    # Memory grows with the trainable parameters times the pictures per step.
    largest = max(configs, key=lambda c: (_trainable(c) * c.batch_size, c.epochs))
    _say(f"trying the largest of {len(configs)} configurations, {_name(largest)}")
    cost = _measure_apart(largest.replace(wandb=False))
    trials = spec.run_cap if spec.points is None else min(spec.points, spec.run_cap or spec.points)
    memory = f"memory {cost.memory / 2**30:.2f} GiB"
    if cost.device_memory is not None:
        memory += f", GPU {cost.device_memory / 2**30:.2f} GiB"
    lines = [
        f"largest configuration: {_name(largest)}, {cost.train} pictures for training, {cost.val}"
        " for validation",
        f"a step takes {cost.step:.3g} s; {memory}",
        f"a trial of {largest.epochs} epochs takes {_duration(cost.seconds(largest))} at most",
    ]
    if trials is None:
        return [*lines, "the sweep has no end: add run_cap to the file"]
    total = _duration(trials * sum(map(cost.seconds, configs)) / len(configs))
    return [*lines, f"{trials} trials take {total} at most, one after the other on this machine"]


def _name(config: TrainConfig) -> str:
    return f"--model={config.model} --batch_size={config.batch_size} --pre={config.pre}"


def _say(text: str) -> None:
    print(f"probe: {text}", file=sys.stderr, flush=True)


def _trainable(config: TrainConfig) -> int:
    return _parameters(config.model, config.freeze, config.task)


@cache
def _parameters(model: str, freeze: int | str, task: str) -> int:
    from deep_cnn.models import Network, Unallocated, build_network
    from deep_cnn.models.own import build_own
    from deep_cnn.tasks import get_task

    network: Network
    if is_code(model):
        network = build_own(model, 1, get_task(task).input_spec)
    else:
        with Unallocated():
            network = build_network(model, 1, weights="none", dropout=0.0)
    network.freeze(freeze)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _measure_apart(config: TrainConfig) -> Probe:
    """Take a step in another process, which has its own peak memory and may die."""
    # A forked process would begin with the memory of this one.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(config, theirs))
    process.start()
    theirs.close()
    try:
        while isinstance(answer := ours.recv(), _Doing):
            _say(answer.text)
    except EOFError:
        process.join()
        raise SpecError(
            f"--batch_size={config.batch_size} with --model={config.model}: the process died"
            f" (status {process.exitcode}); it is out of memory, use a smaller batch_size"
        ) from None
    process.join()
    if isinstance(answer, str):
        raise SpecError(answer)
    assert isinstance(answer, Probe)
    return answer


def _measure(config: TrainConfig, answer: Connection) -> None:
    end_with_parent(os.getppid())
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - the parent's alone.
    logging.disable()
    try:
        answer.send(_steps(config, lambda text: answer.send(_Doing(text))))
    except DeepCnnError as error:
        answer.send(str(error))
    except (RuntimeError, MemoryError) as error:
        answer.send(
            f"--batch_size={config.batch_size} with --model={config.model} fails"
            f" ({first_line(error)}); use a smaller batch_size"
        )


def _steps(config: TrainConfig, say: Callable[[str], None]) -> Probe:
    """Take a few steps, and call `say` with each thing before it is done."""
    import resource

    import torch

    from deep_cnn.training.devices import choose_threads
    from deep_cnn.training.loop import compute_features, evaluate, learn
    from deep_cnn.training.session import open_session
    from deep_cnn.training.stop import StopToken

    count = config.train_samples
    one_batch = min(config.batch_size, count or config.batch_size)
    # The cache would hide the cost of decoding, and keep what no run needs.
    limited = config.replace(train_samples=one_batch, cache="off")
    torch.set_num_threads(choose_threads(config))
    say("reading the data, building the network")
    session = open_session(limited, ("train",), StopToken())
    pictures, progress = len(session.splits["train"]), Progress("Probe", 1)
    say(f"preparing {pictures} pictures, as once before the first epoch")
    once = timeit(lambda: compute_features(session, "train"), number=1) / pictures
    say(f"a first training step with {pictures} pictures")
    learn(session, 0, progress)  # The first one warms up.
    say(f"{_STEPS} more training steps")
    epochs = iter(range(1, _STEPS + 1))
    step = timeit(lambda: learn(session, next(epochs), progress), number=_STEPS) / _STEPS
    say("a validation step")
    check = timeit(lambda: evaluate(session, "train", progress), number=1) / pictures
    # The system counts in KiB, but macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    on_gpu = torch.cuda.max_memory_reserved() if session.device.type == "cuda" else None
    train = min(session.sizes["train"], count or session.sizes["train"])
    return Probe(config, train, session.sizes["val"], once, step, check, peak, on_gpu)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"

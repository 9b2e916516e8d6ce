"""What a sweep would cost: one step of its largest configuration, taken for real."""

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from deep_cnn.config import TrainConfig
from deep_cnn.errors import DeepCnnError, SpecError
from deep_cnn.resolve import resolve
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import SweepSpec

# How many configurations are looked at to find the largest.
_LOOKED_AT = 200
_STEPS = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """What the largest configuration took.

    `once`, `step` and `check` are seconds: for a picture before the first epoch, for a step of
    learning, for a picture of validation. `memory` is the peak in bytes of the whole process,
    `device_memory` that of the GPU or None; `train` and `val` count pictures.
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
        """Return the seconds that a trial takes at this speed, or less if it is smaller."""
        picture = self.step / min(self.config.batch_size, self.train)
        epoch = self.train * picture + self.val * self.check
        return (self.train + self.val) * self.once + config.epochs * epoch


def probe(spec: SweepSpec) -> list[str]:
    """Return lines with the time and memory of the largest trial and the time of the sweep."""
    configs = [resolve(spec.config(point)) for point in first_points(spec, 0, _LOOKED_AT)]
    largest = _largest(configs)
    found = _apart(largest.replace(wandb=False))
    trials = spec.run_cap if spec.points is None else min(spec.points, spec.run_cap or spec.points)
    name = f"--model={largest.model} --batch_size={largest.batch_size} --pre={largest.pre}"
    lines = [
        f"largest configuration: {name}, {found.train} pictures for training,"
        f" {found.val} for validation",
        f"a step takes {found.step:.3g} s; memory {_bytes(found.memory)}"
        + (f", GPU {_bytes(found.device_memory)}" if found.device_memory is not None else ""),
        f"a trial of {largest.epochs} epochs takes {_duration(found.seconds(largest))} at most",
    ]
    if trials is None:
        return [*lines, "the sweep has no end: add run_cap to the file"]
    mean = sum(map(found.seconds, configs)) / len(configs)
    total = _duration(trials * mean)
    return [*lines, f"{trials} trials take {total} at most, one after the other on this machine"]


def _largest(configs: Sequence[TrainConfig]) -> TrainConfig:
    """By parameters that learn times pictures in a step: what memory grows with."""
    sizes: dict[tuple[str, int | str], int] = {}
    for config in configs:
        key = (config.model, config.freeze)
        if key not in sizes:
            sizes[key] = _parameters(config)
    return max(configs, key=lambda c: (sizes[c.model, c.freeze] * c.batch_size, c.epochs))


def _parameters(config: TrainConfig) -> int:
    from deep_cnn.models import Unallocated, build_network

    with Unallocated():
        network = build_network(config.model, 1, weights="none", dropout=0.0)
    network.freeze(config.freeze)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _apart(config: TrainConfig) -> Probe:
    """Measure in a process of its own: its peak of memory is its own, and it may die."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(config, theirs))
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
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
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - the parent's alone.
    logging.disable()
    try:
        answer.send(_steps(config))
    except DeepCnnError as error:
        answer.send(str(error))
    except (RuntimeError, MemoryError) as error:
        answer.send(
            f"--batch_size={config.batch_size} with --model={config.model} fails"
            f" ({str(error).splitlines()[0]}); use a smaller batch_size"
        )


def _steps(config: TrainConfig) -> Probe:
    import resource

    import torch

    from deep_cnn.training.loop import compute_features, evaluate, learn
    from deep_cnn.training.session import open_session
    from deep_cnn.training.stop import StopToken

    count = config.train_samples
    one_batch = min(config.batch_size, count or config.batch_size)
    limited = config.replace(train_samples=one_batch, cache="off")
    session = open_session(limited, ("train",), StopToken())
    begun = time.perf_counter()
    compute_features(session, "train")
    pictures = len(session.splits["train"])
    once = (time.perf_counter() - begun) / pictures
    learn(session, 0)  # The first one warms up.
    begun = time.perf_counter()
    for epoch in range(1, _STEPS + 1):
        learn(session, epoch)
    step = (time.perf_counter() - begun) / _STEPS
    begun = time.perf_counter()
    evaluate(session, "train", "Validation")
    check = (time.perf_counter() - begun) / pictures
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    on_gpu = torch.cuda.max_memory_reserved() if session.device.type == "cuda" else None
    train = min(session.sizes["train"], count or session.sizes["train"])
    return Probe(config, train, session.sizes["val"], once, step, check, peak, on_gpu)


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"

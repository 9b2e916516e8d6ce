"""The warm process that runs what the agent is given, one run after the other."""

import gc
import logging
import os
import queue
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from deep_cnn.argv import parse_run
from deep_cnn.config import TrainConfig
from deep_cnn.errors import DeepCnnError
from deep_cnn.resolve import resolve
from deep_cnn.sweep.process import settle
from deep_cnn.sweep.remote import ServedJob
from deep_cnn.sweep.served import report_death, report_failure, run_served
from deep_cnn.sweep.spec.command import expand, program_end

_LOGGER = logging.getLogger("deep_cnn")
# A run handed back ends as one that a scheduler preempts.
_SIGNALS = {"stop": signal.SIGTERM, "preempt": getattr(signal, "SIGUSR1", signal.SIGTERM)}


def work(orders: Connection, job: ServedJob, slot: int) -> None:
    """Run what is ordered until the order to end, or until the agent is gone."""
    settle(slot, job.threads)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # The agent says what is to end, by name.
    os.environ.pop("WANDB_MODE", None)
    os.environ["WB_PROJECT"] = job.project  # As the agent was told, whatever stood there.
    if job.entity:
        os.environ["WB_USER"] = job.entity
    gc.collect()
    gc.freeze()  # What is imported stays: collecting after each run is then quick.
    _LOGGER.addHandler(_Warnings(orders))
    _Worker(orders, job).run()


class _Warnings(logging.Handler):
    """Passes on what the agent's user must know of W&B."""

    def __init__(self, orders: Connection) -> None:
        super().__init__()
        self.orders = orders

    def emit(self, record: logging.LogRecord) -> None:
        """Warnings, and the command that uploads what was kept."""
        text = record.getMessage()
        if "W&B" in text and (record.levelno >= logging.WARNING or "wandb sync" in text):
            with suppress(OSError):
                self.orders.send(("said", text))


class _Worker:
    def __init__(self, orders: Connection, job: ServedJob) -> None:
        self.orders, self.job = orders, job
        self.waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        # What is to end, and how; it may be asked before the run is begun, or when it is over.
        self.asked: dict[str, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        while (order := self.waiting.get()) is not None:
            answer = self._run(order)
            self.asked.pop(order["run_id"], None)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if answer is not None:
                self.orders.send(answer)

    def _listen(self) -> None:
        """Orders arrive while a run is on: a stop that comes late must not end the next run."""
        while True:
            try:
                order = self.orders.recv()
            except (EOFError, OSError):
                os._exit(1)
            if order["type"] in _SIGNALS:
                self.asked[order["run_id"]] = _SIGNALS[order["type"]]
            else:
                self.waiting.put(None if order["type"] == "end" else order)

    def _run(self, order: Mapping[str, Any]) -> tuple[str, str] | None:
        """How the run ended, or None where nobody waits for it."""
        sweep = {"name": self.job.sweep, "trial": order["run_id"]}
        remote = {
            "sweep_id": self.job.sweep,
            "run_id": order["run_id"],
            "entity": self.job.entity,
            "project": self.job.project,
            "arguments": order["arguments"],
        }
        given: Mapping[str, Any] = order["arguments"]
        try:
            words = expand(self.job.command, self.job.program, order["arguments"])
            given = parse_run(words[program_end(words) :], from_agent=True)
            config = resolve(TrainConfig.parse({"wandb": True, **given}))
        except DeepCnnError as error:
            report_failure(given, sweep, str(error), remote)
            return "failed", str(error)
        if order["type"] == "died":
            report_death(config, sweep, order["error"], remote)
            return None
        try:
            result = run_served(config, sweep, lambda: self.asked.get(order["run_id"]), remote)
        except DeepCnnError as error:
            return "failed", str(error)
        except Exception as error:  # Whatever it is costs this run, not the agent.
            _LOGGER.exception("Run %s failed", order["run_id"])
            return "failed", f"{type(error).__name__}: {error}".splitlines()[0]
        best = result.best
        text = f"best {best.metric}={best.value:.6g}" if best else result.error or ""
        return str(result.state), f"{result.run_name} {text}"

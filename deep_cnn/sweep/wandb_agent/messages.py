"""Define the messages that the agent and its workers send to each other through pipes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Assignment:
    """The agent asks a worker to run an assignment of W&B's server with these parameters."""

    run_id: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StopRun:
    """The agent asks a worker to stop a run for good or, if `preempt`, to save it for another."""

    run_id: str
    preempt: bool = False


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """The agent asks a worker to report that the process of a run has died."""

    assignment: Assignment
    error: str


@dataclass(frozen=True, slots=True)
class EndWorker:
    """The agent asks a worker to exit after its current runs."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A worker reports how its run ended."""

    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A worker passes on a log record that the agent's user must see."""

    text: str


ToWorker = Assignment | StopRun | ReportDeath | EndWorker
ToAgent = RunEnded | Notice

"""Define what the agent and its workers send to each other through their pipes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run that W&B's server has assigned, with its parameters; the agent sends it to run it."""

    run_id: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StopRun:
    """Asks a worker to stop a run for good, or to save it for another agent if `preempt`."""

    run_id: str
    preempt: bool = False


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """Asks a worker to report that the process of a run has died."""

    assignment: Assignment
    error: str


@dataclass(frozen=True, slots=True)
class EndWorker:
    """Asks a worker to end after the runs that it has."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Says how the run of a worker ended."""

    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Passes on a log record that the agent's user must see."""

    text: str


ToWorker = Assignment | StopRun | ReportDeath | EndWorker
ToAgent = RunEnded | Notice

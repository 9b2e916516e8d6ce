"""The pool of workers with a table of fake processes: replaced, counted, asked to end, killed."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deep_cnn.errors import OutputError
from deep_cnn.sweep.run.pool import CANNOT_WRITE, LOST_CLAIM, NO_SERVER, Death, WorkerPool


@dataclass
class FakeProcess:
    """A process that ends when the test says so; a stubborn one does not end when asked."""

    pid: int | None
    stubborn: bool = False
    exitcode: int | None = None
    calls: list[str] = field(default_factory=list)

    def terminate(self) -> None:
        self.calls.append("terminate")
        if not self.stubborn and self.exitcode is None:
            self.exitcode = 0

    def kill(self) -> None:
        self.calls.append("kill")
        self.exitcode = -9 if self.exitcode is None else self.exitcode

    def join(self, timeout: float | None = None) -> None:
        self.calls.append("join")


class Table:
    """Every process that the pool has started, and the one that is in each slot now."""

    def __init__(self, count: int, stubborn: bool = False) -> None:
        self.started: list[FakeProcess] = []
        self.current: dict[int, FakeProcess] = {}
        self.stubborn = stubborn
        self.pool = WorkerPool(self.start, count, grace=1.0, out=Path("results"))
        self.pool.start()

    def start(self, slot: int) -> FakeProcess:
        process = FakeProcess(len(self.started), self.stubborn)
        self.started.append(process)
        self.current[slot] = process
        return process

    def end(self, slot: int, exitcode: int) -> list[Death]:
        self.current[slot].exitcode = exitcode
        return self.pool.replace_dead()


def test_a_worker_that_dies_is_replaced_and_named() -> None:
    table = Table(2)
    assert table.pool.replace_dead() == []
    assert table.end(1, -9) == [Death(1, -9)]
    assert [process.pid for process in table.current.values()] == [0, 2]
    assert table.pool.is_alive(1)
    assert (Death(1, -9).reason, Death(1, 3).reason) == ("signal 9", "status 3")
    assert table.pool.error is None


def test_workers_that_are_done_are_not_replaced() -> None:
    table = Table(2)
    assert table.end(0, 0) == []
    assert not table.pool.is_alive(0)
    assert not table.pool.done
    assert table.end(1, 0) == []
    assert table.pool.done
    assert len(table.started) == 2


def test_trials_that_were_taken_over_do_not_count_as_deaths() -> None:
    table = Table(1)
    for _ in range(9):
        assert table.end(0, LOST_CLAIM) == [Death(0, LOST_CLAIM)]
    assert table.pool.error is None


def test_five_deaths_before_a_trial_end_the_pool() -> None:
    table = Table(2)
    for slot in (0, 1, 0, 1):
        table.end(slot, 1)
        assert table.pool.error is None
    table.end(0, 1)
    assert table.pool.error == "5 workers died before they began a trial; is there memory enough?"


def test_a_fork_server_that_dies_counts_once_for_all_of_its_workers() -> None:
    table = Table(8)
    for count in range(1, 6):
        assert table.pool.error is None
        for process in table.current.values():
            process.exitcode = NO_SERVER
        assert {death.reason for death in table.pool.replace_dead()} == {"its fork server is gone"}
        assert len(table.started) == 8 * (count + 1)
    assert table.pool.error is not None


def test_a_worker_that_cannot_be_started_is_tried_again_five_times() -> None:
    started: list[FakeProcess] = []

    def start(slot: int) -> FakeProcess:
        if len(started) < 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return FakeProcess(slot, False)

    pool = WorkerPool(start, 1, grace=1.0, out=Path("results"))
    pool.start()
    for _ in range(5):
        assert pool.error is None
        assert pool.replace_dead() == [Death(0, NO_SERVER)]
    assert pool.error == (
        "5 workers died before they began a trial (Too many open files); is there memory enough?"
    )
    started += [FakeProcess(0, False)] * 2
    pool.replace_dead()
    assert pool.is_alive(0)
    pool.stop()


def test_deaths_in_trials_do_not_end_the_pool() -> None:
    table = Table(1)
    for _ in range(12):
        table.pool.record_begin()
        table.end(0, -11)
    assert table.pool.error is None
    assert len(table.started) == 13


def test_five_trials_that_fail_in_a_row_end_the_pool() -> None:
    pool = Table(1).pool
    for trial in range(4):
        pool.record_failure(trial, "broke")
        pool.record_failure(trial, "broke again")
    assert pool.error is None
    pool.record_success()
    for trial in range(4, 8):
        pool.record_failure(trial, "broke")
    assert pool.error is None
    pool.record_failure("other", "loss is nan")
    assert pool.error == "5 failures in a row, the last one: loss is nan"


def test_a_worker_that_cannot_write_ends_the_pool() -> None:
    table = Table(2)
    with pytest.raises(OutputError, match=r"^results: a worker could not write there"):
        table.end(0, CANNOT_WRITE)
    assert len(table.started) == 2
    table.pool.stop()
    assert table.current[1].calls[0] == "terminate"


def test_workers_that_end_when_asked_are_not_killed() -> None:
    table = Table(2)
    table.pool.stop()
    assert [process.calls for process in table.started] == [["terminate", "join"]] * 2
    table.pool.stop()
    assert [len(process.calls) for process in table.started] == [2, 2]


def test_workers_that_do_not_end_are_killed_after_all_were_asked() -> None:
    table, asked = Table(2, stubborn=True), []

    def ask(slot: int) -> None:
        assert not any(process.calls for process in table.started)
        asked.append(slot)

    table.pool.stop(ask)
    assert asked == [0, 1]
    assert [process.calls for process in table.started] == [["join", "kill", "join"]] * 2


def test_a_worker_that_the_owner_kills_is_replaced() -> None:
    table = Table(1)
    table.pool.kill(0)
    assert table.pool.replace_dead() == [Death(0, -9)]
    assert table.pool.is_alive(0)

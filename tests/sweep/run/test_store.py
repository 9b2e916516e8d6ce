"""The trial store without training: operations counted, delayed and hidden, kills at each of them.

Processes are forks of this one; hosts are names, as another machine on the same file system has.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deep_cnn.errors import ConfigError, OutputError
from deep_cnn.files import RunFiles, temporary_path, write_text
from deep_cnn.results import EpochRecord, RunResult, State
from deep_cnn.sweep.run.engine import EngineOptions, LocalSweep
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.identity import SweepRecord
from deep_cnn.sweep.run.owner import Owners
from deep_cnn.sweep.run.pool import LOST_CLAIM
from deep_cnn.sweep.run.records import Trial, TrialOutcome
from deep_cnn.sweep.run.store import FolderStore, lease_seconds
from deep_cnn.sweep.run.store_source import Claim, StoreSource
from deep_cnn.sweep.run.trial import values_of
from deep_cnn.sweep.run.trial_search import StoreConfig
from deep_cnn.sweep.run.writer import Writer
from deep_cnn.sweep.spec.parse import parse_text
from deep_cnn.sweep.spec.points import Proposal

SWEEP = """method: random
run_cap: 3
metric: {name: loss_val, goal: minimize}
early_terminate: {type: hyperband, min_iter: 100}
parameters:
  lr: {min: 0.001, max: 0.1}
command: ["${env}", python, -m, deep_cnn, --task=digits, "${args}"]
"""
SUFFIXES = (".log", ".pt", ".best.pt", ".csv", ".args.json", ".steps_train.csv", ".steps_val.csv")


class Hooked(FolderIO):
    """Calls `before` with the name of each operation; tests count, delay or kill there."""

    def __init__(self, before: Callable[[str], None]) -> None:
        self.before = before

    def __getattribute__(self, name: str) -> Any:
        operation = object.__getattribute__(self, name)
        if name.startswith("_") or name == "before":
            return operation

        def call(*args: Any) -> Any:
            self.before(name)
            return operation(*args)

        return call


class Late(FolderIO):
    """Does not see what was written in the last `seconds`, as with cached attributes on NFS."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def _is_hidden(self, path: Path) -> bool:
        try:
            return time.time() - path.stat().st_ctime < self.seconds
        except OSError:
            return False

    def names(self, folder: Path) -> list[str]:
        return [name for name in super().names(folder) if not self._is_hidden(folder / name)]

    def exists(self, path: Path) -> bool:
        return super().exists(path) and not self._is_hidden(path)


class Worker(StoreSource):
    """Takes trials as a worker does; its runs leave files without training."""

    def __init__(self, config: StoreConfig, io: FolderIO | None = None) -> None:
        super().__init__(config)
        self.store = FolderStore(config.folder, lease=config.lease, io=io or FolderIO())
        self.work.io = self.store.io
        self.search.store = self.store

    def begin(self, claim: Claim) -> RunFiles:
        files = self._open_files(claim)
        for suffix in SUFFIXES:
            files.log.with_name(f"{files.name}{suffix}").write_text(f"{os.getpid()}{suffix}")
        return files

    def end(self, claim: Claim, files: RunFiles, epochs: int = 3) -> None:
        history = tuple(EpochRecord(i, 0.1, {"loss_val": 1 / (i + 1)}) for i in range(epochs))
        for epoch in range(epochs):
            self._check_claim(claim)
            values = values_of(history[: epoch + 1], self.spec.objective)
            self.search.stop_reason(claim.trial.number, values)
        result = RunResult(files.name, State.FINISHED, {}, history=history)
        files.best.unlink(missing_ok=True)  # It is no checkpoint that could be read.
        files.result.write_text(result.to_json())
        self.finish(claim, result)

    def work_off(self) -> None:
        while (claim := self.take()) is not None:
            self.end(claim, self.begin(claim))


def begin(known: SweepRecord | None) -> SweepRecord:
    return known or SweepRecord({}, 0)


def open_sweep(folder: Path, text: str = SWEEP) -> LocalSweep:
    spec, findings = parse_text(text, "s")
    assert spec, findings
    return LocalSweep(spec, folder / "outputs", EngineOptions(), spec.run_cap)


def in_fork(call: Callable[[], object]) -> int:
    """Return the exit status of a forked process that calls."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def assert_whole(folder: Path, count: int = 3) -> None:
    """Every trial is over once, its files are in their places, and nothing else is left."""
    sweep = open_sweep(folder)
    trials = sweep.store.trials()
    assert [trial.state for trial in trials] == ["finished"] * count
    assert len({json.dumps(trial.point) for trial in trials}) == count
    assert not list(sweep.config.folder.glob("work/*"))
    assert not list(folder.rglob("*.part"))
    out = folder / "outputs"
    names = sorted(path.name for path in (out / "results").glob("*.json"))
    assert names == sorted(
        f"s-{n:05d}{kind}" for n in range(count) for kind in (".args.json", ".json")
    )
    assert sorted(path.name for path in (out / "logger").iterdir()) == [
        f"s-{n:05d}.log" for n in range(count)
    ]
    for trial in trials:
        writers = {
            path.read_text().split(".")[0]
            for path in out.glob(f"*/{trial.run_name}.*")
            if path.suffix != ".json" or path.name.endswith(".args.json")
        }
        assert len(writers) == 1, f"files of two owners in {trial.run_name}"


def test_a_kill_at_any_operation_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """The n-th operation of a worker is its last, for each n there is."""
    number = killed = 0
    while killed == number:
        number += 1
        folder = tmp_path / str(number)
        config = open_sweep(folder).config
        left = number

        def kill_at_zero(name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)

        killed += in_fork(lambda c=config, k=kill_at_zero: Worker(c, Hooked(k)).work_off()) == 9
        assert in_fork(lambda c=config: Worker(c).work_off()) == 0, number
        assert_whole(folder)
    assert killed > 60


def test_an_owner_that_was_taken_for_dead_touches_nothing_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = open_sweep(tmp_path).config
    monkeypatch.setenv("DEEP_CNN_HOST", "sleeper")
    sleeper = Worker(config)
    claim = sleeper.take()
    assert claim is not None
    files = sleeper.begin(claim)
    monkeypatch.setenv("DEEP_CNN_HOST", "other")
    path = config.folder / "trials" / "00000" / "00000.claim.0"
    os.utime(path, (path.stat().st_mtime - 2 * config.lease,) * 2)
    assert in_fork(lambda: Worker(config).work_off()) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setenv("DEEP_CNN_HOST", "sleeper")
    # It writes what it has not yet written, a checkpoint; its folder is gone.
    with pytest.raises(FileNotFoundError):
        files.last.write_text("too late")
    assert in_fork(lambda: sleeper.fail(claim, RuntimeError("late"))) == LOST_CLAIM
    assert in_fork(lambda: sleeper._check_claim(claim)) == LOST_CLAIM
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert_whole(tmp_path)


def test_the_next_owner_begins_with_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    import torch

    config = open_sweep(tmp_path).config
    from deep_cnn.config import TrainConfig
    from deep_cnn.training.fit import fit

    run = TrainConfig.parse(
        {"task": "digits", "epochs": 1, "train_samples": 30, "out_dir": str(tmp_path / "run")}
    )
    fit(run.replace(run_name="r"))
    good = (tmp_path / "run" / "models" / "r.pt").read_bytes()
    worker = Worker(config)
    claim = worker.take()
    assert claim is not None
    files = worker._open_files(claim)
    files.last.write_bytes(good)
    files.log.write_text("first\n")
    assert not (tmp_path / "outputs" / "models" / "s-00000.pt").exists()
    second = worker.work.open(0, 1, "s-00000", lambda path: True)
    second.last.unlink()
    second.last.write_bytes(good[: len(good) // 2])
    from deep_cnn.training.checkpoint import is_whole

    third = worker.work.open(0, 2, "s-00000", is_whole)
    assert third.last.read_bytes() == good
    assert third.log.read_text() == "first\n"
    third.last.unlink()
    assert files.last.exists()
    assert torch.load(files.last, weights_only=True)["epoch"] == 1


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_two_hosts_that_see_writes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    config = open_sweep(tmp_path, SWEEP.replace("run_cap: 3", "run_cap: 8")).config
    pids = []
    for name in "ab":
        monkeypatch.setenv("DEEP_CNN_HOST", name)
        pid = os.fork()
        if pid == 0:
            try:
                Worker(config, Late(delay)).work_off()
            except BaseException as error:
                os.write(2, f"{error!r}\n".encode())
                os._exit(99)
            os._exit(0)
        pids.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert set(statuses) <= {0, LOST_CLAIM}
    assert in_fork(lambda: Worker(config).work_off()) == 0
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert len(list(folder.glob("trials/*/*.done"))) == 8
    spec_text = SWEEP.replace("run_cap: 3", "run_cap: 8")
    assert [t.state for t in open_sweep(tmp_path, spec_text).store.trials()] == ["finished"] * 8


@pytest.mark.parametrize("count", [30, 300])
def test_operations_do_not_grow_with_the_number_of_trials(tmp_path: Path, count: int) -> None:
    text = SWEEP.replace("run_cap: 3", f"run_cap: {count}").replace("min_iter: 100", "min_iter: 1")
    config = open_sweep(tmp_path, text).config
    operations: Counter[str] = Counter()
    worker = Worker(config, Hooked(lambda name: operations.update([name])))
    epochs = 0
    for _ in range(count - 1):
        claim = worker.take()
        assert claim is not None
        worker.end(claim, worker.begin(claim), epochs=0)
    per_trial = operations.total() / (count - 1)
    assert per_trial <= 20, operations
    claim = worker.take()
    assert claim is not None
    files = worker.begin(claim)
    operations.clear()
    for epochs in range(1, 11):
        worker._check_claim(claim)
        worker.search.stop_reason(claim.trial.number, [1.0] * epochs)
    assert operations.total() / 10 <= 5, operations
    worker.end(claim, files)


ODD = {
    "00000.claim.0 (conflicted copy)": "{}",
    "00000.trial~": "x",
    "0.trial": "{}",
    "000000.trial": '{"point": {}}',
    "12345678901234567890.trial": '{"point": {}}',
    ".00000.trial.swp": "x",
    "00000.end.x": "{}",
    "desktop.ini": "",
}
WRONG = {
    "trial": ['{"point": 5}', "[]", "5", '{"point": {}, "u": {"lr": 2}}', "\x00", "{" * 5000],
    "claim.0": ["[]", '{"host": 1, "pid": "x"}', '{"host": "h", "pid": 99999999999999999999}'],
    "run": ['{"run_name": "../../../evil"}', '{"run_name": 3}', '{"run_name": ""}', "null"],
    "end.0": ['{"state": "over"}', '{"state": 4}', "[]", '{"state": "failed", "error": 3}'],
    "done": [
        '{"state": "running", "value": 1}', '{"state": "finished", "value": "x"}', "3",
        '{"state": "finished", "value": NaN}', '{"state": "finished", "value": 1, "claim": "x"}',
        '{"state": "finished", "value": 1, "stop_reason": 3}',
        '{"state": "finished", "value": 1, "run_name": "/etc/passwd"}',
        '{"state": "finished", "value": 1, "values": [[]]}', '{"state": "finished", "value": 1}',
        '{"state": "finished", "value": 1, "values": [1], "claim": 3000000000000}',
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_damaged_file_costs_at_most_its_own_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for number, text in enumerate(WRONG[kind]):
        folder = tmp_path / str(number)
        config = open_sweep(folder).config
        assert in_fork(lambda c=config: Worker(c).work_off()) == 0
        block = config.folder / "trials" / "00000"
        for name, content in ODD.items():
            (block / name).write_text(content)
        if kind in ("end.0", "claim.0", "run"):
            (block / "00001.done").unlink()
        (block / f"00001.{kind}").write_text(text)
        # The owner of a claim that cannot be read counts as alive for a lease.
        monkeypatch.setenv("DEEP_CNN_LEASE", "0.1")
        time.sleep(0.15)
        sweep = open_sweep(folder)
        assert in_fork(lambda c=sweep.config: Worker(c).work_off()) == 0
        states = [trial.state for trial in open_sweep(folder).store.trials()]
        assert states == ["finished"] * 3, text
        assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "inf", "1s"])
def test_a_lease_is_a_positive_number(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^DEEP_CNN_LEASE={text} is not a positive number"):
        lease_seconds({"DEEP_CNN_LEASE": text})
    assert lease_seconds({"DEEP_CNN_LEASE": "3.5"}) == 3.5
    assert lease_seconds({}) == 60


def test_a_name_that_is_taken_is_left_alone_and_a_killed_trial_keeps_its_own(
    tmp_path: Path,
) -> None:
    config = open_sweep(tmp_path).config
    foreign = RunFiles(tmp_path / "outputs", "s-00000")
    foreign.log.write_text("a run of yours\n")
    worker = Worker(config)
    claim = worker.take()
    assert claim is not None
    assert worker._open_files(claim).name == "s-00000-2"
    worker.store.give_back(0, claim.number, "interrupted")
    again = worker.take()
    assert again is not None
    assert worker._open_files(again).name == "s-00000-2"
    second = worker.take()
    assert second is not None
    assert worker._open_files(second).name == "s-00001"
    worker.store.give_back(1, second.number, "interrupted")
    third = worker.take()
    assert third is not None
    assert third.trial.number == 1
    assert worker._open_files(third).name == "s-00001"
    assert foreign.log.read_text() == "a run of yours\n"


@pytest.mark.parametrize(("impute", "failed"), [("worst", None), ("best", 1.0), ("latest", 3.0)])
def test_bayes_takes_the_values_that_the_metric_asks_for(
    tmp_path: Path, impute: str, failed: float | None
) -> None:
    metric = f"{{name: loss_val, impute: {impute}, impute_while_running: {impute}}}"
    text = SWEEP.replace("{name: loss_val, goal: minimize}", metric).replace("random", "bayes")
    worker = Worker(open_sweep(tmp_path, text).config)
    claim = worker.take()
    assert claim is not None
    worker.store.give_back(0, 0, "failed", "out of luck")
    worker.store.claim(worker.store.trials()[0])  # Its retry fails, too.
    for number, k, values in ((0, 1, [1.0, 5.0, 3.0]), (1, 0, [2.0, 4.0]), (2, 0, [])):
        if number > 0:
            assert worker.take() is not None
        table = worker.work.files(number, k, f"s-{number:05d}").table
        table.parent.mkdir()
        table.write_text("epoch,loss_val\n" + "".join(f"0,{value}\n" for value in values))
    worker.store.give_back(0, 1, "failed", "out of luck")
    worker.search.look()
    first, second, third = worker.search._observations()
    assert (first.failed, first.own) == (True, failed)
    assert (second.failed, second.value) == (False, 2.0)
    assert (third.failed, third.value) == (impute == "worst", None)


def test_trials_stand_in_folders_of_1000(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s")
    store.open(begin)
    for number in range(2001):
        store.propose(number, Proposal({"lr": number}))
    folders = sorted(path.name for path in (tmp_path / "s" / "trials").iterdir())
    assert folders == ["00000", "01000", "02000"]
    assert [trial.point for trial in FolderStore(tmp_path / "s").trials()] == [
        {"lr": number} for number in range(2001)
    ]
    assert Trial(5, {"lr": 5}) in store.trials()


def test_a_claim_is_won_by_one(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s")
    store.open(begin)
    assert store.propose(0, Proposal({"lr": 0.1}))
    assert not store.propose(0, Proposal({"lr": 0.2}))
    trial = store.trials()[0]
    assert trial.point == {"lr": 0.1}
    assert [store.claim(trial), store.claim(trial)] == [0, None]
    assert store.trials()[0].state == "running"
    store.give_back(0, 0, "interrupted")
    again = store.trials()[0]
    assert (again.state, store.claim(again)) == ("interrupted", 1)
    assert not store.renew(0, 0)
    assert not store.finish(0, 0, TrialOutcome("finished"))
    assert store.finish(0, 1, TrialOutcome("finished", 1.0, values=(1.0,)))
    assert not store.finish(0, 1, TrialOutcome("stopped"))
    assert store.trials()[0].state == "finished"


def test_a_trial_keeps_the_u_that_it_was_drawn_with(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s")
    store.open(begin)
    store.propose(0, Proposal({"lr": 0.1}, {"lr": 1 / 3}))
    store.propose(1, Proposal({"lr": 0.2}))
    assert (
        tmp_path / "s" / "trials" / "00000" / "00001.trial"
    ).read_text() == '{"point": {"lr": 0.2}}'
    assert [trial.u for trial in FolderStore(tmp_path / "s").trials()] == [{"lr": 1 / 3}, None]
    (tmp_path / "s" / "trials" / "00000" / "00000.trial").write_text(
        '{"point": {"lr": 0.1}, "u": [1]}'
    )
    assert FolderStore(tmp_path / "s").trials()[0].u is None


def test_a_lease_is_by_the_clock_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEP_CNN_HOST", "far")
    far = FolderStore(tmp_path / "s", lease=60)
    far.open(begin)
    far.propose(0, Proposal({"lr": 0.1}))
    far.claim(far.trials()[0])
    monkeypatch.setenv("DEEP_CNN_HOST", "near")
    near = FolderStore(tmp_path / "s", lease=60)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # This host's clock is years ahead.
    assert near.trials()[0].state == "running"
    claim = tmp_path / "s" / "trials" / "00000" / "00000.claim.0"
    os.utime(claim, (claim.stat().st_mtime - 61,) * 2)
    near = FolderStore(tmp_path / "s", lease=60)
    assert near.trials()[0].state == "interrupted"


def test_one_living_process_writes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, io = tmp_path / "s", FolderIO()
    FolderStore(folder).open(begin)
    monkeypatch.setenv("DEEP_CNN_HOST", "a")
    first = Writer(io, folder, Owners(io, folder, 60), is_pilot=False)
    assert first.take()
    monkeypatch.setenv("DEEP_CNN_HOST", "b")
    second = Writer(io, folder, Owners(io, folder, 60), is_pilot=False)
    assert not second.take()
    os.utime(folder / "writer.0", (0, 0))
    late = Writer(io, folder, Owners(io, folder, 60), is_pilot=False)
    assert late.take()
    monkeypatch.setenv("DEEP_CNN_HOST", "a")
    assert not first.take()  # It was taken for dead.
    late.release()
    assert first.take()
    assert [path.name for path in folder.glob("writer.*")] == ["writer.0"]


def test_a_killed_writer_is_followed_by_another(tmp_path: Path) -> None:
    folder, io = tmp_path / "s", FolderIO()
    FolderStore(folder).open(begin)
    assert (
        in_fork(
            lambda: Writer(io, folder, Owners(io, folder, 60), is_pilot=False).take() or os._exit(5)
        )
        == 0
    )
    assert (folder / "writer.0").exists()
    assert Writer(io, folder, Owners(io, folder, 60), is_pilot=False).take()
    assert [path.name for path in folder.glob("writer.*")] == ["writer.1"]


def test_what_killed_writes_have_left_is_removed_with_a_beginning_and_a_takeover(
    tmp_path: Path,
) -> None:
    config = open_sweep(tmp_path).config
    assert in_fork(lambda: temporary_path(config.folder / "sweep.json").write_text("x")) == 0
    mine = temporary_path(config.folder / "sweep.json")
    mine.write_text("x")  # This process lives: it may still be at it.
    open_sweep(tmp_path)
    assert list(config.folder.glob(".*.part")) == [mine]
    worker = Worker(config)
    claim = worker.take()
    assert claim is not None
    block = config.folder / "trials" / "00000"
    assert in_fork(lambda: temporary_path(block / "00000.done").write_text("x")) == 0
    worker.store.give_back(0, claim.number, "interrupted")
    again = worker.take()
    assert again is not None
    worker._open_files(again)
    assert not list(block.glob(".*.part"))


def test_temporary_names_differ_and_a_link_in_the_way_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({temporary_path(tmp_path / "a.json") for _ in range(1000)}) == 1000
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    temporary_path(tmp_path / "a.json").symlink_to(victim)
    with pytest.raises(OutputError, match=r"a\.json cannot be written"):
        write_text(tmp_path / "a.json", "new")
    assert victim.read_text() == "mine"


def test_the_last_engine_waits_for_a_writer_on_a_host_that_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, io = tmp_path / "s", FolderIO()
    FolderStore(folder).open(begin)
    for host, is_pilot in (("a", True), ("b", False)):
        monkeypatch.setenv("DEEP_CNN_HOST", host)
        writer = Writer(io, folder, Owners(io, folder, 0.3), is_pilot=is_pilot)
        assert writer.take_at_the_end()
        other = Writer(io, folder, Owners(io, folder, 0.3), is_pilot=False)
        assert not other.take_at_the_end()  # The same host: its owner lives.
        assert other.is_held_by_pilot is is_pilot
        (folder / "writer.0").rename(folder / "writer.5") if is_pilot else None

"""However a run or a sweep ends, none of its processes is left."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import (
    PATIENCE,
    SHOWS_PROCESSES,
    environment,
    family,
    make_scored,
    marked,
    processes,
    workers,
)

pytestmark = SHOWS_PROCESSES
ENDLESS = 5000
# The random crop decodes every picture in every epoch.
RUN = [
    "--data_dir=scored", "--model=lenet", "--weights=none", "--pre=augment", "--num_workers=2",
    "--batch_size=4", "--run_name=r", "--wandb=False",
]  # fmt: skip
SWEEP = """
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  lr: {values: [0.1, 0.01]}
  epochs: {value: EPOCHS}
command: ["${env}", python, -m, deep_cnn, --data_dir=scored, --model=lenet, --weights=none,
          --pre=augment, --num_workers=2, --batch_size=4, --wandb=False, "${args}"]
"""


class Started:
    """A command that runs in its own process group, and all processes that come from it."""

    def __init__(self, folder: Path, *words: str, limits: str = "", **extra: str) -> None:
        if not (folder / "scored").exists():
            make_scored(folder / "scored")
        self.folder, self.mark = folder, f"{folder}-{random.random()}"
        command = [sys.executable, "-m", "deep_cnn", *words]
        if limits:
            command = ["sh", "-c", f'{limits}; exec "$@"', "sh", *command]
        env = environment(DEEP_CNN_TEST=self.mark, PYTHONWARNINGS="default", **extra)
        # A file: processes that are left would keep a pipe open.
        with (folder / "err").open("w") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdout=err,
                stderr=err,
                start_new_session=True,
                # This process may ignore it after a test that ran the command line in it.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def children(self) -> list[int]:
        return [pid for pid, parent in processes().items() if parent == self.process.pid]

    def until(self, condition) -> None:  # type: ignore[no-untyped-def]
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, self.err
            assert self.process.poll() is None, self.err
            time.sleep(0.02)

    def begun(self) -> bool:
        return (self.folder / "outputs/results/r.csv").exists() and len(self.children) == 2

    def ended(self) -> int:
        """Its status, once it has ended, and all of its processes 5 seconds later."""
        try:
            status = self.process.wait(timeout=PATIENCE)
            end = time.monotonic() + 5
            while marked(self.mark):
                assert time.monotonic() < end, f"{marked(self.mark)} are left"
                time.sleep(0.1)
        finally:
            for pid in marked(self.mark):
                kill(pid)
        assert "Traceback" not in self.err
        assert "Warning" not in self.err
        assert "internal error" not in self.err
        return status

    def lines(self, text: str) -> list[str]:
        return [line for line in self.err.splitlines() if text in line]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def result(folder: Path, name: str = "r") -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / f"outputs/results/{name}.json").read_text())
    return content


def table(folder: Path) -> list[str]:
    """The rows without the two columns of times."""
    rows = (folder / "outputs/results/r.csv").read_text().splitlines()
    return [",".join([*row.split(",")[:2], *row.split(",")[4:]]) for row in rows]


def decoders(started: Started) -> list[int]:
    """The forks of forks of the fork server of a sweep."""
    mine = workers(started.process.pid)
    return [pid for pid, parent in processes().items() if parent in mine]


def test_a_picture_that_is_removed_ends_the_run_and_when_it_is_back_the_run_goes_on(
    tmp_path: Path,
) -> None:
    straight = tmp_path / "straight"
    straight.mkdir()
    assert Started(straight, *RUN, "--epochs=40", "--num_workers=0").ended() == 0
    run = Started(tmp_path, *RUN, "--epochs=40")
    run.until(run.begun)
    pictures = [f"scored/p{i:03d}.png" for i in range(24)]
    for picture in pictures:
        (tmp_path / picture).rename(tmp_path / f"{picture}.away")
    assert run.ended() == 2
    assert len(run.lines("cannot be read any more (missing); put it back")) == 1
    assert result(tmp_path)["state"] == "failed"
    assert "cannot be read any more" in str(result(tmp_path)["error"])
    for picture in pictures:
        (tmp_path / f"{picture}.away").rename(tmp_path / picture)
    assert Started(tmp_path, "--resume=outputs/models/r.pt").ended() == 0
    assert table(tmp_path) == table(straight)
    assert len(table(tmp_path)) == 41


def test_a_decoding_process_that_is_killed_fails_the_run_which_can_be_resumed(
    tmp_path: Path,
) -> None:
    run = Started(tmp_path, *RUN, f"--epochs={ENDLESS}")
    run.until(run.begun)
    end = time.monotonic() + PATIENCE
    while run.process.poll() is None and time.monotonic() < end:
        for pid in run.children:  # Until one has not decoded all of its batches yet.
            kill(pid)
    assert run.ended() == 1
    (line,) = run.lines("Failed: ")
    assert "signal 9 (Killed)" in line
    assert line.endswith("go on with: python -m deep_cnn --resume=outputs/models/r.pt")
    assert result(tmp_path)["state"] == "failed"
    epochs = len(table(tmp_path)) - 1
    resumed = Started(tmp_path, "--resume=outputs/models/r.pt")
    resumed.until(lambda: len(table(tmp_path)) - 1 > epochs)
    os.killpg(resumed.process.pid, signal.SIGTERM)
    assert resumed.ended() == 143


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143), (signal.SIGUSR1, 75)],
)
def test_a_signal_to_all_processes_of_a_run_saves(tmp_path: Path, signum: int, status: int) -> None:
    run = Started(tmp_path, *RUN, f"--epochs={ENDLESS}")
    run.until(run.begun)
    os.killpg(run.process.pid, signum)
    assert run.ended() == status
    assert len(run.lines("go on with: python -m deep_cnn --resume=outputs/models/r.pt")) == 1
    assert result(tmp_path)["state"] == "interrupted"


def test_a_killed_run_leaves_no_decoding_process(tmp_path: Path) -> None:
    run = Started(tmp_path, *RUN, f"--epochs={ENDLESS}")
    run.until(run.begun)
    run.process.kill()
    assert run.ended() == -9


def test_under_nohup_a_run_does_not_end_with_its_terminal(tmp_path: Path) -> None:
    run = Started(tmp_path, *RUN, "--epochs=30", limits="trap '' HUP")
    run.until(run.begun)
    os.killpg(run.process.pid, signal.SIGHUP)
    assert run.ended() == 0


def test_too_few_files_for_decoding_processes_are_one_line(tmp_path: Path) -> None:
    make_scored(tmp_path / "scored", 60)
    run = Started(tmp_path, *RUN, "--epochs=2", "--batch_size=2", "--num_workers=16",
                  limits="ulimit -n 16")  # fmt: skip
    assert run.ended() == 1
    (line,) = run.lines("Failed: ")
    assert "(Too many open files); a smaller --num_workers needs less; go on with: " in line
    assert result(tmp_path)["state"] == "failed"


def test_the_signal_that_comes_while_python_still_imports_has_its_status(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP.replace("EPOCHS", "1"))
    for words in (RUN, ["sweep", "s.yaml"], ["agent", "a/b/c"]):
        for signum, status in (
            (signal.SIGTERM, 143),
            (signal.SIGINT, 130),
            (signal.SIGHUP, 143),
            (signal.SIGUSR1, 75),
        ):
            run = Started(tmp_path, *words, PYTHONPROFILEIMPORTTIME="1")
            # pydantic is the first package of others that is imported.
            run.until(lambda run=run: "pydantic" in run.err)
            run.process.send_signal(signum)
            assert run.ended() == status, (words, signum)
            assert "interrupted" in run.err


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("long" * 30) / "tmp"
    folder.mkdir(parents=True)
    return folder


def test_a_long_path_of_temporary_files_is_no_obstacle(tmp_path: Path, long_folder: Path) -> None:
    extra = {"TMPDIR": str(long_folder)}
    assert Started(tmp_path, *RUN, "--epochs=2", **extra).ended() == 0
    (tmp_path / "s.yaml").write_text(SWEEP.replace("EPOCHS", "2"))
    sweep = Started(tmp_path, "sweep", "s.yaml", "--workers=2", **extra)
    assert sweep.ended() == 0
    assert "2 of 2 trials are over" in sweep.err


def started_sweep(folder: Path, *words: str, epochs: int, **extra: str) -> Started:
    (folder / "s.yaml").write_text(SWEEP.replace("EPOCHS", str(epochs)))
    return Started(folder, "sweep", "s.yaml", "--workers=2", *words, **extra)


def is_decoding(sweep: Started, count: int = 4) -> bool:
    tables = list(sweep.folder.glob("outputs/sweeps/s/work/*/s-?????.csv"))
    return len(tables) == 2 and len(decoders(sweep)) == count


def assert_all_over(sweep: Started, epochs: int) -> None:
    assert sweep.ended() == 0, sweep.err
    assert "2 of 2 trials are over" in sweep.err
    for number in range(2):
        rows = (sweep.folder / f"outputs/results/s-0000{number}.csv").read_text().splitlines()
        assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(epochs))


def test_a_picture_that_is_removed_ends_a_sweep(tmp_path: Path) -> None:
    sweep = started_sweep(tmp_path, "--retries=0", epochs=ENDLESS)
    sweep.until(lambda: is_decoding(sweep))
    for path in (tmp_path / "scored").glob("*.png"):
        path.unlink()
    assert sweep.ended() == 1
    assert len(sweep.lines("cannot be read any more (missing); put it back")) == 2


def test_a_killed_decoding_process_costs_a_sweep_one_attempt(tmp_path: Path) -> None:
    sweep = started_sweep(tmp_path, epochs=200)
    sweep.until(lambda: is_decoding(sweep))

    def ends() -> list[Path]:
        return list(tmp_path.glob("outputs/sweeps/s/trials/*/*.end.0"))

    def kill_one() -> list[Path]:
        for pid in decoders(sweep)[:1]:
            kill(pid)
        return ends()

    sweep.until(kill_one)  # One that has decoded all of its batches is not missed.
    assert_all_over(sweep, 200)
    assert {json.loads(path.read_text())["state"] for path in ends()} == {"failed"}


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143), (signal.SIGUSR1, 75)],
)
def test_a_signal_to_all_processes_of_a_sweep_saves(
    tmp_path: Path, signum: int, status: int
) -> None:
    sweep = started_sweep(tmp_path, epochs=ENDLESS)
    sweep.until(lambda: is_decoding(sweep))
    os.killpg(sweep.process.pid, signum)
    assert sweep.ended() == status
    ends = list(tmp_path.glob("outputs/sweeps/s/trials/*/*.end.0"))
    assert [json.loads(path.read_text())["state"] for path in ends] == ["interrupted"] * 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_fork_server_starts_ends_the_sweep(tmp_path: Path, signum: int) -> None:
    sweep = started_sweep(tmp_path, epochs=ENDLESS)
    sweep.until(lambda: server(sweep))
    os.killpg(sweep.process.pid, signum)
    assert sweep.ended() == {signal.SIGTERM: 143, signal.SIGINT: 130}[signum]


def test_a_killed_sweep_leaves_no_process(tmp_path: Path) -> None:
    sweep = started_sweep(tmp_path, epochs=ENDLESS)
    sweep.until(lambda: is_decoding(sweep))
    sweep.process.kill()
    assert sweep.ended() == -9


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def server(sweep: Started) -> list[int]:
    return [pid for pid in sweep.children if "multiprocessing.forkserver" in command_line(pid)]


def test_a_fork_server_that_is_killed_is_started_again(tmp_path: Path) -> None:
    sweep = started_sweep(tmp_path, epochs=60)
    for _ in range(2):  # While it starts.
        sweep.until(lambda: server(sweep))
        (pid,) = server(sweep)
        os.kill(pid, signal.SIGKILL)
        sweep.until(lambda pid=pid: pid not in processes())
    sweep.until(lambda: is_decoding(sweep))
    orphans = family(server(sweep)[0])
    os.kill(server(sweep)[0], signal.SIGKILL)
    sweep.until(lambda: not orphans & set(processes()))
    assert_all_over(sweep, 60)


def test_a_resource_tracker_that_is_killed_is_not_missed(tmp_path: Path) -> None:
    sweep = started_sweep(tmp_path, epochs=60)
    sweep.until(lambda: is_decoding(sweep))
    (tracker,) = [
        pid for pid in sweep.children if "multiprocessing.resource_tracker" in command_line(pid)
    ]
    os.kill(tracker, signal.SIGKILL)
    os.kill(workers(sweep.process.pid)[0], signal.SIGKILL)  # Its successor needs another tracker.
    assert_all_over(sweep, 60)


@pytest.mark.parametrize(
    ("limit", "value", "side", "cause"),
    [
        # Pictures too large for the memory that a process has already.
        (resource.RLIMIT_AS, 2**20, 4000, "cannot be read now (MemoryError)"),
        (resource.RLIMIT_NOFILE, 3, 50, "cannot be read now (Too many open files)"),
    ],
)
def test_what_a_decoding_process_lacks_is_one_line(
    tmp_path: Path, limit: int, value: int, side: int, cause: str
) -> None:
    for path in make_scored(tmp_path / "scored", 9).glob("*.png"):
        Image.open(path).resize((side, side)).save(path)
    run = Started(tmp_path, *RUN, f"--epochs={ENDLESS}")
    run.until(run.begun)
    end = time.monotonic() + PATIENCE
    while run.process.poll() is None and time.monotonic() < end:
        for pid in run.children:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, limit, (value, value))
    assert run.ended() == 1
    (line,) = run.lines("Failed: ")
    assert cause in line
    assert line.endswith("go on with: python -m deep_cnn --resume=outputs/models/r.pt")

"""An interrupted prediction continues, and no picture is lost or predicted twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PATIENCE, Command, environment, until
from tests.inference.conftest import checkpoint, rows_of

COUNT = 1500


def make_pictures(folder: Path, count: int = COUNT) -> Path:
    folder.mkdir()
    draws = np.random.default_rng(0)
    for i in range(count):
        if i % 97 == 5:
            (folder / f"{i:05d}.png").write_bytes(b"no picture")
        else:
            pixels = draws.integers(0, 256, (60, 80, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:05d}.png")
    return folder


def start(folder: Path, *words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", "predict", *map(str, words)],
        cwd=folder, env=environment(OMP_NUM_THREADS="1"), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_at_any_moment_it_continues_to_the_same_file(trained: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "new")
    words = (checkpoint(trained, "seed0"), checkpoint(trained, "seed1"), "new")
    straight = start(tmp_path, *words, "--out=straight.csv")
    assert straight.wait(PATIENCE) == 0, straight.communicate()
    draws = random.Random(0)
    part, out = tmp_path / ".s.csv.part", tmp_path / "s.csv"
    for size in sorted(draws.sample(range(1, 60_000), 6)):
        process = start(tmp_path, *words, "--out=s.csv")
        until(lambda size=size: part.exists() and part.stat().st_size >= size, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists()
    last = start(tmp_path, *words, "--out=s.csv")
    _, err = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, err
    assert "Going on after" in err
    assert out.read_bytes() == (tmp_path / "straight.csv").read_bytes()
    assert [row["image"] for row in rows_of(out)] == [f"{i:05d}.png" for i in range(COUNT)]
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_the_same_command_continues(
    trained: Path, tmp_path: Path, here: Command, number: int, status: int
) -> None:
    make_pictures(tmp_path / "new")
    words = (checkpoint(trained, "seed0"), "new", "--out=s.csv")
    process = start(tmp_path, *words)
    part = tmp_path / ".s.csv.part"
    until(lambda: part.exists() and part.stat().st_size > 3000, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, err
    assert "interrupted; the same command continues" in err
    assert "Traceback" not in err
    done = here("predict", *words)
    assert done.returncode == 0, done.stderr
    assert "Going on after" in done.stderr
    assert len(rows_of(tmp_path / "s.csv")) == COUNT


@pytest.fixture
def part(trained: Path, tmp_path: Path, here: Command) -> Path:
    """The rows of an interrupted prediction of 100 pictures, without its last batch."""
    make_pictures(tmp_path / "new", 100)
    path = tmp_path / ".s.geojson.part"
    done = here("predict", checkpoint(trained, "seed0"), "new", "--out=s.geojson")
    assert done.returncode == 2  # There are no coordinates, and the rows stay.
    target = path.with_name(".s.csv.part")
    path.rename(target)
    return target


@pytest.mark.parametrize(
    ("damage", "done"),
    [
        (lambda lines: lines[:50], 32),
        (lambda lines: [*lines[:40], lines[40][:5]], 32),
        (lambda lines: [*lines[:40], b"\0" * 50 + b"\n", *lines[41:]], 32),
        (lambda lines: [*lines[:40], b"[1, null, null, []]\n", b"{}\n"], 32),
        (lambda lines: [*lines[:70], b"[1, null, null, [1, 2, 3]]\n"], 64),
        (lambda lines: lines[:1], 0),
        (lambda lines: [lines[0][:30]], 0),
        (lambda lines: [], 0),
        (lambda lines: [*lines, lines[-1], lines[-1]], 100),
    ],
)
def test_damaged_rows_are_predicted_again(
    trained: Path, tmp_path: Path, here: Command, part: Path, damage: object, done: int
) -> None:
    assert callable(damage)
    lines = part.read_bytes().splitlines(keepends=True)
    assert len(lines) == 101
    part.write_bytes(b"".join(damage(lines)))
    words = ("predict", checkpoint(trained, "seed0"), "new")
    again = here(*words, "--out=s.csv")
    assert again.returncode == 0, again.stderr
    assert f"{100 - done} pictures in" in again.stderr
    assert here(*words, "--out=straight.csv").returncode == 0
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()


def test_another_command_does_not_continue_it(
    trained: Path, tmp_path: Path, here: Command, part: Path
) -> None:
    before = part.read_bytes()
    words = ("predict", checkpoint(trained, "seed0"), "new", "--out=s.csv")
    other = here("predict", checkpoint(trained, "seed1"), *words[2:])
    assert other.returncode == 2
    assert "is unfinished with other checkpoints" in other.stderr
    shutil.copy(tmp_path / "new" / "00000.png", tmp_path / "new" / "more.png")
    more = here(*words)
    assert more.returncode == 2
    assert "is unfinished with other pictures" in more.stderr
    assert len(more.stderr.splitlines()) == 1
    assert part.read_bytes() == before
    done = here(*words, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "s.csv")) == 101


def test_a_finished_file_is_kept(trained: Path, tmp_path: Path, here: Command) -> None:
    (tmp_path / "s.csv").write_text("mine")
    words = ("predict", checkpoint(trained, "seed0"), trained / "scored", "--out=s.csv")
    done = here(*words)
    assert done.returncode == 2
    assert "exists and is kept; --overwrite replaces it" in done.stderr
    assert (tmp_path / "s.csv").read_text() == "mine"
    assert here(*words, "--overwrite").returncode == 0
    assert len(rows_of(tmp_path / "s.csv")) == 40


def test_two_processes_do_not_write_one_file(
    trained: Path, tmp_path: Path, here: Command, part: Path
) -> None:
    import fcntl

    before = part.read_bytes()
    with part.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = here("predict", checkpoint(trained, "seed0"), "new", "--out=s.csv")
    assert done.returncode == 2
    assert "another process writes it" in done.stderr
    assert part.read_bytes() == before


def test_the_header_has_digests(part: Path) -> None:
    header = json.loads(part.read_bytes().splitlines()[0])
    assert {"checkpoints", "options", "pictures"} <= set(header)
    assert [len(digest) for digest in header["checkpoints"]] == [64]


def test_output_that_cannot_be_written_has_one_line(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deep_cnn", "predict", str(checkpoint(trained, "seed0"))]
    with Path(os.devnull).with_name("full").open("w") as full:
        done = subprocess.run(
            [*command, str(trained / "scored")],
            cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert "standard output cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr

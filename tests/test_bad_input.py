"""A table of (input, message): each is one line on stderr and status 2, and nothing is lost."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deep_cnn.config import TrainConfig
from deep_cnn.training.fit import fit
from tests.conftest import Command, make_classes, make_scored

LAST = "models/d.pt"


def scores(text: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        make_scored(folder)
        (folder / "scores.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def rows(*changed: str) -> Callable[[Path], None]:
    body = [f"p{i:03d}.png,{i}" for i in range(20)]
    return scores("\n".join(["image,score", *body, *changed]))


def no_pictures(folder: Path) -> None:
    make_classes(folder)
    for path in (folder / "train" / "dark").iterdir():
        path.unlink()


def other_classes(folder: Path) -> None:
    make_classes(folder)
    (folder / "val" / "dark").rename(folder / "val" / "dusk")


def listed(name: str, text: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        make_classes(folder)
        (folder / name).write_bytes(text)

    return write


def broken_pictures(folder: Path) -> None:
    make_scored(folder)
    for i in range(4):
        (folder / f"p{i:03d}.png").write_bytes(b"")


def nothing(folder: Path) -> None:
    pass


DATA = {
    "no folder": (nothing, "does not exist"),
    "a file": (lambda p: p.write_text(""), "is not a folder"),
    "an empty folder": (lambda p: p.mkdir(), "has neither scores.csv"),
    "no image column": (scores("picture,score\na.png,1\n"), "line 1: no column image"),
    "no score column": (scores("image,safe\np000.png,1\n"), "no column score .*--study: safe"),
    "a non-number": (rows("p020.png,seven"), "line 22: score 'seven' is not a finite number"),
    "nan": (rows("p020.png,nan"), "line 22: score 'nan'"),
    "a duplicate": (rows("./p003.png,1"), "line 22: p003.png is there already, in line 5"),
    "outside": (rows("../p.png,1"), "line 22: ../p.png leads out of the data folder"),
    "absolute": (rows("/etc/p.png,1"), "line 22: /etc/p.png leads out"),
    "too few cells": (rows("p020.png"), "line 22: 1 values for 2 columns"),
    "an unknown split": (scores("image,score,split\np000.png,1,held\n"), "split 'held' is unknown"),
    "a negative weight": (scores("image,score,weight\np000.png,1,-1\n"), "weight -1 is negative"),
    "one row": (scores("image,score\np000.png,1\n"), "has 1 rows"),
    "no row": (scores("image,score\n"), "has 0 rows"),
    "an empty file": (scores(""), "no column image"),
    "random bytes": (scores(bytes(range(256)) * 9), "is not UTF-8 text"),
    "equal scores": (
        scores("image,score\n" + "".join(f"p{i:03d}.png,3\n" for i in range(24))),
        "nothing to learn",
    ),
    "bad pictures": (broken_pictures, r"of \d+ pictures are bad, the first is p00\d.png \(empty"),
    "missing pictures": (rows("a.png,1", "b.png,2", "c.png,3"), r"pictures are bad.*missing"),
    "a class without pictures": (no_pictures, "train/dark has no picture"),
    "classes differ": (other_classes, "must have the same classes"),
    "an unknown class": (
        listed("keep.txt", b"dark\n\nligth 4\n"),
        "keep.txt line 3: no class folder for 'ligth 4'; did you mean light",
    ),
    "one class kept": (listed("keep.txt", b"# none but\ndark\n"), "keep.txt keeps 1 classes"),
    "a picture as keep.txt": (listed("keep.txt", b"\xff\xd8\xff"), "keep.txt is not UTF-8 text"),
    "a list of other data": (
        listed("train.txt", b"/a/alley/00003248.jpg 7\n"),
        "train.txt lists no picture that is there of the class dark",
    ),
    "listed pictures missing": (
        listed("val.txt", b"dark/0.png 0\nlight/0.png 1\nlight/9.png 1\n"),
        "val.txt: 1 of its 3 pictures are missing, the first is light/9.png",
    ),
}


def assert_one_line(done: subprocess.CompletedProcess[str], message: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line != "Running on cpu device"]
    assert done.returncode == 2, done.stderr
    assert re.search(message, lines[-1]), done.stderr
    assert lines[-1].startswith("deep_cnn: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("case", DATA)
def test_bad_data(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deep_cnn.cli import main

    make, message = DATA[case]
    make(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    status = main([f"--data_dir={tmp_path / 'data'}", "--epochs=1", "--val_split=0.5",
                   "--model=lenet", "--weights=none", "--run_name=r"])  # fmt: skip
    out, err = capsys.readouterr()
    assert_one_line(subprocess.CompletedProcess([], status, out, err), message)
    left = [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()]
    assert not [path for path in left if path.parts[-3] != "cache" and path.suffix != ".lock"]


def test_a_bad_picture_in_many_is_named_and_left_out(tmp_path: Path, here: Command) -> None:
    folder = make_scored(tmp_path / "data", 60)
    (folder / "p007.png").write_bytes(b"")
    flags = [
        f"--data_dir={folder}",
        "--model=lenet",
        "--weights=none",
        "--epochs=1",
        "--run_name=r",
    ]
    done = here(*flags)
    assert done.returncode == 0, done.stderr
    assert "pictures are bad and left out" in done.stderr
    assert "p007.png: empty file" in (tmp_path / "outputs/logger/r.log").read_text()
    assert_one_line(here(*flags, "--strict_data"), "--strict_data allows none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    fit(TrainConfig(task="digits", out_dir=str(out), run_name="d", epochs=1, train_samples=64))
    return out


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def newer(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "version": 99}, path)


def no_checkpoint(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def code(path: Path) -> None:
    torch.save({"version": 1, "fault": os.path.join}, path)


def other_network(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state_dict"]["head.1.weight"] = torch.zeros(7, 120)
    torch.save(content, path)


def flipped(path: Path) -> None:
    """Turn one bit of the largest tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def wrong(name: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        *groups, last = name.split("/")
        inner = content
        for group in groups:
            inner = inner[group]
        inner[last] = value
        torch.save(content, path)

    return change


# Any field with a value of a wrong type, and inside of those that torch reads.
WRONG = [
    (name, value)
    for name in ("run_name", "config", "epoch", "state_dict", "random", "threads", "labels",
                 "history", "best", "tracking", "optimizer", "seconds", "data", "input")
    for value in (3.5, "x", [1], {"a": []})
    if (name, value) not in (
        ("seconds", 3.5), ("run_name", "x"), ("data", "x"), ("input", {"a": []}),
    )
]  # fmt: skip
INSIDE = [
    ("random/torch", 3), ("random/python", [1]), ("random/numpy", "x"), ("optimizer/state", 3),
    ("optimizer/param_groups", [3]), ("config/lr", "x"), ("config/task", 3), ("config/epochs", []),
    ("state_dict/head.1.weight", torch.zeros(3)), ("labels/classes", 3), ("labels/classes", [3]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG + INSIDE)
def test_wrong_values_in_checkpoints(
    name: str, value: object, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deep_cnn.cli import main

    path = tmp_path / "models" / "d.pt"
    path.parent.mkdir()
    path.write_bytes((trained / LAST).read_bytes())
    wrong(name, value)(path)
    for verb in ("resume", "test_net"):
        status = main(
            [f"--{verb}={path}", "--epochs=2"] if verb == "resume" else [f"--{verb}={path}"]
        )
        _, err = capsys.readouterr()
        # What a run does not read does no harm.
        assert status in (0, 2), err
        assert err.splitlines()[-1].startswith("deep_cnn: ") or status == 0
        assert "Traceback" not in err
        assert "internal error" not in err


CHECKPOINTS = {
    "one bit": (flipped, "is damaged or no checkpoint"),
    "truncated": (truncated, "is damaged or no checkpoint"),
    "random bytes": (noise, "is damaged or no checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged or no checkpoint"),
    "newer": (newer, "written by a newer deep_cnn"),
    "something else": (no_checkpoint, "is no checkpoint of deep_cnn"),
    "code": (code, "is damaged or no checkpoint"),
    "another network": (other_network, "does not fit --model=lenet"),
    "gone": (lambda path: path.unlink(), "does not exist"),
}


@pytest.mark.parametrize("verb", ["resume", "test_net"])
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_bad_checkpoints(
    case: str, verb: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deep_cnn.cli import main

    spoil, message = CHECKPOINTS[case]
    path = tmp_path / "models" / "d.pt"
    path.parent.mkdir()
    path.write_bytes((trained / LAST).read_bytes())
    spoil(path)
    status = main([f"--{verb}={path}"])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("deep_cnn: ")]
    assert status == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert out == ""


@pytest.mark.parametrize("flag", ["--lr=0.5", "--model=resnet18", "--seed=3", "--batch_size=9"])
def test_a_resume_keeps_its_configuration(
    flag: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deep_cnn.cli import main

    assert main([f"--resume={trained / LAST}", "--epochs=2", flag]) == 2
    assert f"{flag} does not fit the checkpoint" in capsys.readouterr().err


def test_an_out_dir_that_cannot_be_written(tmp_path: Path, here: Command) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(here("--task=digits", "--out_dir=file"), "cannot be written .* --out_dir")


def test_a_full_disk_costs_no_checkpoint(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real small file system where the machine allows one, else a limit on the size of files."""
    import resource
    import signal

    from deep_cnn.cli import main

    (tmp_path / "models").mkdir()
    (tmp_path / "logger").mkdir()
    path = tmp_path / "models" / "d.pt"
    path.write_bytes((trained / LAST).read_bytes())
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        status = main([f"--resume={path}", "--epochs=3"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert status == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^deep_cnn: .*d.pt cannot be written \(.*\); make room", last)
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    assert main([f"--resume={path}", "--epochs=3"]) == 0

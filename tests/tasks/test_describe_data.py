"""--dry_run: what the data are, without a run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from deep_cnn.cli import main
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.training.fit import fit
from tests.conftest import environment, make_classes, make_scored
from tests.tasks.test_place_pulse import make_place_pulse


def described(capsys: pytest.CaptureFixture[str], *flags: str, refused: str = "") -> str:
    before = set(Path.cwd().rglob("*"))
    assert main([*flags, "--dry_run"]) == (2 if refused else 0)
    assert set(Path.cwd().rglob("*")) == before, "a dry run writes nothing"
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == bool(refused)
    assert refused in err
    return out


def numbers(out: str, title: str) -> list[float]:
    (line,) = re.findall(rf"(?m)^{title}((?: +[-\d.]+)+)$", out)
    return [float(cell) for cell in line.split()]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_scored(tmp_path / "data", 60)
    for i in range(25):
        (folder / f"p{i:03d}.png").write_bytes(b"")
    (folder / "p040.png").unlink()
    refused = "16 of 42 pictures are bad, the first is p002.png (empty file)"
    out = described(capsys, f"--data_dir={folder}", "--crop_bottom=5", refused=refused)
    counts, means = numbers(out, "pictures"), numbers(out, "mean")
    assert sum(counts) == 60
    assert sum(n * m for n, m in zip(counts, means, strict=True)) / 60 == pytest.approx(14.75, 1e-3)
    assert len(numbers(out, "sd")) == 3
    bars = re.findall(r"(?m)^ +\S+ to \S+ +(\d+) #+$", out)
    assert [int(count) for count in bars] == [6] * 10
    bad = re.findall(r"(?m)^  (p\d+).png: (empty file|missing)$", out)
    assert "26 of 60 pictures cannot be decoded" in out
    assert re.search(r"a run stops: \d+ of \d+ in train are bad; at most 5 % may be\n", out)
    assert len(bad) == 20
    assert "  and 6 more\n" in out
    short = described(capsys, f"--data_dir={folder}", "--crop_bottom=40", refused="are bad")
    assert "50 x 40 pixels, too few for --crop_bottom" in short


def test_place_pulse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_place_pulse(tmp_path / "data")
    next((folder / "images").iterdir()).unlink()
    out = described(capsys, f"--data_dir={folder}", "--group=city", "--test_split=0.3")
    assert "Place Pulse, safer: 39 pictures" in out
    assert "1 scores without a picture" in out
    assert sum(numbers(out, "pictures")) == 39
    assert sum(numbers(out, "groups")) == 8


def test_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_classes(tmp_path / "data")
    for i in range(12):
        for part in ("train", "val"):
            place = folder / part / f"class{i}"
            place.mkdir()
            Image.new("L", (9, 9)).save(place / "0.png")
    out = described(capsys, f"--data_dir={folder}")
    assert "14 classes\n" in out
    assert sum(numbers(out, "dark")) == 12
    assert "and 4 classes between them" in out
    assert numbers(out, "class9")[2] == 1
    assert numbers(described(capsys, "--task=digits"), "pictures")[0] > 1000


def test_who_would_train_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="--dry_run trains nothing"):
        fit(TrainConfig(task="digits", dry_run=True, out_dir=str(tmp_path / "out")))
    folder = make_scored(tmp_path / "data", 8)
    lines = [f"p{i:03d}.png,3" for i in range(8)]
    (folder / "scores.csv").write_text("\n".join(["image,score", *lines]))
    assert main([f"--data_dir={folder}", "--dry_run"]) == 2
    assert "there is nothing to learn" in capsys.readouterr().err
    (folder / "scores.csv").write_text("image,score\np000.png,1\np001.png,2\np002.png,4\n")
    (folder / "p002.png").write_bytes(b"")
    assert main([f"--data_dir={folder}", "--dry_run", "--test_split=0.9", "--strict_data"]) == 2
    out, err = capsys.readouterr()
    assert sum(numbers(out, "pictures")) == 3
    assert "are bad; --strict_data allows none" in out
    assert "the train split has " in err


@pytest.mark.parametrize(
    ("split", "words", "line", "status"),
    [
        ("test", (), "--test_net stops: 1 of 5 in test are bad", 0),
        ("test", ("--train_on=train+val",), "--test_net stops: 1 of 5 in test are bad", 0),
        ("val", (), "a run stops: 1 of 5 in val are bad", 2),
        ("train", (), "a run stops: 1 of 14 in train are bad", 2),
        ("train", ("--train_samples=8",), "", 0),
    ],
)
def test_only_bad_pictures_of_the_run_stop_it(
    split: str,
    words: tuple[str, ...],
    line: str,
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_scored(tmp_path / "data", 24)
    marks = ["train"] * 14 + ["val"] * 5 + ["test"] * 5
    rows = [f"p{i:03d}.png,{i},{mark}" for i, mark in enumerate(marks)]
    (folder / "scores.csv").write_text("\n".join(["image,score,split", *rows]))
    (folder / f"p{marks.index(split):03d}.png").write_bytes(b"")
    words = (f"--data_dir={folder}", *words)
    assert main([*words, "--dry_run"]) == status
    out = capsys.readouterr().out
    assert ("stops: " in out, line in out) == (bool(line), True)
    quick = ["--model=lenet", "--weights=none", "--epochs=1", "--wandb=False"]
    assert main([*words, *quick]) == status


SCORES = {
    "one ulp apart": (["1.0", "1.0000000000000002"], 0),
    "huge": (["-1e308", "1e308"], 0),
    "the largest": (["-1.7e308", "1.7e308", "1e308"], 0),
    "huge and equal": (["1e308"], 2),
    "tiny": (["1e-200", "3e-200"], 0),
    "the smallest": (["0", "5e-324"], 2),
    "large integers": (["9007199254740993", "9007199254740995"], 0),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.filterwarnings("error:.*overflow.*")
@pytest.mark.filterwarnings("error:invalid value.*")
def test_any_finite_scores_are_described_and_end_as_a_run_does(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, status = SCORES[name]
    folder = make_scored(tmp_path / "data", 24)
    rows = [f"p{i:03d}.png,{values[i % len(values)]}" for i in range(24)]
    (folder / "scores.csv").write_text("\n".join(["image,score", *rows]))
    out = described(capsys, f"--data_dir={folder}", refused="nothing to learn" if status else "")
    assert not re.search(r"\b(nan|inf)\b", out)
    bars = re.findall(r"(?m)^ *(\S+) to (\S+) +(\d+)( #+)?$", out)
    assert sum(int(count) for _, _, count, _ in bars) == 24
    low, high = min(map(float, values)), max(map(float, values))
    assert [float(bars[0][0]), float(bars[-1][1])] == pytest.approx([low, high], rel=1e-4)
    (mean,) = re.findall(r"(?m)^mean +(\S+)", out)
    assert low <= float(mean) * (1 + 1e-3) or low <= float(mean) * (1 - 1e-3) <= high
    words = ["--model=lenet", "--weights=none", "--epochs=1", "--wandb=False"]
    assert main([f"--data_dir={folder}", *words]) == status


REFUSED = {
    "a device": ("--device=mps",),
    "weights": ("--weights=gone.pt",),
    "a checkpoint": ("--resume=outputs/models/r.pt", "--epochs=1"),
    "another option": ("--test_net=outputs/models/r.pt", "--lr=0.5"),
    "a folder for results": ("--out_dir=scores.txt/x",),
    "too few pictures": ("--val_split=0.99", "--test_split=0.99"),
    "bad pictures": ("--strict_data",),
    "a task": ("--task=folders",),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_run_refuses_a_dry_run_refuses(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_scored(tmp_path / "data", 40)
    words = ["--data_dir=data", "--wandb=False"]
    if name in ("a checkpoint", "another option"):
        new = ["--model=lenet", "--weights=none", "--epochs=2", "--run_name=r"]
        assert main([*words, *new]) == 0
    if name == "bad pictures":
        for i in range(20):
            (tmp_path / "data" / f"p{i:03d}.png").write_bytes(b"")
    (tmp_path / "scores.txt").write_text("")
    capsys.readouterr()
    described(capsys, *words, *REFUSED[name], refused="deep_cnn: ")
    assert main([*words, *REFUSED[name]]) == 2


# A task of a user in the place of perception, with a folder that has no picture.
NEW_TASK = """
import sys, types
import numpy as np
from deep_cnn import names
from deep_cnn.cli import main
from deep_cnn.data.splits import Examples
from deep_cnn.tasks import base

class Options(getattr(names, f"{sys.argv[1]}Options")):
    summary = "nothing"

class Empty(getattr(base, sys.argv[1])):
    def all_examples(self, config):
        return Examples((), [], np.array([]), np.array([])), []

    def classes(self, config):
        return []

names.TASKS["perception"] = Options
module = types.ModuleType("deep_cnn.tasks.perception")
module.TASK = Empty
sys.modules["deep_cnn.tasks.perception"] = module
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("kind", ["Regression", "Classification"])
def test_an_empty_data_set_of_a_new_task_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    words = [sys.executable, "-c", NEW_TASK, kind, "--task=perception", "--data_dir=.", "--dry_run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == 2, done.stderr
    assert "the train split has 0 of 0 pictures" in done.stderr
    assert len(done.stderr.splitlines()) == 1

"""--dry_run: what the data are, without a run."""

import re
from pathlib import Path

import pytest
from PIL import Image

from deep_cnn.cli import main
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.training.fit import fit
from tests.conftest import make_classes, make_scored
from tests.tasks.test_place_pulse import make_place_pulse


def described(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    before = set(Path.cwd().rglob("*"))
    assert main([*flags, "--dry_run"]) == 0
    assert set(Path.cwd().rglob("*")) == before, "a dry run writes nothing"
    out, err = capsys.readouterr()
    assert err == ""
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
    out = described(capsys, f"--data_dir={folder}", "--crop_bottom=5")
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
    short = described(capsys, f"--data_dir={folder}", "--crop_bottom=40")
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

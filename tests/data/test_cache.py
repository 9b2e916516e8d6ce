"""Decoded once, computed once: the same numbers, and never a wrong one."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from deep_cnn import FileTracker, TrainConfig, fit
from deep_cnn.data import array_cache
from deep_cnn.data.image_cache import open_image_cache
from deep_cnn.data.preprocessing import Preprocessing
from deep_cnn.names import IMAGENET
from deep_cnn.results import EpochRecord
from deep_cnn.tasks.scores import Columns, _read, read_scores
from tests.conftest import PATIENCE, environment, make_scored, until

WORDS = ("--epochs=2", "--model=lenet", "--weights=none", "--wandb=False")


def nothing() -> None:
    pass


def run(folder: Path, name: str, **changes: Any) -> tuple[EpochRecord, ...]:
    settings = {"weights": "none", "model": "lenet", "epochs": 2, "batch_size": 8, **changes}
    config = TrainConfig(
        data_dir=str(folder), out_dir=str(folder.parent / "out"), run_name=name, **settings
    )
    result = fit(config, FileTracker())
    assert result.state == "finished"
    return result.history


def entries(folder: Path) -> list[str]:
    cache = folder.parent / "out" / "cache"
    return sorted(path.name.split("-")[0] for path in cache.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pre": "squash"},
        {"pre": "augment"},
        {"model": "efficientnet_lite0", "weights": "imagenet", "freeze": "trunk"},
        {"model": "efficientnet_lite0", "weights": "imagenet", "freeze": "trunk", "pre": "augment"},
    ],
    ids=["lenet", "squash", "augment", "frozen", "frozen and augmented"],
)
def test_the_numbers_are_those_without_it(scored: Path, changes: dict[str, Any]) -> None:
    without = run(scored, "a", cache="off", **changes)
    building = run(scored, "b", **changes)
    reading = run(scored, "c", **changes)
    for one, two, three in zip(without, building, reading, strict=True):
        assert two.metrics == three.metrics
        for name, value in one.metrics.items():
            assert two.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    frozen = "freeze" in changes and "pre" not in changes
    assert entries(scored) == (["features", "pictures"] if frozen else ["pictures"])


@pytest.mark.parametrize("changes", [{}, {"cache": "off"}, {"pre": "augment"}])
def test_a_strip_that_is_cut_off_might_never_have_been(
    scored: Path, changes: dict[str, Any]
) -> None:
    without = run(scored, "a", **changes)
    for path in scored.glob("*.png"):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.concatenate([pixels, 255 - pixels[:10]])).save(path)
    uncut = run(scored, "b", **changes)
    cut = run(scored, "c", **changes, crop_bottom=10)
    assert [r.metrics for r in cut] == [r.metrics for r in without]
    assert [r.metrics for r in uncut] != [r.metrics for r in without]


def test_another_seed_or_head_shares_it_another_pre_does_not(scored: Path) -> None:
    frozen = {"model": "efficientnet_lite0", "weights": "imagenet", "freeze": "trunk"}
    run(scored, "a", **frozen)
    times = {p: p.stat().st_mtime_ns for p in (scored.parent / "out" / "cache").rglob("*.npy")}
    assert len(times) == 2
    run(scored, "b", **frozen, seed=3, lr=0.1, dropout=0.5, train_samples=9)
    assert times == {p: p.stat().st_mtime_ns for p in (scored.parent / "out/cache").rglob("*.npy")}
    run(scored, "c", **frozen, pre="squash")
    assert entries(scored) == ["features", "features", "pictures", "pictures"]


def test_a_changed_picture_of_the_same_size_and_time_is_seen(scored: Path) -> None:
    store = scored.parent / "cache"
    examples = read_scores(scored / "scores.csv", Columns("score")).examples
    first = open_image_cache(examples, Preprocessing("squash", IMAGENET), store, nothing)
    assert first
    path = scored / "p003.png"
    before = path.stat()
    pixels = np.asarray(Image.open(path)).copy()
    data = path.read_bytes()
    Image.fromarray(255 - pixels).save(path)
    changed = path.read_bytes()[: len(data)].ljust(len(data), b"\0")
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    second = open_image_cache(examples, Preprocessing("squash", IMAGENET), store, nothing)
    assert second
    assert second.fingerprint != first.fingerprint
    try:
        expected = Preprocessing("squash", IMAGENET).shape(path)
        assert (second.values[second.rows["p003.png"]] == expected).all()
    except ValueError:  # What was cut off was needed: then it is a bad picture.
        assert "p003.png" in second.unreadable


def test_bad_pictures_are_known_without_a_second_look(scored: Path) -> None:
    (scored / "p005.png").write_bytes(b"no picture")
    store = scored.parent / "cache"
    examples = read_scores(scored / "scores.csv", Columns("score")).examples
    for _ in range(2):
        found = open_image_cache(examples, Preprocessing("default", IMAGENET), store, nothing)
        assert found
        assert set(found.unreadable) == {"p005.png"}


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("values.npy", lambda whole: whole[:100]),
        ("values.npy", lambda whole: b""),
        ("values.npy", lambda whole: whole[:60] + b"\xff" + whole[61:]),
        ("entry.json", lambda whole: b"{"),
        ("entry.json", lambda whole: b"{}"),
        ("entry.json", lambda whole: b'{"bad": null}'),
    ],
)
def test_a_damaged_entry_is_made_again(
    scored: Path, name: str, left: Callable[[bytes], bytes]
) -> None:
    store = scored.parent / "cache"
    examples = read_scores(scored / "scores.csv", Columns("score")).examples
    first = open_image_cache(examples, Preprocessing("default", IMAGENET), store, nothing)
    assert first
    values = np.array(first.values)
    (path,) = store.rglob(name)
    path.write_bytes(left(path.read_bytes()))
    again = open_image_cache(examples, Preprocessing("default", IMAGENET), store, nothing)
    assert again
    assert (again.values == values).all()


def test_what_other_killed_builds_left_is_removed_but_not_what_is_being_built(
    scored: Path,
) -> None:
    store = scored.parent / "cache"
    killed, building = store / ".pictures-1.a.part", store / ".features-2.b.part"
    killed.mkdir(parents=True)
    building.mkdir()
    examples = read_scores(scored / "scores.csv", Columns("score")).examples
    with FileLock(store / "features-2.lock"):
        assert open_image_cache(examples, Preprocessing("default", IMAGENET), store, nothing)
    assert [killed.exists(), building.exists()] == [False, True]


def test_who_waits_for_another_process_says_so(
    scored: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_cache, "_SECONDS_BEFORE_MESSAGE", 0.0)
    store = scored.parent / "cache"
    examples = read_scores(scored / "scores.csv", Columns("score")).examples
    first = open_image_cache(examples, Preprocessing("default", IMAGENET), store, nothing)
    assert first
    shutil.rmtree(store / f"pictures-{first.fingerprint}")
    lock = FileLock(store / f"pictures-{first.fingerprint}.lock", thread_local=False)
    lock.acquire()
    asked = []

    def release() -> None:
        asked.append(0)
        assert len(asked) < 100, "it never said so"
        if "--cache=off does not wait" in caplog.text:
            lock.release()

    with caplog.at_level("INFO", "deep_cnn"):
        assert open_image_cache(examples, Preprocessing("default", IMAGENET), store, release)


def test_a_place_that_cannot_be_written_costs_a_warning(
    scored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (scored.parent / "file").write_text("")
    plain = run(scored, "a", cache="off")
    found = run(scored, "b", cache_dir=str(scored.parent / "file" / "cache"))
    assert [r.metrics for r in found] == [r.metrics for r in plain]
    warnings = [r for r in caplog.records if "nothing is kept there" in r.getMessage()]
    assert len(warnings) == 1


def start(folder: Path, *words: str, **extra: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", f"--data_dir={folder}", *WORDS, *words],
        cwd=folder.parent,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        **extra,
    )


def test_a_table_is_read_once_while_it_stays_as_it_is(scored: Path) -> None:
    path = scored / "scores.csv"
    first = read_scores(path, Columns("score")).examples
    assert _read(path, Columns("score"), scored) is _read(path, Columns("score"), scored)
    text, times = path.read_text(), path.stat()
    path.write_text(text[:-2] + ("8" if text[-2] == "9" else "9") + "\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read_scores(path, Columns("score")).examples.targets[-1] != first.targets[-1]


def losses(folder: Path, name: str) -> list[str]:
    with (folder.parent / "outputs" / "results" / f"{name}.csv").open() as file:
        return [row["loss_val"] for row in csv.DictReader(file)]


def test_a_disk_that_is_full_costs_a_warning(tmp_path: Path) -> None:
    scored = make_scored(tmp_path / "scored", 900)

    def small() -> None:  # A checkpoint takes 500 kB, 28 x 28 pixels of each picture take 706.
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    words = ("--batch_size=64", "--optimizer=sgd", "--momentum=0")
    full = start(scored, "--run_name=full", *words, preexec_fn=small)
    _, err = full.communicate(timeout=PATIENCE)
    assert "nothing is kept there" in err
    assert full.returncode == 0, err
    assert not list((scored.parent / "outputs" / "cache").glob(".*.part"))
    plain = start(scored, "--run_name=plain", *words, "--cache=off")
    assert plain.wait(PATIENCE) == 0
    assert losses(scored, "full") == losses(scored, "plain")


def test_two_at_once_and_one_killed_in_the_middle(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "many", 120)
    for path in folder.glob("*.png"):
        Image.open(path).resize((500, 500)).save(path)
    cache = tmp_path / "outputs" / "cache"
    killed = start(folder, "--run_name=killed")
    until(lambda: list(cache.glob(".*.part/values.npy")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.communicate()
    assert not list(cache.glob("pictures-*/entry.json"))
    both = [start(folder, f"--run_name={name}") for name in "ab"]
    for process in both:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert len(list(cache.glob("pictures-*/entry.json"))) == 1
    assert not list(cache.glob(".*.part"))
    plain = start(folder, "--run_name=plain", "--cache=off")
    _, err = plain.communicate(timeout=PATIENCE)
    assert plain.returncode == 0, err
    assert losses(folder, "a") == losses(folder, "b") == losses(folder, "plain")

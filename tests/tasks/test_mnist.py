"""MNIST is read from its IDX files, whatever they are called, and nothing that is damaged is."""

import csv
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deep_cnn import load
from deep_cnn.config import TrainConfig
from deep_cnn.data import mnist_download
from deep_cnn.layout import MNIST_FILES
from deep_cnn.tasks import get_task
from tests.conftest import Command, read_checkpoint
from tests.mnist_files import contents, gzipped, write

QUICK = ("--wandb=False", "--tensorboard=False", "--epochs=1", "--run_name=r")
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MNIST_FILES


LAYOUTS: dict[str, Callable[[str], str]] = {
    "as released": gzipped,
    "unpacked": str,
    "with a dot": lambda name: name.replace("-idx", ".idx"),
    "with a dot, gzipped": lambda name: name.replace("-idx", ".idx") + ".gz",
    "torchvision": lambda name: f"MNIST/raw/{name}",
    "torchvision, packed": lambda name: f"MNIST/raw/{name}.gz",
    "raw": lambda name: f"raw/{name}",
    "kaggle": lambda name: f"{name}/{name}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pictures(tmp_path: Path, layout: str) -> None:
    files = contents()
    write(tmp_path / "mnist", files, LAYOUTS[layout])
    config = TrainConfig(task="mnist", root_dir=str(tmp_path))
    examples, marks = get_task("mnist").all_examples(config)
    assert marks == [None] * 200 + ["test"] * 50
    assert examples.names[:2] == ("train-00000", "train-00001")
    assert (examples.names[199], examples.names[200]) == ("train-00199", "test-00000")
    pixels = np.stack([np.asarray(picture) for picture in examples.pictures])
    assert pixels.tobytes() == files[TRAIN_IMAGES][16:] + files[TEST_IMAGES][16:]
    assert examples.targets.tolist() == [*files[TRAIN_LABELS][8:], *files[TEST_LABELS][8:]]


def test_unpacked_files_that_kept_their_suffix_and_packed_ones_without_are_read(
    tmp_path: Path,
) -> None:
    for stem, content in contents().items():
        packed = "labels" in stem
        path = tmp_path / "mnist" / (stem if packed else f"{stem}.gz")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    config = TrainConfig(task="mnist", root_dir=str(tmp_path))
    assert len(get_task("mnist").all_examples(config)[0]) == 250


def test_a_run_trains_tests_and_predicts(tmp_path: Path, here: Command) -> None:
    write(tmp_path / "mnist", contents(), LAYOUTS["as released"])
    done = here("--task=mnist", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "train 165, val 35, test 50 (marked); left out: nothing" in done.stderr
    assert "bundled sample" not in done.stderr
    result = json.loads((tmp_path / "outputs" / "results" / "r.json").read_text())
    expected = {
        "task": "mnist", "model": "lenet", "lr": 0.1, "momentum": 0.9, "optimizer": "sgd",
        "batch_size": 128, "dropout": 0.25, "hidden": 500, "weights": "none", "data_dir": "mnist",
    }  # fmt: skip
    assert {name: result["config"][name] for name in expected} == expected
    assert TrainConfig(task="mnist").epochs == 10
    checkpoint = read_checkpoint(tmp_path / "outputs" / "models" / "r.pt")
    assert (checkpoint["input"]["mean"], checkpoint["input"]["std"]) == ((0.1307,), (0.3081,))
    path = tmp_path / "outputs" / "models" / "r.best.pt"
    done = here(f"--test_net={path}", "--wandb=False")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "outputs" / "results" / "r.test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = [str(label) for label in contents()[TEST_LABELS][8:]]
    assert [row["image"] for row in rows] == [f"test-{i:05d}" for i in range(50)]
    assert [row["truth"] for row in rows] == labels
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "black.png")
    assert load(path).predict(tmp_path / "black.png")["class"][0] in set("0123456789")


def test_lenet_learns_digits_in_idx_files(tmp_path: Path, here: Command) -> None:
    write(tmp_path / "data", contents(1400, 397), LAYOUTS["torchvision"])
    done = here("--task=mnist", "--data_dir=data", *QUICK, "--epochs=20")
    assert done.returncode == 0, done.stderr
    done = here("--test_net=outputs/models/r.best.pt", "--wandb=False")
    accuracy = float(done.stdout.split("accuracy_test=")[1].split()[0])
    assert accuracy > 0.9


def test_a_folder_with_mnist_needs_no_task(tmp_path: Path, here: Command) -> None:
    write(tmp_path / "data", contents(), LAYOUTS["torchvision"])
    done = here("--data_dir=data", "--dry_run")
    assert (done.returncode, "task mnist, data data" in done.stdout) == (0, True), done.stderr


# ---- What cannot be read


def changed(name: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    files = contents()
    return {**files, name: change(files[name])}


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "no magic number": (changed(TRAIN_IMAGES, lambda b: b"\1\2" + b[2:]), "is no IDX file (its"),
    "labels for images": (
        {**contents(), TRAIN_IMAGES: contents()[TRAIN_LABELS]},
        "has labels, where images (magic number 2051) are expected",
    ),
    "images for labels": (
        {**contents(), TEST_LABELS: contents()[TEST_IMAGES]},
        "has images, where labels (magic number 2049) are expected",
    ),
    "a web page": (changed(TRAIN_LABELS, lambda b: b"<!DOCTYPE html>"), "is no IDX file"),
    "empty": (changed(TEST_IMAGES, lambda b: b""), "has only 0 bytes"),
    "no whole header": (changed(TEST_IMAGES, lambda b: b[:10]), "has only 10 bytes"),
    "cut off": (
        changed(TRAIN_IMAGES, lambda b: b[:-1]),
        "has 156799 bytes after its header, not the 156800 that its header names",
    ),
    "too long": (changed(TRAIN_LABELS, lambda b: b + b"x"), "has more bytes after its header"),
    "a header without end": (
        changed(TRAIN_IMAGES, lambda b: b[:4] + b"\xff" * 12 + b[16:]),
        "bytes after its header, not the",
    ),
    "no pictures": (changed(TRAIN_IMAGES, lambda b: b[:4] + bytes(12)), "has no images"),
    "fewer labels": (
        {**contents(), TRAIN_LABELS: contents(199)[TRAIN_LABELS]},
        "has 200 images and data/train-labels-idx1-ubyte.gz has 199 labels",
    ),
    "a label of 10": (
        changed(TEST_LABELS, lambda b: b[:-2] + b"\x0a\xff"),
        "label 48 is 10, and 2 labels in all are no digit from 0 to 9",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_wrong_are_refused_in_a_line(
    tmp_path: Path, here: Command, case: str
) -> None:
    files, text = BAD[case]
    for name in (LAYOUTS["as released"], LAYOUTS["unpacked"]):
        folder = write(tmp_path / "data", files, name)
        done = here("--task=mnist", "--data_dir=data", "--dry_run")
        expected = text if name("") else text.replace(".gz", "")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert expected in done.stderr
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("damage", [slice(None, -20), slice(30, None), "flipped", "appended"])
def test_a_damaged_gzip_file_is_refused_in_a_line(
    tmp_path: Path, here: Command, damage: slice | str
) -> None:
    folder = write(tmp_path / "data", contents(), LAYOUTS["as released"])
    path = folder / f"{TRAIN_IMAGES}.gz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-6] ^= 1  # Of the checksum.
    elif damage == "appended":
        content += b"garbage"
    else:
        content = content[:10] + content[damage] if damage == slice(30, None) else content[:-20]
    path.write_bytes(content)
    done = here("--task=mnist", "--data_dir=data", "--dry_run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"data/{TRAIN_IMAGES}.gz is a damaged gzip file" in done.stderr


@pytest.mark.parametrize("missing", MNIST_FILES)
def test_missing_files_are_named_with_the_command_that_brings_them(
    tmp_path: Path, here: Command, missing: str
) -> None:
    folder = write(tmp_path / "my data", contents())
    (folder / missing).unlink()
    done = here("--task=mnist", "--data_dir=my data", "--dry_run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"--data_dir=my data has no {missing}, gzipped or not; name the folder" in done.stderr
    assert "python -m deep_cnn fetch --data=mnist --data_dir='my data'" in done.stderr
    done = here("--task=mnist", "--dry_run")
    assert "--data_dir=mnist has no train-images-idx3-ubyte" in done.stderr


def test_a_folder_and_a_pipe_are_no_files_of_mnist(tmp_path: Path, here: Command) -> None:
    folder = write(tmp_path / "data", {k: v for k, v in contents().items() if k != TRAIN_LABELS})
    (folder / TRAIN_LABELS).mkdir()
    os.mkfifo(folder / f"{TRAIN_LABELS}.gz")
    done = here("--task=mnist", "--data_dir=data", "--dry_run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"has no {TRAIN_LABELS}" in done.stderr


# ---- fetch


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files, whose checksums are the right ones here."""
    files = contents()
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(mnist_download.SHA256, name, digest)
    return write(tmp_path / "mirror", files, LAYOUTS["as released"])


def test_fetched_files_are_those_of_the_mirror_and_are_fetched_once(
    tmp_path: Path, mirror: Path, here: Command
) -> None:
    words = ("fetch", "--data=mnist", f"--url={mirror.as_uri()}")
    assert here(*words).stdout == "mnist, 4 new files, 0 were there already\n"
    for name in MNIST_FILES:
        there, source = (folder / f"{name}.gz" for folder in (tmp_path / "mnist", mirror))
        assert there.read_bytes() == source.read_bytes()
    (tmp_path / "mnist" / f"{TEST_LABELS}.gz").unlink()
    assert here(*words).stdout == "mnist, 1 new files, 3 were there already\n"
    assert here(*words, "--data_dir=other").stdout == "other, 4 new files, 0 were there already\n"
    assert here("--task=mnist", "--dry_run").returncode == 0


def test_a_mirror_may_unpack_files_and_torchvisions_files_count(
    tmp_path: Path, mirror: Path, here: Command
) -> None:
    write(tmp_path / "mnist", {TRAIN_IMAGES: contents()[TRAIN_IMAGES]}, LAYOUTS["torchvision"])
    served = mirror / f"{TRAIN_LABELS}.gz"
    served.write_bytes(gzip.decompress(served.read_bytes()))
    done = here("fetch", "--data=mnist", f"--url={mirror.as_uri()}/")
    assert done.stdout == "mnist, 3 new files, 1 were there already\n"
    labels = gzip.decompress((tmp_path / "mnist" / f"{TRAIN_LABELS}.gz").read_bytes())
    assert labels == contents()[TRAIN_LABELS]


@pytest.mark.parametrize("change", [lambda b: b[:-9], lambda b: gzip.compress(b"other"),
                                    lambda b: b"<html>log in</html>"])  # fmt: skip
def test_a_file_with_another_checksum_is_not_kept(
    tmp_path: Path, mirror: Path, here: Command, change: Callable[[bytes], bytes]
) -> None:
    served = mirror / f"{TEST_IMAGES}.gz"
    served.write_bytes(change(served.read_bytes()))
    done = here("fetch", "--data=mnist", f"--url={mirror.as_uri()}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{served.as_uri()} is not MNIST's file, or broke off (its checksum" in done.stderr
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(
        [f"{TRAIN_IMAGES}.gz", f"{TRAIN_LABELS}.gz"]
    )


def test_digits_of_another_data_set_do_not_pass_for_mnist(tmp_path: Path, here: Command) -> None:
    mirror = write(tmp_path / "mirror", contents(), LAYOUTS["as released"])
    done = here("fetch", "--data=mnist", f"--url={mirror.as_uri()}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "mnist").exists()
    write(tmp_path / "mnist", contents())
    done = here("fetch", "--data=mnist", f"--url={mirror.as_uri()}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"mnist/{TRAIN_IMAGES} is damaged, or not of MNIST; remove it" in done.stderr
    assert (tmp_path / "mnist" / TRAIN_IMAGES).read_bytes() == contents()[TRAIN_IMAGES]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--url=http://127.0.0.1:9/x"], "x/train-images-idx3-ubyte.gz cannot be fetched ("),
        (["--url=nonsense"], "unknown url type"),
        (["--url=file:///missing"], "or name a mirror with --url"),
        (["--keep=keep.txt"], "--keep lists classes of places365; drop it for --data=mnist"),
    ],
)
def test_a_fetch_that_cannot_work_is_refused_in_a_line(
    here: Command, words: list[str], text: str
) -> None:
    done = here("fetch", "--data=mnist", *words, no_proxy="127.0.0.1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert text in done.stderr

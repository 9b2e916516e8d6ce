"""Weights and data from a server: this one, on this machine."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from deep_cnn.cli import main
from deep_cnn.data.preprocessing import decode
from deep_cnn.models.weights import weights_address
from tests.conftest import make_classes
from tests.mnist_files import contents, gzipped, write


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; names with `half` break off in the middle."""

    def copyfile(self, source: io.BufferedIOBase, outputfile: io.BufferedIOBase) -> None:  # type: ignore[override]
        content = source.read()
        outputfile.write(content[: len(content) // 2] if "half" in self.path else content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the server is quiet."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address where it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = lambda *args: Handler(*args, directory=str(folder))  # noqa: E731
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


def test_weights_are_fetched_once_and_mended(
    served: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = served
    torch.save({"conv1.weight": torch.zeros(1)}, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    (folder / "new.pth").rename(folder / f"tiny-{digest}.pth")
    words = ["fetch", "--model=resnet18", f"--url={url}/tiny-{digest}.pth"]
    _, file = weights_address("resnet18")
    for done in ("downloaded", "was there already"):
        assert main(words) == 0
        assert capsys.readouterr().out == f"resnet18: {file}, 0.0 MiB, {done}\n"
    file.write_bytes(file.read_bytes()[:100])
    assert main(words) == 0
    assert "downloaded" in capsys.readouterr().out
    assert list(file.parent.iterdir()) == [file]
    assert torch.load(file, weights_only=True)["conv1.weight"] == 0


@pytest.mark.parametrize("name", ["nowhere-0a0b0c0d.pth", "tiny-0a0b0c0d.pth", "half-0a0b0c0d.pth"])
def test_a_fetch_that_fails_leaves_nothing(
    name: str, served: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = served
    for file in ("tiny-0a0b0c0d.pth", "half-0a0b0c0d.pth"):
        (folder / file).write_bytes(bytes(100_000))
    assert main(["fetch", "--model=resnet50", f"--url={url}/{name}"]) == 2
    said = capsys.readouterr().err
    _, place = weights_address("resnet50")
    for what in ("--model=resnet50", str(place), f"{url}/{name}", "correct --url"):
        assert what in said
    assert said.count("\n") == 1
    assert not list(place.parent.iterdir())


def pack(folder: Path, target: Path, *, more: tuple[str, ...] = ()) -> None:
    """A tar as MIT's is: everything in places365_standard/, with lists beside."""
    with tarfile.open(target, "w") as tar:
        tar.add(folder, "places365_standard")
        for name in ("places365_standard/train.txt", *more):
            tar.addfile(tarfile.TarInfo(name))


def test_the_classes_to_keep_are_fetched_and_nothing_twice(
    served: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = served
    pictures = make_classes(tmp_path / "source", count=4)
    for part in ("train", "val"):
        (pictures / part / "light").rename(pictures / part / "sky-outdoor")
        (pictures / part / "dark").rename(pictures / part / "cellar")
    (pictures / "train" / "link.png").symlink_to("/etc/passwd")
    pack(pictures, folder / "places.tar")
    keep = "\ufeff# mine\r\n/s/sky/outdoor/ 307 # blue\r\n\r\n"
    (tmp_path / "keep.txt").write_text(keep, encoding="utf-8")
    words = ["fetch", "--data=places365", "--keep=keep.txt", f"--url={url}/places.tar"]
    assert main(words) == 0
    assert capsys.readouterr().out == (
        "places365, 1 classes, 8 new pictures, 0 were there already\n"
    )
    found = sorted(p for p in (tmp_path / "places365").rglob("*") if p.is_file())
    assert {p.parent.relative_to(tmp_path / "places365").as_posix() for p in found} == {
        "train/sky-outdoor",
        "val/sky-outdoor",
    }
    found[3].unlink()
    (tmp_path / "keep.txt").write_text("sky-outdoor\ncellar\n")
    assert main(words) == 0
    assert "2 classes, 9 new pictures, 7 were there" in capsys.readouterr().out
    assert decode(found[3]).size == decode(found[2]).size


@pytest.mark.parametrize(
    ("file", "keep", "said"),
    [
        ("half.tar", "dark", "the same command again brings the others"),
        ("page.html", "dark", "cannot be fetched into places365"),
        ("nowhere.tar", "dark", "HTTP Error 404"),
        ("places.tar", "dark\nlihgt\nairfield\n", "has no airfield, lihgt; correct --keep"),
        ("out.tar", "dark", "outside the destination"),
        ("places.tar", "\n", "names no class"),
        ("places.tar", "caf\xe9", "is not UTF-8 text"),
    ],
)
def test_data_that_cannot_be_fetched(
    file: str, keep: str, said: str, served: tuple[Path, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, url = served
    make_classes(tmp_path / "source")
    for name, more in (("half.tar", ()), ("places.tar", ()), ("out.tar", ("../../train/dark/x",))):
        pack(tmp_path / "source", folder / name, more=more)
    (folder / "page.html").write_text("<html>please log in</html>" * 1000)
    (tmp_path / "keep.txt").write_text(keep, encoding="latin-1")
    words = ["fetch", "--data=places365", "--keep=keep.txt", f"--url={url}/{file}"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("address", ["half", "nowhere"])
def test_a_file_of_mnist_that_breaks_off_or_is_missing_leaves_nothing(
    address: str, served: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = served
    write(folder / "half", contents(), gzipped)
    assert main(["fetch", "--data=mnist", f"--url={url}/{address}"]) == 2
    error = capsys.readouterr().err
    said = {"half": "or broke off (its checksum differs)", "nowhere": "HTTP Error 404"}[address]
    assert said in error
    assert f"{url}/{address}/train-images-idx3-ubyte.gz" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "mnist").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "takes either --model="),
        (["--model=resnet18", "--data=places365"], "takes either"),
        (["--model=resnet18,resnet19"], "--model=resnet19 is unknown; did you mean resnet1"),
        (["--model=lenet"], "no ImageNet weights to fetch"),
        (["--model=resnet18,vgg11", "--url=x"], "one file, not of 2"),
        (["--model=resnet18", "--url=x"], "unknown url type"),
        (["--data=imagenet"], "--data=imagenet is unknown"),
    ],
)
def test_a_wrong_fetch_says_what_is_legal(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", *words]) == 2
    assert said in capsys.readouterr().err

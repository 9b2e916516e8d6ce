"""Download weights and data on a machine with a network, for machines without one."""

import hashlib
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from deep_cnn.argv import not_an_option, parse_verb
from deep_cnn.errors import ConfigError, DataError, OutputError, WeightsError, choose_from
from deep_cnn.files import write_whole
from deep_cnn.home import expand_user
from deep_cnn.names import MODELS, NOT_PRETRAINED, weights_name, weights_problem
from deep_cnn.options import OptionModel, option
from deep_cnn.progress import track_reading
from deep_cnn.text import first_line, printable

# Places365-Standard, pictures of 256 x 256: http://places2.csail.mit.edu/download.html
DATA = {
    "places365": "http://data.csail.mit.edu/places/places365/places365standard_easyformat.tar",
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist",  # That of torchvision.
}
# The limit in seconds for each read; the whole tar of 25 GB takes hours.
_TIMEOUT = 60.0


class FetchOptions(OptionModel):
    """Options of the verb fetch."""

    model: str | None = option(None, "networks, separated by commas, such as resnet50,vit_b_16")
    weights: str | None = option(
        None, "name of torchvision, such as IMAGENET1K_SWAG_E2E_V1; None: its default weights"
    )
    data: str | None = option(None, "data set to download", choices=tuple(DATA))
    data_dir: str | None = option(None, "folder to write into; None: the name of the data set")
    keep: str | None = option(
        None, "places365: file that lists the classes to write, one per line; None: all"
    )
    url: str | None = option(None, "address to download from; None: the official one")


OPTIONS: Mapping[str, type[OptionModel]] = {"fetch": FetchOptions}


def fetch(argv: list[str]) -> int:
    """Download ImageNet weights into TORCH_HOME (--model) or data into --data_dir (--data)."""
    options, rest = parse_verb(FetchOptions, argv)
    if rest:
        raise not_an_option(rest[0])
    if (options.model is None) == (options.data is None):
        raise ConfigError("fetch takes either --model=resnet50,vit_b_16 or --data=places365")
    if options.data:
        print(printable(_fetch_data(options, options.data)))
        return 0
    models = [name.strip() for name in str(options.model).split(",")]
    for name in models:
        if name not in MODELS:
            raise ConfigError(f"--model={name} is unknown; {choose_from(name, MODELS)}")
        if name in NOT_PRETRAINED:
            raise ConfigError(f"--model={name} has no ImageNet weights to fetch; leave it out")
        if options.weights and (problem := weights_problem(name, options.weights)):
            raise ConfigError(f"--weights={options.weights} {problem[1]}")
    if options.url and len(models) > 1:
        raise ConfigError(f"--url is the address of one file, not of {len(models)}; fetch one")
    for name in models:
        print(printable(f"{name}: {fetch_weights(name, options.url, options.weights)}"), flush=True)
    return 0


def _fetch_data(options: FetchOptions, data: str) -> str:
    url, folder = options.url or DATA[data], expand_user(options.data_dir or data)
    if data == "mnist":
        if options.keep:
            raise ConfigError("--keep lists classes of places365; drop it for --data=mnist")
        from deep_cnn.data.mnist_download import download_mnist

        return download_mnist(url, folder)
    keep = _read_classes(Path(options.keep)) if options.keep else None
    return fetch_pictures(url, folder, keep)


def fetch_weights(name: str, url: str | None = None, weights: str | None = None) -> str:
    """Download torchvision's `weights` of `name` into TORCH_HOME; return a message about it.

    An existing file that matches the hash in its name is not downloaded again. Raises WeightsError.
    """
    if name == "efficientnet_lite0":
        return "its weights come with the installation"
    from deep_cnn.models.weights import download_weights, hash_in, weights_address

    entry = weights_name(weights or "")
    usual, file = weights_address(name, entry)
    digest = hash_in(url or usual) or hash_in(usual)
    is_there = _begins(file, digest or "")
    if not is_there:
        try:
            download_weights(name, url or usual, file, digest, entry)
        except WeightsError as error:
            if url is None:
                raise
            reason = " ".join(str(error.__cause__).split())
            text = f"--model={name}: {url} cannot be fetched into {file} ({reason})"
            raise WeightsError(f"{text}; correct --url") from error
    done = "was there already" if is_there else "downloaded"
    return f"{file}, {file.stat().st_size / 2**20:.1f} MiB, {done}"


def _begins(file: Path, digest: str) -> bool:
    """Return whether the file exists and its hash begins with `digest`."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest().startswith(digest)
    except OSError:
        return False


def fetch_pictures(url: str, folder: Path, keep: set[str] | None) -> str:
    """Stream a tar with .../train/<class>/<file> and val/ into `folder`; return a message.

    Writes only the classes in `keep`, each picture as a whole file, and skips existing files.
    Raises DataError if the tar is not available, breaks off, or lacks a class; OutputError.
    """
    new, old, classes = 0, 0, set()
    try:
        for member, tar in _members(url):
            path = _target(member, folder)
            if path is None or (keep is not None and path.parent.name not in keep):
                continue
            classes.add(path.parent.name)
            if path.exists():
                old += 1
                continue
            file = tar.extractfile(member)
            content = file.read() if file else b""  # Read before: a fault here is the network's.
            write_whole(path, partial(Path.write_bytes, data=content), "--data_dir")
            new += 1
    except OutputError:
        raise
    except (OSError, ValueError, HTTPException, tarfile.TarError) as error:
        reason = first_line(error)
        raise DataError(
            f"{url} cannot be fetched into {folder} ({reason}); {new + old} pictures are there, the"
            " same command again brings the others"
        ) from error
    missing = ", ".join(sorted((keep or set()) - classes))
    if missing or not classes:
        what = missing or "train/<class>/<picture>"
        raise DataError(f"{url} has no {what}; correct --keep or --url ({new} new pictures)")
    if len(classes) == 1:
        text = f"{folder} has one class, which cannot be trained on; fetch two at least"
        print(printable(text), file=sys.stderr)
    return f"{folder}, {len(classes)} classes, {new} new pictures, {old} were there already"


def _members(url: str) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Yield the members of a tar during the download; raise OSError if it breaks off."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
        reading = track_reading(answer, "Fetching", getattr(answer, "length", None))
        with reading as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
            while (member := tar.next()) is not None:
                yield member, tar
                tar.members.clear()  # type: ignore[attr-defined] # It would keep 1.8 million.
            while stream.read(2**20):  # What is left of the last block.
                pass
        if getattr(answer, "length", None):
            raise OSError("the connection broke off")


def _target(member: tarfile.TarInfo, folder: Path) -> Path | None:
    """Return the path to write a member to, or None if it is not a picture."""
    parts = PurePosixPath(member.name).parts[-3:]
    if not member.isreg() or len(parts) < 3 or parts[0] not in ("train", "val"):
        return None
    tarfile.data_filter(member, str(folder))  # Raises where it leads out of the folder.
    return folder.joinpath(*parts)


def _read_classes(file: Path) -> set[str]:
    """Return the classes in a file, one per line, by folder name or in MIT's notation.

    `/a/apartment_building/outdoor 8` is the folder apartment_building-outdoor.
    """
    from deep_cnn.tasks.folders import named_classes  # torch takes seconds.

    classes = {names[-1] for _, _, names in named_classes(file)}
    if not classes:
        raise ConfigError(f"--keep={file} names no class; write one a line, as airfield")
    return classes

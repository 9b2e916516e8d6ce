"""Compute what the smaller golden files hold: options, samples, proposals, W&B, the cache."""

import csv
import io
import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.golden import adapter
from tests.golden.common import HERE, ROOT, as_json, called, run_well

SWEEPS = sorted([*(ROOT / "sweeps").glob("*.yaml"), *(HERE / "sweeps").glob("*.yaml")])
# What the search of these is followed for, and how far: random draws first, then the process.
BAYES = {"bayes": ROOT / "sweeps" / "bayes.yaml", "mixed": HERE / "sweeps" / "mixed.yaml"}
POINTS = 14
# So many of them are drawn at random and must be the same on every machine.
DRAWN = 10
FINGERPRINTED: Mapping[str, list[Any]] = {
    "nothing": [],
    "words": ["squash", "default"],
    "numbers": [1, 1.0, 0.1, -0.0, True, None, 10**30],
    "nested": [1, {"resize": 256, "mean": (0.485,)}, ("a.jpg", "/x/a.jpg", 1, 2, 3, 4)],
    "bytes": [b"\x00\xff", "\udcff", "ä"],
}
SHORT = ("--amp=off", "--num_workers=0", "--device=cpu")


def options() -> Any:
    """Describe each option of each verb: type, default, choices."""
    found: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for verb, table in adapter.option_tables().items():
        described = {
            name: [kind.__name__, default, sorted(choices)]
            for name, (kind, default, choices) in sorted(table.items())
        }
        if verb.startswith("train "):
            training[verb] = described
        else:
            found[verb] = described
    shared = {
        name: value
        for name, value in next(iter(training.values())).items()
        if all(table.get(name) == value for table in training.values())
    }
    for verb, table in training.items():
        found[verb] = {name: value for name, value in table.items() if name not in shared}
    found["train"] = shared
    return as_json(dict(sorted(found.items())))


def sampled(file: Path, folder: Path) -> list[Any]:
    """Give the first 50 configurations of a sweep file, as the verb prints them in JSON."""
    words = ("sample", str(file), "-n", "50", "--seed=0", "--format=json")
    status, out, err = called(folder, *words)
    assert status == 0, err
    found: list[Any] = json.loads(out)
    return found


def printed(file: Path, folder: Path, form: str) -> str:
    """Give the first 6 configurations of a sweep file in another format."""
    words = ("sample", str(file), "-n6", "--seed=3", f"--format={form}")
    status, out, err = called(folder, *words)
    assert status == 0, err
    return out


def worth(point: Mapping[str, Any]) -> float:
    """Give a point a value that is the same everywhere: numbers matter smoothly, words by name."""
    total = 0.0
    for name, value in sorted(point.items()):
        if isinstance(value, bool) or not isinstance(value, int | float):
            total += zlib.crc32(f"{name}={value}".encode()) / 2**32
        else:
            total += (math.log10(abs(value) + 1e-9) + 1.5) ** 2 / 10
    return round(total, 9)


def proposed(file: Path) -> list[Any]:
    """Give the points that bayes search tries first, when they are worth what `worth` says."""
    seen: list[tuple[Mapping[str, Any], Any, bool]] = []
    for _ in range(POINTS):
        point = adapter.next_point(file, 0, seen)
        seen.append((point, worth(point), False))
    return as_json([[dict(point), value] for point, value, _ in seen])


def fingerprints() -> dict[str, str]:
    """Give the cache's key of fixed inputs."""
    return {name: adapter.cache_key(parts) for name, parts in FINGERPRINTED.items()}


def cached(folder: Path) -> Any:
    """Train on the sample in several ways, and count the kinds of cache entries after each."""
    few = ("--epochs=1", "--train_samples=8", "--batch_size=8", "--wandb=False", *SHORT)
    found: dict[str, Any] = {}
    for name, more in (
        ("default", ()),
        ("freeze=trunk", ("--freeze=trunk",)),
        ("pre=squash", ("--pre=squash",)),
        ("cache=off", ("--cache=off", "--pre=resnet", "--freeze=trunk")),
    ):
        status, _, err = called(folder, *few, *more)
        assert status == 0, err
        places = (folder / "outputs" / "cache").iterdir()
        kinds = Counter(place.name.partition("-")[0] for place in places if place.is_dir())
        found[name] = dict(sorted(kinds.items()))
    return found


def offline(folder: Path) -> Any:
    """Train with W&B offline, and describe what its client has kept."""
    extra = {"WANDB_MODE": "offline", "WB_KEY": "k" * 40, "WB_PROJECT": "places", "WB_USER": "me"}
    words = ("--task=digits", "--train_samples=64", "--epochs=2", "--hidden=4", *SHORT)
    run_well(folder, *words, "--run_name=first", **extra)
    (file,) = (folder / "outputs" / "wandb").glob("offline-run-*/*.wandb")
    return _described(file)


def _records(file: Path) -> Iterator[bytes]:
    """Give the records of a .wandb file: LevelDB's log format behind seven bytes."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # No room for a head: the rest of the block is padding.
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # A whole one, or the last part.
            yield record
            record = b""


def _described(file: Path) -> Any:
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"history": [], "summary": [], "metrics": [], "exit_code": None}
    summary: set[str] = set()
    for data in _records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["run"] = {
                "display_name": run.display_name,
                "group": run.run_group,
                "job_type": run.job_type,
                "tags": sorted(run.tags),
                "project": run.project,
                "entity": run.entity,
            }
            config = {item.key: json.loads(item.value_json) for item in run.config.update}
            config.pop("_wandb", None)
            found["config"] = dict(sorted(config.items()))
        elif kind == "history":
            keys = [item.key or "/".join(item.nested_key) for item in record.history.item]
            own = sorted(key for key in keys if not key.startswith("_"))
            found["history"].append([record.history.step.num, own])
        elif kind == "summary":
            summary |= {item.key or "/".join(item.nested_key) for item in record.summary.update}
        elif kind == "metric":
            metric = record.metric
            found["metrics"].append([metric.name or metric.glob_name, metric.step_metric])
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    found["summary"] = sorted(key for key in summary if not key.startswith("_"))
    found["metrics"].sort()
    return dict(sorted(found.items()))


def table(text: str) -> list[dict[str, str]]:
    """Read a CSV file's rows."""
    return list(csv.DictReader(io.StringIO(text, newline="")))

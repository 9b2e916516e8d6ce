"""Checkpoints that are damaged or hostile have one line, and run no code."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Command
from tests.inference.conftest import changed, checkpoint

_NESTED: Any = "x"
for _ in range(40):  # As text, it would have 2^40 characters.
    _NESTED = [_NESTED, _NESTED]


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran_code",)


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"model": "file.py:Class"}},
        {"config": {"model": "resnet18"}},
        {"config": {"task": "auto"}},
        {"config": {"task": "../evil"}},
        {"config": {"task": _NESTED}},
        {"config": {"pre": 5}},
        {"config": {"crop_bottom": -1}},
        {"config": {"crop_bottom": torch.zeros(2)}},
        {"config": {"study": _NESTED}},
        {"config": {"unknown": 1}},
        {"labels": {"mean": "x"}},
        {"labels": {"mean": None}},
        {"labels": {"std": 0.0}},
        {"labels": {"std": float("nan")}},
        {"labels": {"mean": _NESTED}},
        {"labels": {"classes": ["a"] * 10**6}},
        {"labels": {"classes": {"a": 1}}},
        {"labels": {"classes": [1, 2]}},
        {"labels": {"classes": []}},
        {"labels": {"classes": _NESTED}},
        {"labels": 5},
        {"state_dict": {}},
        {"state_dict": {"head.1.weight": torch.zeros(1).expand(10**12)}},
        {"run_name": 5},
        {"history": [{"epoch": 1, "lr": 1.0, "metrics": {}, "unknown": 1}]},
        {"best": {"epoch": 1, "metric": "a", "value": 1.0, "unknown": 1}},
        {"version": 99},
    ],
    ids=lambda values: str({k: [*v] if isinstance(v, dict) else v for k, v in values.items()})[:50],
)
def test_wrong_values_have_one_line(
    trained: Path, tmp_path: Path, here: Command, values: dict[str, Any]
) -> None:
    path = changed(checkpoint(trained, "seed0"), tmp_path / "c.pt", **values)
    for verb in (("predict", path, trained / "scored"), ("export", path)):
        done = here(*verb)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "internal error" not in done.stderr
        assert len(done.stderr) < 1000
        assert done.stdout == ""


def test_weights_that_are_no_numbers_are_refused(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    path = checkpoint(trained, "seed0")
    state = torch.load(path, weights_only=True)["state_dict"]
    state["head.1.bias"] = state["head.1.bias"] * float("nan")
    changed(path, tmp_path / "c.pt", state_dict=state)
    done = here("predict", "c.pt", trained / "scored")
    assert done.returncode == 2
    assert "has a nan or an infinity in its weights" in done.stderr


def test_no_file_runs_code(trained: Path, tmp_path: Path, here: Command) -> None:
    path, base = tmp_path / "c.pt", checkpoint(trained, "seed0")
    content = torch.load(base, weights_only=True)
    evil = [torch.save(Evil(), tmp_path / "a.pt"), torch.save({**content, "labels": Evil()}, path)]
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil()))
    assert len(evil) == 2
    for name in "abc":
        done = here("predict", f"{name}.pt", trained / "scored")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert not list(Path(tmp_path).rglob("ran_code"))


def test_files_of_other_kinds_are_refused(trained: Path, tmp_path: Path, here: Command) -> None:
    base = checkpoint(trained, "seed0")
    packed = zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(base) as source, packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "half.pt").write_bytes(base.read_bytes()[:-1000])
    (tmp_path / "empty.pt").touch()
    for path in ("packed.pt", "pipe.pt", "half.pt", "empty.pt", trained / "scored" / "p000.png"):
        done = here("predict", path, trained / "scored")
        assert done.returncode == 2, path
        assert "is damaged or no checkpoint at all" in done.stderr


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array", pickle.dumps(Evil())])
def test_damaged_digests_of_splits_are_no_error(
    trained: Path, tmp_path: Path, here: Command, damage: bytes
) -> None:
    out = tmp_path / "outputs"
    (out / "models").mkdir(parents=True)
    (out / "results").mkdir()
    path = out / "models" / "seed0.best.pt"
    path.write_bytes(checkpoint(trained, "seed0").read_bytes())
    (out / "results" / "seed0.splits.npy").write_bytes(damage)
    done = here("predict", path, trained / "scored")
    assert done.returncode == 0, done.stderr
    assert "is not known" in done.stderr
    assert not list(Path(tmp_path).rglob("ran_code"))

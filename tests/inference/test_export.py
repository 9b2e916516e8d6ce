"""Exported programs compute the same without deep_cnn."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deep_cnn.inference.trained import open_trained
from deep_cnn.models import build_network
from tests.conftest import Command, environment
from tests.inference.conftest import changed, checkpoint

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_lite0", "googlenet", "lenet",
    "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_0",
    "swin_t", "vit_b_32",
)  # fmt: skip
ONNX_FAMILIES = ("efficientnet_lite0", "resnet18", "lenet")
RUN_TORCH = """
import sys, numpy, torch
program = torch.export.load(sys.argv[1]).module()
numpy.save(sys.argv[3], program(torch.from_numpy(numpy.load(sys.argv[2]))).numpy())
assert "deep_cnn" not in sys.modules
"""
RUN_ONNX = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(None, {"pictures": numpy.load(sys.argv[2])})[0])
assert "deep_cnn" not in sys.modules
"""


def of_family(trained: Path, name: str, folder: Path) -> Path:
    """A checkpoint of a network with random weights."""
    torch.manual_seed(0)
    state = build_network(name, 1, weights="none", dropout=0.2).state_dict()
    config = {"model": name}
    return changed(
        checkpoint(trained, "seed0"), folder / f"{name}.pt", config=config, state_dict=state
    )


def run_elsewhere(code: str, program: Path, pictures: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "in.npy", pictures)
    files = [str(program), str(folder / "in.npy"), str(folder / "out.npy")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        env=environment(PYTHONPATH=""), cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npy")


def expected(path: Path, pictures: np.ndarray) -> np.ndarray:
    trained = open_trained(path, "cpu", amp="off")
    with torch.inference_mode():
        values = trained.values(trained.network(torch.from_numpy(pictures)))
    return values if trained.classes else values[:, 0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_torch_program_runs_without_deep_cnn(
    trained: Path, tmp_path: Path, here: Command, name: str
) -> None:
    path = of_family(trained, name, tmp_path)
    done = here("export", path)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / f"{name}.pt2.json").read_text())
    shape = about["input"]["shape"][1:]
    pictures = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    values = run_elsewhere(RUN_TORCH, tmp_path / f"{name}.pt2", pictures, tmp_path)
    assert abs(values - expected(path, pictures)).max() < 1e-5 * about["score"]["std"]


@pytest.mark.parametrize("name", ONNX_FAMILIES)
def test_an_onnx_program_runs_without_torch(
    trained: Path, tmp_path: Path, here: Command, name: str
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    path = of_family(trained, name, tmp_path)
    done = here("export", path, "--format=onnx", "--out=program.onnx")
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "program.onnx.json").read_text())
    shape = about["input"]["shape"][1:]
    pictures = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    values = run_elsewhere(RUN_ONNX, tmp_path / "program.onnx", pictures, tmp_path)
    assert values.shape == (5,)
    assert abs(values - expected(path, pictures)).max() < 1e-5 * about["score"]["std"]


def test_classes_have_probabilities_and_a_description(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    path = checkpoint(trained, "classes")
    done = here("export", path)
    assert done.returncode == 0, done.stderr
    assert "on batches of 1 and 3" in done.stdout
    about = json.loads((tmp_path / "classes.best.pt2.json").read_text())
    assert about["classes"] == ["dark", "light"]
    assert about["score"] is None
    assert about["digest"] == open_trained(path).digest
    assert about["preprocessing"]["crop"] == 28
    pictures = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28)).astype(np.uint8)
    values = run_elsewhere(RUN_TORCH, tmp_path / "classes.best.pt2", pictures, tmp_path)
    assert values.sum(1) == pytest.approx([1] * 4)
    assert values == pytest.approx(expected(path, pictures), abs=1e-6)


def test_a_program_that_differs_is_not_written(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    # With weights that are so large, the outputs are not numbers.
    state = of_family(trained, "lenet", tmp_path)
    content = torch.load(state, weights_only=True)
    for value in content["state_dict"].values():
        if value.ndim > 1:
            value *= 1e30
    torch.save(content, state)
    done = here("export", state)
    assert done.returncode == 2
    assert "differs from the network" in done.stderr
    assert not (tmp_path / "lenet.pt2").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "export takes one checkpoint, and here are 0"),
        (("a", "b"), "export takes one checkpoint, and here are 2"),
        (("nowhere.pt",), "does not exist"),
        (("CHECKPOINT", "--format=coreml"), "choose from onnx, torch"),
        (("CHECKPOINT", "--out=file/a.pt2"), "cannot be written"),
    ],
)
def test_bad_commands_have_one_line(
    trained: Path, tmp_path: Path, here: Command, words: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "file").touch()
    path = str(checkpoint(trained, "seed0"))
    done = here("export", *(word.replace("CHECKPOINT", path) for word in words))
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1

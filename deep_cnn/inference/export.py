"""Write a trained network as a program for other software, and compare both."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deep_cnn.errors import DeepCnnError, OutputError
from deep_cnn.files import write_text, write_whole
from deep_cnn.inference.formats import require
from deep_cnn.inference.trained import Trained, open_trained
from deep_cnn.text import first_line

_SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
# The largest difference from the network, in standard deviations of the scores or in probability.
_TOLERANCE = 1e-5
_SIZES = (1, 3)


class Program(nn.Module):
    """Pictures, (N, C, H, W) uint8, to scores (N,) or probabilities (N, classes), float64."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network, labels = trained.network, trained.session.labels
        self.has_classes = bool(trained.classes)
        self.mean, self.std = (0.0, 1.0)
        if not self.has_classes:
            self.mean, self.std = float(labels["mean"]), float(labels["std"])

    def forward(self, pictures: Tensor) -> Tensor:
        """Return scores on their original scale, or probabilities."""
        outputs: Tensor = self.network(pictures).double()
        return outputs.softmax(1) if self.has_classes else outputs[:, 0] * self.std + self.mean


def export_checkpoint(
    path: Path, format: str, out: Path | None = None, model: str | None = None
) -> str:
    """Write the network in a checkpoint as a program, and a description as FILE.json.

    `model` names the class of a network of the user.
    Returns a line about it. Raises a DeepCnnError if the checkpoint is not usable, or if the
    program does not compute the same.
    """
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "onnx", "--format=onnx")
    trained = open_trained(path, "cpu", amp="off", model=model)
    out = out or Path(f"{path.stem}{_SUFFIXES[format]}")
    program = Program(trained).eval().requires_grad_(requires_grad=False)
    spec = trained.session.preprocessing.spec
    shape = (spec.channels, spec.crop, spec.crop)
    differences: list[float] = []

    def write(temporary: Path) -> None:
        differences.extend(_compared(program, _write(program, shape, temporary, format), shape))

    write_whole(out, write, "--out")
    described = json.dumps(_described(trained, format, shape), indent=2) + "\n"
    write_text(out.with_name(f"{out.name}.json"), described)
    unit = "probability" if trained.classes else "standard deviations of the scores"
    return (
        f"{out}, {out.stat().st_size / 2**20:.1f} MiB; it differs from the network by at most"
        f" {max(differences):.1e} {unit}, on batches of {' and '.join(map(str, _SIZES))}"
    )


def _write(
    program: Program, shape: tuple[int, ...], path: Path, format: str
) -> Callable[[Tensor], NDArray[np.float64]]:
    """Write the program, and return what runs it from the file."""
    example = (_pictures(2, shape),)
    dynamic = {"pictures": {0: torch.export.Dim("N", min=1)}}
    try:
        with warnings.catch_warnings(action="ignore"):  # Of one part of torch to another.
            exported = torch.export.export(program, example, dynamic_shapes=dynamic)
            if format == "torch":
                with path.open("w+b") as file:
                    torch.export.save(exported, file)
                    file.seek(0)
                    loaded = torch.export.load(file).module()
                return lambda x: loaded(x).detach().numpy()
            names = ["probabilities" if program.has_classes else "scores"]
            torch.onnx.export(
                exported, f=path, input_names=["pictures"], output_names=names, verbose=False,
                external_data=False,
            )  # fmt: skip
    except OSError:
        raise
    except Exception as error:  # The compilers of torch raise many kinds.
        raise DeepCnnError(
            f"this network cannot be exported as {format} ({first_line(error)}); try the other"
            " --format"
        ) from error
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"pictures": x.numpy()})[0]


def _pictures(size: int, shape: tuple[int, ...]) -> Tensor:
    random = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=random)


def _compared(
    program: Program, run: Callable[[Tensor], NDArray[np.float64]], shape: tuple[int, ...]
) -> list[float]:
    """Return the largest difference for each size of batch; raise OutputError beyond 1e-5."""
    differences = []
    for size in _SIZES:
        x = _pictures(size, shape)
        with torch.inference_mode():
            expected = program(x).numpy()
        outputs = run(x)
        difference = float(abs(outputs - expected).max()) / program.std
        if outputs.shape != expected.shape or not difference <= _TOLERANCE:
            raise OutputError(
                f"the exported program differs from the network by {difference:.2g} for {size}"
                " pictures, so it was not written; try the other --format"
            )
        differences.append(difference)
    return differences


def _described(trained: Trained, format: str, shape: tuple[int, ...]) -> dict[str, Any]:
    preprocessing, labels = trained.session.preprocessing, trained.session.labels
    about: dict[str, Any] = {"classes": list(trained.classes) or None, "score": None}
    if not trained.classes:
        about["score"] = {"name": trained.score, "mean": labels["mean"], "std": labels["std"]}
    return {
        "version": 1,
        "format": format,
        "input": {"name": "pictures", "shape": ["N", *shape], "dtype": "uint8"},
        "output": {
            "name": "probabilities" if trained.classes else "scores",
            "shape": ["N", len(trained.classes)] if trained.classes else ["N"],
            "dtype": "float64",
        },
        "preprocessing": {
            "pre": preprocessing.name,
            "shape": preprocessing.key[0],
            "crop_bottom": preprocessing.crop_bottom,
            **asdict(preprocessing.spec),
        },
        **about,
        "model": trained.session.config.model,
        "run_name": trained.checkpoint.run_name,
        "checkpoint": trained.path.name,
        "digest": trained.digest,
    }

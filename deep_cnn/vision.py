"""Import torchvision, with a torch with or without CUDA; no other module imports it."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import library

# Keeps the schemas below declared for as long as the process lives.
_declared: list[library.Library] = []


def torchvision() -> Any:
    """Return the module torchvision."""
    declare_operators()
    return importlib.import_module("torchvision")


def declare_operators() -> None:
    """Prepare for an import of torchvision, which itself takes a second.

    Its wheel may be built for CUDA while torch is not. Its compiled operators can then not be
    loaded, and the import would fail with "operator torchvision::nms does not exist".
    Classifiers need none of these operators, so their schemas are declared first.
    """
    if not _declared and not _operators_load():
        schemas = library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            schemas.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(schemas)


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    folders = (spec and spec.submodule_search_locations) or []
    libraries = [file for folder in folders for file in Path(folder).glob("_C.*")]
    try:
        for file in libraries:
            torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)

"""Build a network by its name: a trunk that turns pictures into features, and a head on them."""

import pickle
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deep_cnn.errors import WeightsError
from deep_cnn.models import efficientnet_lite, lenet
from deep_cnn.names import IMAGENET, InputFormat
from deep_cnn.vision import torchvision

_DOWNLOAD_TIMEOUT = 20.0


class Network(nn.Module):
    """A trunk and a head; takes pictures as they are decoded and normalises them itself."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, trunk: nn.Module, features: int, outputs: int, *, dropout: float, form: InputFormat
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, outputs))
        self.form, self.width = form, features
        self.frozen = False
        for name, values in (("mean", form.mean), ("std", form.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def freeze_trunk(self) -> None:
        """Let only the head train; the trunk's batch norms keep their statistics."""
        self.frozen = True
        self.trunk.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Network":
        """Set training mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def features(self, pictures: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, C, H, W) uint8 -> (N, F) float32; the trunk computes in `dtype` by autocast."""
        x = (pictures.float() / 255 - self.mean) / self.std
        lower = dtype != torch.float32
        if lower:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype if lower else torch.bfloat16, enabled=lower):
            found: Tensor = self.trunk(x)
        return found.float()

    def forward(self, pictures: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, C, H, W) uint8 -> (N, outputs) float32. The head always computes in float32."""
        answers: Tensor = self.head(self.features(pictures, dtype))
        return answers


@dataclass(frozen=True, slots=True)
class Backbone:
    """A classifier without its last layer, the number of its features, and its input format."""

    trunk: nn.Module
    features: int
    form: InputFormat


def build_network(
    name: str, outputs: int, *, weights: str, dropout: float, form: InputFormat | None = None
) -> Network:
    """The network `name` with `outputs` outputs.

    `weights` is imagenet, none, or a file: a state dict of the whole classifier, or a checkpoint of
    ours (its head is left out). `form` overrides what the network's own weights were trained with.
    WeightsError where the weights cannot be had.
    """
    backbone = build_backbone(name, weights)
    return Network(
        backbone.trunk, backbone.features, outputs, dropout=dropout, form=form or backbone.form
    )


def build_backbone(name: str, weights: str = "none") -> Backbone:
    """The trunk of the classifier `name`; see `build_network` for `weights`."""
    source = weights if weights in ("imagenet", "none") else "none"
    backbone = _BUILDERS.get(name, _torchvision_backbone)(name, source)
    if source != weights:
        load_weights(backbone.trunk, name, Path(weights).expanduser())
    return backbone


def _lite0_backbone(name: str, weights: str) -> Backbone:
    # Random numbers that are replaced at once take longer to draw than the rest to build.
    with torch.device("meta" if weights == "imagenet" else "cpu"):
        network = efficientnet_lite.EfficientNetLite0()
    if weights == "imagenet":
        network.load_state_dict(efficientnet_lite.bundled_state(), assign=True)
    _cut(network, "classifier")
    return Backbone(network, efficientnet_lite.FEATURES, efficientnet_lite.FORMAT)


def _lenet_backbone(name: str, weights: str) -> Backbone:
    return Backbone(lenet.lenet_trunk(hidden=120, dropout=0.5), 120, lenet.FORMAT)


def _torchvision_backbone(name: str, weights: str) -> Backbone:
    models = torchvision().models
    known = models.get_model_weights(name).DEFAULT
    if weights == "imagenet":
        with _explained_download(name, known.url):
            network = models.get_model(name, weights=known)
    else:
        network = models.get_model(name, weights=None)
    head = _HEADS[name.partition("_")[0].rstrip("0123456789")]
    preset = known.transforms()
    form = InputFormat(
        preset.resize_size[0],
        preset.crop_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation.value,
    )
    return Backbone(network, _cut(network, head), form)


_BUILDERS: Mapping[str, Callable[[str, str], Backbone]] = {
    "efficientnet_lite0": _lite0_backbone,
    "lenet": _lenet_backbone,
}
# Where the last layer of a family of torchvision's classifiers is.
_HEADS = {"resnet": "fc", "mobilenet": "classifier.3"}


def _cut(network: nn.Module, head: str) -> int:
    """Put nothing in the place of the last layer; return how many features it took."""
    parent_name, _, last = head.rpartition(".")
    parent = network.get_submodule(parent_name)
    layer = parent.get_submodule(last)
    assert isinstance(layer, nn.Linear), f"{head} is not the last layer"
    parent.register_module(last, nn.Identity())
    # The new head brings its own dropout, so the old one must not act a second time.
    for index, child in list(parent.named_children()) if parent_name else []:
        if isinstance(child, nn.Dropout):
            parent.register_module(index, nn.Identity())
    return layer.in_features


@contextmanager
def _explained_download(name: str, url: str) -> Iterator[None]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        yield
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        ways = (
            f"fetch {url} elsewhere and put it there (TORCH_HOME moves the folder), or give"
            " --weights=FILE, or train from scratch with --weights=none"
        )
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = "is damaged; remove it, then" if file.exists() else "cannot be downloaded;"
        raise WeightsError(
            f"--model={name}: the ImageNet weights {file} {what} {ways} ({reason})"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def load_weights(trunk: nn.Module, name: str, file: Path) -> None:
    """Put a file's weights into the trunk of the network `name`, all or none; WeightsError."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(
            f"--weights={file} does not exist; use imagenet, none or a file"
        ) from None
    except Exception as error:  # Damaged bytes make the reader fail in a dozen ways.
        raise WeightsError(f"--weights={file} is not a file of weights that torch saved") from error
    state = _trunk_state(content)
    wanted = trunk.state_dict()
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    if wrong:
        raise WeightsError(
            f"--weights={file} does not fit --model={name}: {len(wrong)} of {len(wanted)} tensors"
            f" are missing or of another shape, the first is {wrong[0]}; choose the right --model"
        )
    trunk.load_state_dict({key: state[key] for key in wanted})


def _trunk_state(content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = {
            key.removeprefix("trunk."): value
            for key, value in content["state_dict"].items()
            if key.startswith("trunk.")
        }
    if not isinstance(content, Mapping):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def preprocessing_format(pre: str, name: str) -> InputFormat | None:
    """What `--pre` asks for instead of the network's own format, or None for that one."""
    return IMAGENET if pre == "resnet" and name != "lenet" else None

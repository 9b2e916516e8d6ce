"""Build a network by its name: a trunk that turns pictures into features, and a head on them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deep_cnn.home import expand_user
from deep_cnn.models import efficientnet_lite, lenet
from deep_cnn.models.weights import (
    download_weights,
    fetch_command,
    hash_in,
    load_weights,
    weights_address,
)
from deep_cnn.names import IMAGENET, NOT_PRETRAINED, InputSpec, weights_name
from deep_cnn.vision import torchvision

# The names, in each family of networks, of the sequences of stages in a trunk.
_SEQUENCES = {"features", "layers", "blocks", "encoder", "trunk_output", "classifier"}


@dataclass(frozen=True, slots=True)
class Backbone:
    """A classifier without its last layer, its number of features, and its input spec."""

    trunk: nn.Module
    features: int
    input_spec: InputSpec


class Network(nn.Module):
    """A trunk and a head, which take decoded pictures; the network normalises them itself.

    `input_spec` overrides what the weights of the backbone expect.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, outputs: int, dropout: float, input_spec: InputSpec | None = None
    ) -> None:
        super().__init__()
        self.trunk, self.width = backbone.trunk, backbone.features
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.width, outputs))
        self.input_spec = input_spec or backbone.input_spec
        self.frozen = False
        self._resting: Sequence[nn.Module] = ()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.input_spec, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def freeze(self, what: str | int) -> None:
        """Freeze a part, which then stays in evaluation mode, including its batch norms.

        `what` is none, trunk, or how many stages are frozen, counted from the input.
        """
        parts = stages(self.trunk)
        count = {"none": 0, "trunk": len(parts)}.get(str(what), what)
        assert isinstance(count, int)
        self.frozen = count >= len(parts)
        self._resting = [self.trunk] if self.frozen else parts[:count]
        learning = {p for part in parts[count:] for p in part.parameters()}
        for parameter in self.trunk.parameters() if count else ():
            parameter.requires_grad_(parameter in learning)  # Embeddings are of the first stage.
        self.train(self.training)

    def train(self, mode: bool = True) -> "Network":
        """Set training mode; frozen layers stay in evaluation mode."""
        if not self.frozen:
            super().train(mode)
            for part in self._resting:
                part.eval()
            return self
        # A trunk has hundreds of modules, and with a frozen trunk an epoch takes milliseconds.
        self.training = mode
        self.head.train(mode)
        if self.trunk.training:
            self.trunk.eval()
        return self

    def features(self, pictures: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return features: (N, C, H, W) uint8 -> (N, F) float32; the trunk computes in `dtype`."""
        return self._computed(self.trunk, pictures, dtype)

    def get_features(self, pictures: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the features to show, (N, F) float32: those of the trunk's own `get_features`.

        For a trunk without this method, these are the inputs of the last layer.
        """
        return self._computed(getattr(self.trunk, "get_features", self.trunk), pictures, dtype)

    def _computed(
        self, function: Callable[[Tensor], Tensor], pictures: Tensor, dtype: torch.dtype
    ) -> Tensor:
        x = (pictures.float() / 255 - self.mean) / self.std
        lower = dtype != torch.float32
        if lower:
            x = x.contiguous(memory_format=torch.channels_last)
        # Without a lower type autocast is left out, because the device meta has none.
        with torch.autocast(x.device.type, dtype) if lower else nullcontext():
            return function(x).float()

    def forward(self, pictures: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return outputs: (N, C, H, W) uint8 -> (N, outputs) float32; the head is in float32."""
        outputs: Tensor = self.head(self.features(pictures, dtype))
        return outputs


def stages(trunk: nn.Module) -> list[nn.ModuleList]:
    """Return the parts of a trunk with weights, from the input on, which --freeze=N counts.

    A stage is a child of the trunk or of a sequence in it. A part that only normalises belongs
    to the stage before.
    """
    parts: list[nn.ModuleList] = []
    for part in _parts(trunk):
        if any(parameter.ndim > 1 for parameter in part.parameters()):
            parts.append(nn.ModuleList([part]))
        elif parts:
            parts[-1].append(part)
    return parts


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        yield from _parts(child) if name in _SEQUENCES else (child,)


class Unallocated(TorchFunctionMode):
    """A context in which networks have weights without memory, to count them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, but let `torch.empty` return tensors without memory."""
        # Not the device meta for all: some networks read numbers while they are built.
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})


def build_network(
    name: str,
    outputs: int,
    *,
    weights: str,
    dropout: float,
    preset: str = "",
    hidden: int | None = None,
) -> Network:
    """Return the network `name` with `outputs` outputs.

    `weights` is imagenet, none, a name of torchvision, or a file: a state dict of the whole
    classifier, or a checkpoint (without its head). The network has the picture size of the weights
    `preset`, by default of `weights`. `hidden` is the number of hidden units of LeNet. Raises
    WeightsError if the weights are not available.
    """
    backbone = build_backbone(name, weights, preset, dropout=dropout, hidden=hidden)
    return Network(backbone, outputs, dropout)


def build_backbone(
    name: str,
    weights: str = "none",
    preset: str = "",
    *,
    dropout: float = 0.0,
    hidden: int | None = None,
) -> Backbone:
    """Return the trunk of `name`; see `build_network` for the arguments."""
    entry = weights_name(preset or weights)
    source = weights if weights in ("imagenet", "none") or weights_name(weights) else "none"
    if name in NOT_PRETRAINED:
        backbone = _small_backbone(name, dropout, hidden)
    elif name == "efficientnet_lite0":
        backbone = _lite0_backbone(source)
    else:
        backbone = _torchvision_backbone(name, source, entry)
    if source != weights:
        load_weights(backbone.trunk, name, expand_user(weights))
    return backbone


def _small_backbone(name: str, dropout: float, hidden: int | None) -> Backbone:
    if name == "mnistnet":
        return Backbone(lenet.MnistNet(), lenet.MNISTNET_FEATURES, lenet.MNISTNET_FORMAT)
    if name == "lenet":
        hidden = hidden or lenet.HIDDEN
        return Backbone(lenet.lenet_trunk(hidden, dropout), hidden, lenet.FORMAT)
    # Tasks without the option --hidden had these numbers.
    hidden, dropout = (hidden, dropout) if hidden else (120, 0.5)
    return Backbone(lenet.lenet_v1_trunk(hidden, dropout), hidden, lenet.FORMAT)


def _lite0_backbone(weights: str) -> Backbone:
    # Drawing random weights that are replaced at once takes longer than all the rest.
    with torch.device("meta" if weights == "imagenet" else "cpu"):
        network = efficientnet_lite.EfficientNetLite0()
    if weights == "imagenet":
        network.load_state_dict(efficientnet_lite.bundled_state(), assign=True)
    return Backbone(network, _cut(network), efficientnet_lite.FORMAT)


def _torchvision_backbone(name: str, weights: str, entry: str | None) -> Backbone:
    models = torchvision().models
    if weights != "none":
        url, file = weights_address(name, entry)
        if not file.exists():
            download_weights(name, url, file, hash_in(url), entry)
    preset = models.get_model_weights(name)[entry or "DEFAULT"].transforms()
    resize, crop = preset.resize_size[0], preset.crop_size[0]
    mean, std = tuple(preset.mean), tuple(preset.std)
    input_spec = InputSpec(resize, crop, mean, std, preset.interpolation.value)
    # The arguments of the network that the pretrained weights belong to.
    args: dict[str, Any] = {"image_size": crop} if name.startswith("vit_") else {}
    if name in ("googlenet", "inception_v3"):
        args = {"aux_logits": False, "transform_input": True, "init_weights": True}
    network = models.get_model(name, weights=None, **args)
    features = _cut(network)
    if weights != "none":
        load_weights(network, name, file, fetch=fetch_command(name, entry))
    return Backbone(network, features, input_spec)


def _cut(network: nn.Module) -> int:
    """Remove the last layer; return how many features it took."""
    *_, name = (n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    parent_name, _, last = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    children = list(parent.named_children())
    before, dropout = children[[key for key, _ in children].index(last) - 1]
    parent.register_module(last, nn.Identity())
    # The new head brings its own dropout, so the old one must not act a second time.
    if isinstance(dropout, nn.Dropout):
        parent.register_module(before, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def preprocessing_spec(pre: str, name: str) -> InputSpec | None:
    """Return the input spec that --pre requires, or None to use that of the network."""
    return IMAGENET if pre == "resnet" and name not in NOT_PRETRAINED else None

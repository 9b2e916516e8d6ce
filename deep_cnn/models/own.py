"""Build a network from a class of the user, as a trunk and a head where that is possible."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deep_cnn.errors import ConfigError
from deep_cnn.home import expand_user
from deep_cnn.models import Backbone, Network, stages
from deep_cnn.models.weights import load_weights
from deep_cnn.names import InputSpec
from deep_cnn.own_code import create
from deep_cnn.source import Source, read_source

# With one picture, a batch norm after a pooling over the whole picture has nothing to normalise.
_TRIED = 2
_LARGEST = 10_000


class OwnNetwork(Network):
    """A network of a class of the user; its trunk is an object of this class.

    If the last layer is an nn.Linear, it is the head. Otherwise, the trunk returns the outputs.
    """

    def __init__(
        self,
        source: Source,
        trunk: nn.Module,
        head: nn.Linear | None,
        outputs: int,
        spec: InputSpec,
    ) -> None:
        width = head.in_features if head else outputs
        super().__init__(Backbone(trunk, width, spec), outputs, 0.0)
        self.source, self.is_divided = source, head is not None
        self.head = head or nn.Identity()  # type: ignore[assignment]

    def freeze(self, what: str | int) -> None:
        """Freeze a part; raise ConfigError if there are fewer stages, or if nothing could learn."""
        count = len(stages(self.trunk))
        if what in ("none", 0):  # Parameters outside of all stages learn, too.
            return
        if isinstance(what, int) and what > count:
            text = f"--freeze={what} is too many: {self.source.text} has {count} stages"
            raise ConfigError(f"{text}; give 0 to {count}, none or trunk", option="freeze")
        if what in ("trunk", count) and not self.is_divided:
            raise ConfigError(
                f"--freeze={what}: the last layer of {self.source.text} is no nn.Linear, so nothing"
                " would be trained; freeze fewer stages, or none",
                option="freeze",
            )
        super().freeze(what)

    def _computed(
        self, function: Callable[[Tensor], Tensor], pictures: Tensor, dtype: torch.dtype
    ) -> Tensor:
        # In the memory format of torch's default, because `view` fails for channels_last.
        x = (pictures.float() / 255 - self.mean) / self.std
        lower = dtype != torch.float32
        with self.source.errors(), torch.autocast(x.device.type, dtype) if lower else nullcontext():
            y = function(x)
        if self.training and function is self.trunk:  # Evaluation was tried before.
            _check(self.source, y, (len(x), self.width))
        return y.float() if function is self.trunk else y.flatten(1).float()


def build_own(
    text: str,
    outputs: int,
    task_spec: InputSpec,
    input_spec: InputSpec | None = None,
    weights: str = "none",
) -> OwnNetwork:
    """Return the network of the class `text`, file.py:Class or package.module:Class.

    Args:
        text: The class.
        outputs: The number of outputs. It is passed to a constructor that takes `outputs`;
            otherwise, the last nn.Linear is replaced.
        task_spec: The pictures that the network expects where its class does not say it.
        input_spec: The pictures, whatever the class says.
        weights: none, or a file with a state dict.

    Raises:
        ConfigError: The class cannot be used.
        WeightsError: The weights do not fit.
    """
    source = read_source("model", text)
    module, taken = create(source, nn.Module, outputs=outputs)
    if "_modules" not in vars(module):
        raise source.error("its constructor does not call super().__init__(); add that")
    spec = input_spec or _spec_of(source, type(module), task_spec)
    x = torch.zeros(_TRIED, spec.channels, spec.crop, spec.crop)
    y, last = _try(source, module, x)
    if "outputs" not in taken:
        if not last:
            raise source.error("no nn.Linear is called in it; let its constructor take outputs=")
        name, layer, _ = last[-1]
        new = nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
        module.set_submodule(name, new)
        y, last = _try(source, module, x)
    _check(source, y, (_TRIED, outputs))
    head = _cut_head(source, module, x, y, last)
    network = OwnNetwork(source, module, head, outputs, spec)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise source.error("it has no parameters that could be trained")
    if weights != "none":
        load_weights(module, text, expand_user(weights))
    return network


_Calls = list[tuple[str, nn.Linear, Any]]


def _try(source: Source, module: nn.Module, x: Tensor) -> tuple[Any, _Calls]:
    """Return the outputs for a batch, and each nn.Linear that was called, with its outputs."""
    calls: _Calls = []

    def note(name: str) -> Callable[..., None]:
        return lambda layer, args, output: calls.append((name, layer, output))

    layers = [(k, v) for k, v in module.named_modules() if k and isinstance(v, nn.Linear)]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    module.eval()
    advice = f"it gets {tuple(x.shape)}; correct it, or set input_size, mean and std in the class"
    try:
        with source.errors(advice), torch.no_grad(), torch.random.fork_rng(devices=[]):
            y = module(x)
    finally:
        module.train()
        for hook in hooks:
            hook.remove()
    return y, calls


def _cut_head(
    source: Source, module: nn.Module, x: Tensor, y: Tensor, calls: _Calls
) -> nn.Linear | None:
    """Take the nn.Linear that computes the outputs out of a network, and return it, if there is."""
    if not calls or calls[-1][2] is not y:
        return None
    name, layer, _ = calls[-1]
    module.set_submodule(name, nn.Identity())
    try:
        features, _ = _try(source, module, x)
        with torch.no_grad():
            if features.shape == (len(x), layer.in_features) and layer.eval()(features).equal(y):
                return layer
    except (ConfigError, AttributeError):  # Its code uses the layer itself, such as its weight.
        pass
    finally:
        layer.train()
    module.set_submodule(name, layer)
    return None


def _check(source: Source, y: Any, shape: tuple[int, int]) -> None:
    if not isinstance(y, Tensor):
        raise source.error(f"forward returns a {type(y).__name__}; return a tensor {shape}")
    if y.shape != shape:
        raise source.error(
            f"forward returns a tensor {tuple(y.shape)} for {shape[0]} pictures, where {shape} is"
            " needed; correct the shape"
        )


def _spec_of(source: Source, kind: type, task_spec: InputSpec) -> InputSpec:
    """Return the pictures that a class expects: its `input_size`, `mean` and `std`, if any."""
    size = getattr(kind, "input_size", task_spec.crop)
    if type(size) is not int or not 0 < size < _LARGEST:
        raise source.error(f"input_size is {size!r}; give the pixels of a side, as 224")
    mean, std = (
        _numbers(source, name, getattr(kind, name, getattr(task_spec, name)))
        for name in ("mean", "std")
    )
    if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise source.error(
            f"mean is {mean} and std is {std}; give both for 1 channel or 3, std above 0"
        )
    resize = round(size * task_spec.resize / task_spec.crop)
    return replace(task_spec, resize=resize, crop=size, mean=mean, std=std)


def _numbers(source: Source, name: str, value: float | Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(map(float, value if isinstance(value, Sequence) else [value]))
    except (TypeError, ValueError):
        raise source.error(f"{name} is {value!r}; give a number for each channel") from None

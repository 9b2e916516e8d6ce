"""Build small networks for digits: LeNet with batch norm and dropout, and MNISTNet."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from deep_cnn.names import InputSpec

HIDDEN = 500
FORMAT = InputSpec(28, 28, (0.1307,), (0.3081,))
MNISTNET_FEATURES = 84
MNISTNET_FORMAT = InputSpec(28, 28, (0.5,), (0.5,))


def lenet_trunk(hidden: int, dropout: float) -> nn.Sequential:
    """Return LeNet without its last layer and the dropout before: (N, 1, 28, 28) -> (N, hidden)."""
    first, second, linear = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5), nn.Linear(200, hidden)
    # Before a batch norm, the scale of weights does not change the outputs, but small ones learn
    # faster (measured). Much smaller ones would make fp16 overflow.
    for layer, std in ((first, 0.05), (second, 0.01), (linear, 0.005)):
        nn.init.normal_(layer.weight, std=std)
    return nn.Sequential(
        *(first, nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(3)),
        nn.Dropout(dropout),
        *(second, nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Dropout(dropout),
        *(nn.Flatten(), linear, nn.BatchNorm1d(hidden), nn.ReLU()),
    )


def lenet_v1_trunk(hidden: int, dropout: float) -> nn.Sequential:
    """Return the trunk of the LeNet of earlier versions, for their checkpoints."""
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(dropout)),
        *(nn.Linear(800, hidden), nn.BatchNorm1d(hidden), nn.ReLU()),
    )


def is_lenet_v1(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether these are the weights of a network with the trunk of `lenet_v1_trunk`."""
    return "trunk.4.weight" in state_dict  # A convolution there, a dropout in `lenet_trunk`.


class MnistNet(nn.Sequential):
    """MNISTNet without its last layer: (N, 1, 28, 28) -> (N, 84)."""

    features: nn.Sequential

    def __init__(self) -> None:
        features = nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Flatten(),
        )
        classifier = nn.Sequential(
            *(nn.Linear(256, 120), nn.ReLU()),
            *(nn.Linear(120, MNISTNET_FEATURES), nn.ReLU()),
        )
        super().__init__(OrderedDict(features=features, classifier=classifier))

    def get_features(self, x: Tensor) -> Tensor:
        """Return the output of the convolutions: (N, 1, 28, 28) -> (N, 256)."""
        return self.features(x)  # type: ignore[no-any-return]

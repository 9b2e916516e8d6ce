"""Build LeNet with batch norm and dropout, for 28x28 grey pictures (after LeCun et al., 1998)."""

from torch import nn

from deep_cnn.names import InputSpec

FORMAT = InputSpec(28, 28, (0.1307,), (0.3081,))


def lenet_trunk(hidden: int, dropout: float) -> nn.Sequential:
    """Return the network without its last layer: (N, 1, 28, 28) -> (N, hidden)."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.BatchNorm2d(50),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(800, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
    )

"""Files of users with networks and schedules, as tests write them."""

from pathlib import Path

FAST = ("--task=digits", "--train_samples=60", "--epochs=1", "--wandb=False")
NET = """\
import torch.nn.functional as F
from torch import nn

from . import sizes
from .blocks import Block


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.first, self.second = Block(1, sizes.WIDTH), Block(sizes.WIDTH, 16)
        self.hidden = nn.Linear(16 * 7 * 7, 32)
        self.last = nn.Linear(32, outputs)

    def get_features(self, x):
        x = F.max_pool2d(self.second(F.max_pool2d(self.first(x), 2)), 2)
        return x.view(x.size(0), -1)

    def forward(self, x):
        x = F.relu(self.hidden(self.get_features(x)))
        return self.last(F.dropout(x, 0.2, self.training))
"""
BLOCKS = """\
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.convolution(x)).ACTIVATION()
"""
SCHEDULE = """\
class Halving:
    def __init__(self, optimizer):
        self.lr = optimizer.param_groups[0]["lr"]

    def step(self):
        self.lr /= 2

    def state_dict(self):
        return {"lr": self.lr}

    def load_state_dict(self, state):
        self.lr = state["lr"]
"""


def write_net(folder: Path, activation: str = "relu", width: int = 8) -> Path:
    """Write net.py with the class Net, and the two files that it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sizes.py").write_text(f"WIDTH = {width}\n")
    (folder / "blocks.py").write_text(BLOCKS.replace("ACTIVATION", activation))
    (folder / "net.py").write_text(NET)
    return folder / "net.py"


def write_evil(path: Path) -> Path:
    """Write a network that leaves a file when it is imported; return this file."""
    mark = path.with_suffix(".imported").absolute()
    head = f"from pathlib import Path\n\nPath({str(mark)!r}).touch()\n"
    body = "class Net(nn.Module):\n    def __init__(self, outputs):\n        super().__init__()\n"
    body += "        self.last = nn.Linear(28 * 28, outputs)\n\n    def forward(self, x):\n"
    body += "        return self.last(x.flatten(1))\n"
    path.write_text(f"{head}from torch import nn\n\n\n{body}")
    return mark

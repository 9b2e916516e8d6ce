"""LeNet and MNISTNet are those of the tutorials, and checkpoints of the earlier LeNet work."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from deep_cnn import load, names
from deep_cnn.models import build_network
from tests.conftest import ROOT, Command, make_classes, read_checkpoint

# A run of an earlier version, on 60 digits, with one hidden unit.
OLD = ROOT / "tests" / "golden" / "folders" / "finished" / "outputs" / "models"
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28), np.uint8))


def tutorials_lenet(p: float) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(3, 3), nn.Dropout(p)),
        *(nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Dropout(p)),
        *(nn.Flatten(), nn.Linear(200, 500), nn.BatchNorm1d(500), nn.ReLU(), nn.Dropout(p)),
        nn.Linear(500, 10),
    )


def test_lenet_is_that_of_the_tutorial() -> None:
    torch.manual_seed(0)
    ours, theirs = build_network("lenet", 10, weights="none", dropout=0.25), tutorials_lenet(0.25)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = (PICTURES / 255 - 0.1307) / 0.3081
    for one in (ours, theirs):
        one.eval()
    assert torch.equal(ours(PICTURES), theirs(x))
    torch.manual_seed(1)
    dropped = ours.train()(PICTURES)
    torch.manual_seed(1)
    assert torch.equal(dropped, theirs.train()(x))
    assert not torch.equal(dropped, ours.eval()(PICTURES))


def test_hidden_sets_the_units_of_lenet(tmp_path: Path, here: Command) -> None:
    for options, units in ((), 500), (("--hidden=7",), 7):
        done = here("--task=digits", "--train_samples=64", "--epochs=1", "--wandb=False",
                    "--run_name=r", f"--out_dir={units}", *options)  # fmt: skip
        assert done.returncode == 0, done.stderr
        state = read_checkpoint(tmp_path / str(units) / "models" / "r.pt")["state_dict"]
        assert state["head.1.weight"].shape == (10, units)


class TutorialsMnistNet(nn.Module):
    """The network of PyTorch's tutorial on TensorBoard."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def get_features(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2, 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2, 2)
        return x.view(-1, 256)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.fc1(self.get_features(x)))
        return self.fc3(functional.relu(self.fc2(x)))  # type: ignore[no-any-return]


def test_mnistnet_is_that_of_the_tutorial_and_shows_the_256_features() -> None:
    ours = build_network("mnistnet", 10, weights="none", dropout=0.0)
    theirs = TutorialsMnistNet()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = (PICTURES / 255 - 0.5) / 0.5
    assert torch.allclose(ours(PICTURES), theirs(x), atol=1e-6)
    assert torch.allclose(ours.get_features(PICTURES), theirs.get_features(x), atol=1e-6)
    assert ours.get_features(PICTURES).shape == (6, 256)


def test_other_networks_show_what_their_last_layer_takes() -> None:
    network = build_network("lenet", 10, weights="none", dropout=0.5).eval()
    assert torch.equal(network.get_features(PICTURES), network.features(PICTURES))


def test_mnistnet_trains_and_its_projector_has_256(tmp_path: Path, here: Command) -> None:
    done = here("--task=digits", "--model=mnistnet", "--train_samples=64", "--epochs=1",
                "--batch_size=1", "--wandb=0", "--run_name=r", "--tensorboard=True")  # fmt: skip
    assert done.returncode == 0, done.stderr
    vectors = next((tmp_path / "outputs" / "tensorboard" / "r" / "val").rglob("tensors.tsv"))
    assert len(vectors.read_text().splitlines()[0].split("\t")) == 256
    network = load(tmp_path / "outputs" / "models" / "r.pt").network
    assert network.get_features(PICTURES).shape == (6, 256)


# ---- Checkpoints of earlier versions


def old(name: str) -> Path:
    return next(OLD.glob(f"*{name}"))


def test_a_lenet_of_an_earlier_version_computes_what_it_did(
    tmp_path: Path, here: Command, deep_cnn: Command
) -> None:
    weights = read_checkpoint(old(".best.pt"))["state_dict"]
    reference = nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 1), nn.BatchNorm1d(1), nn.ReLU(), nn.Linear(1, 10)),
    ).eval()
    reference.load_state_dict(dict(zip(reference.state_dict(), weights.values(), strict=True)))
    trained = load(old(".best.pt"))
    x = (PICTURES / 255 - 0.1307) / 0.3081
    expected = reference(x)
    assert torch.allclose(trained.network(PICTURES), expected, atol=1e-6)
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture[0].numpy()).save(tmp_path / f"{i}.png")
    done = here("predict", old(".best.pt"), tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()[1:]]
    assert [int(row[1]) for row in rows] == expected.argmax(1).tolist()
    probability = [float(row[2]) for row in rows]
    assert probability == pytest.approx(expected.softmax(1).amax(1).tolist(), abs=1e-5)
    exported = here("export", old(".best.pt"), f"--out={tmp_path / 'old.pt2'}")
    assert exported.returncode == 0, exported.stderr
    program = torch.export.load(tmp_path / "old.pt2").module()
    assert torch.allclose(program(PICTURES).float(), expected.softmax(1), atol=1e-5)


def test_a_resumed_lenet_of_an_earlier_version_stays_what_it_is(
    tmp_path: Path, here: Command
) -> None:
    models = tmp_path / "outputs" / "models"
    models.mkdir(parents=True)
    path = models / old("60.pt").name
    path.write_bytes(old("60.pt").read_bytes())
    for words in (["--epochs=3"], ["--epochs=4", "--model=lenet"], ["--epochs=5", "--dry_run"]):
        done = here(f"--resume={path}", *words, "--wandb=False", "--tensorboard=False")
        assert done.returncode == 0, done.stderr
    checkpoint = read_checkpoint(path)
    assert (checkpoint["config"]["model"], checkpoint["epoch"]) == ("lenet_v1", 4)
    assert checkpoint["state_dict"]["trunk.10.weight"].shape == (1, 800)
    result = json.loads((tmp_path / "outputs" / "results" / f"{path.stem}.json").read_text())
    assert result["config"]["model"] == "lenet_v1"
    for more in ([], ["--model=lenet"], ["--dry_run"]):
        done = here(f"--test_net={path.with_suffix('.best.pt')}", *more, "--wandb=False")
        assert done.returncode == 0, done.stderr
    done = here(f"--resume={path}", "--model=mnistnet", "--epochs=9")
    assert done.returncode == 2
    assert "--model=mnistnet does not fit the checkpoint, which has lenet_v1" in done.stderr


def test_a_lenet_of_an_earlier_version_for_class_folders_is_read(
    tmp_path: Path, here: Command
) -> None:
    make_classes(tmp_path / "data")
    done = here("--data_dir=data", "--model=lenet", "--weights=none", "--epochs=1",
                "--run_name=r", "--wandb=False", "--tensorboard=False")  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = tmp_path / "outputs" / "models" / "r.best.pt"
    content = read_checkpoint(path)
    torch.manual_seed(0)
    network = build_network("lenet_v1", 2, weights="none", dropout=0.2)
    assert network.trunk[9].p == 0.5  # type: ignore[index] # Whatever --dropout was.
    torch.save({**content, "state_dict": network.state_dict()}, path)
    with torch.no_grad():
        expected = network.eval()(PICTURES)
    assert torch.allclose(load(path).network(PICTURES), expected, atol=1e-6)
    assert network.head[1].weight.shape == (2, 120)
    done = here(f"--test_net={path}", "--wandb=False")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--task=digits"], ["--weights=none"]])
def test_nothing_but_a_checkpoint_names_the_earlier_lenet(here: Command, words: list[str]) -> None:
    done = here(*words, "--model=lenet_v1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--model=lenet_v1 is unknown; did you mean lenet?" in done.stderr
    assert "lenet_v1" not in here("-h").stdout
    assert "lenet_v1" not in names.MODELS


@pytest.mark.parametrize("model", [["lenet_v1"], None, "resnet18", "lenet_v2"])
def test_a_checkpoint_with_another_name_of_its_network_is_refused_in_a_line(
    tmp_path: Path, here: Command, model: object
) -> None:
    content = read_checkpoint(old("60.pt"))
    path = tmp_path / "x.pt"
    torch.save({**content, "config": {**content["config"], "model": model}}, path)
    for words in (["predict", path, tmp_path], [f"--test_net={path}"], [f"--resume={path}"]):
        done = here(*words, "--epochs=9" if "resume" in str(words) else "--device=cpu")
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith("deep_cnn: ")
        assert "internal" not in done.stderr

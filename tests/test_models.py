"""Networks by name, the proof that the bundled weights are right, and weights from files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deep_cnn import names
from deep_cnn.data.images import centre, decode, to_array
from deep_cnn.errors import WeightsError
from deep_cnn.models import build_backbone, build_network, efficientnet_lite

# Photographs that scikit-image and scikit-learn ship, and their classes in ImageNet.
PHOTOGRAPHS = {
    ("skimage", "data/chelsea.png"): (281, 282, 285),  # a cat: tabby, tiger cat, Egyptian cat
    ("skimage", "data/coffee.png"): (967,),  # espresso
    ("sklearn", "datasets/images/flower.jpg"): (985,),  # daisy
    ("sklearn", "datasets/images/china.jpg"): (698,),  # palace
}


def named(state: dict[str, torch.Tensor]) -> int:
    """How many of the photographs a network with these weights names."""
    import skimage
    import sklearn

    network = efficientnet_lite.EfficientNetLite0().eval()
    network.load_state_dict(state)
    form = efficientnet_lite.FORMAT
    right = 0
    for (package, file), classes in PHOTOGRAPHS.items():
        folder = Path({"skimage": skimage, "sklearn": sklearn}[package].__file__).parent
        picture = torch.from_numpy(to_array(centre(decode(folder / file), form), 3))
        with torch.no_grad():
            logits = network((picture[None].float() / 255 - 0.5) / 0.5)
        right += int(logits.argmax()) in classes
    return right


def test_the_bundled_weights_name_four_photographs() -> None:
    assert named(efficientnet_lite.bundled_state()) == 4


def test_shuffled_weights_do_not() -> None:
    state = efficientnet_lite.bundled_state()
    by_shape: dict[torch.Size, list[str]] = {}
    for key, tensor in state.items():
        by_shape.setdefault(tensor.shape, []).append(key)
    shuffled = dict(state)
    for keys in by_shape.values():
        for key, other in zip(keys, keys[1:] + keys[:1], strict=True):
            shuffled[key] = state[other]
    assert named(shuffled) < 2


@pytest.mark.parametrize("name", names.MODELS)
def test_every_model_has_its_outputs_and_trains(name: str) -> None:
    network = build_network(name, 3, weights="none", dropout=0.1)
    form = network.form
    pictures = torch.randint(0, 255, (2, form.channels, form.crop, form.crop), dtype=torch.uint8)
    answers = network(pictures)
    assert answers.shape == (2, 3)
    answers.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_frozen_trunk_does_not_move_and_keeps_its_statistics() -> None:
    network = build_network("lenet", 2, weights="none", dropout=0.5)
    network.freeze_trunk()
    network.train()
    before = {k: v.clone() for k, v in network.trunk.state_dict().items()}
    network(torch.randint(0, 255, (4, 1, 28, 28), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in network.trunk.state_dict().items())
    assert [k for k, p in network.named_parameters() if p.requires_grad] == [
        "head.1.weight",
        "head.1.bias",
    ]


def test_the_head_computes_in_float32_beside_a_bfloat16_trunk() -> None:
    network = build_network("lenet", 1, weights="none", dropout=0.0).eval()
    pictures = torch.randint(0, 255, (300, 1, 28, 28), dtype=torch.uint8)
    answers = network(pictures, torch.bfloat16)
    assert answers.dtype == torch.float32
    assert len(np.unique(answers.detach().numpy())) > 290


def test_weights_from_a_torchvision_file(tmp_path: Path) -> None:
    from deep_cnn.vision import torchvision

    theirs = torchvision().models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "r18.pth")
    trunk = build_backbone("resnet18", str(tmp_path / "r18.pth")).trunk
    assert torch.equal(trunk.state_dict()["layer1.0.conv1.weight"], theirs.layer1[0].conv1.weight)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(efficientnet_lite.bundled_state(), tmp_path / "lite.pth")
    with pytest.raises(WeightsError, match="does not fit --model=resnet18"):
        build_backbone("resnet18", str(tmp_path / "lite.pth"))
    (tmp_path / "noise.pth").write_bytes(b"\x00\x01" * 400)
    with pytest.raises(WeightsError, match="is not a file of weights"):
        build_backbone("resnet18", str(tmp_path / "noise.pth"))
    with pytest.raises(WeightsError, match="does not exist"):
        build_backbone("resnet18", str(tmp_path / "nothing.pth"))


def test_an_impossible_download_names_three_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):  # Nobody listens there: no network, at once.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        build_network("resnet18", 1, weights="imagenet", dropout=0.0)
    message = str(caught.value)
    for way in ("cannot be downloaded", "TORCH_HOME", "--weights=FILE", "--weights=none"):
        assert way in message
    assert "\n" not in message

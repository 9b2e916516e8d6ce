"""Networks by name, the proof that the bundled weights are right, and weights from files."""

import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deep_cnn import names
from deep_cnn.config import TrainConfig
from deep_cnn.data.preprocessing import centre, decode, to_array
from deep_cnn.errors import ConfigError, WeightsError
from deep_cnn.models import Unallocated, build_backbone, build_network, efficientnet_lite, stages
from deep_cnn.models.weights import weights_address
from deep_cnn.vision import torchvision

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


def test_the_names_are_torchvisions_classifiers_and_ours() -> None:
    models = torchvision().models
    theirs = models.list_models(module=models)
    assert len(theirs) == 80
    assert sorted(names.MODELS) == sorted([*theirs, "efficientnet_lite0", "lenet", "mnistnet"])


@pytest.mark.parametrize("name", names.MODELS)
def test_every_model_has_its_stages_and_can_be_frozen(name: str) -> None:
    with Unallocated():
        network = build_network(name, 3, weights="none", dropout=0.1)
    count = names.MODELS[name]
    assert len(stages(network.trunk)) == count
    learning = []
    for what in ("none", 0, 1, count - 1, count, "trunk"):
        network.freeze(what)
        learning.append(sum(p.requires_grad for p in network.parameters()))
    everything = len(list(network.parameters()))
    assert learning[0] == learning[1] == everything > learning[2] > learning[3] > learning[4]
    assert learning[4] == learning[5] == len(list(network.head.parameters()))


def test_pictures_are_resized_to_squares_with_the_filters_that_pillow_has() -> None:
    for name in names.MODELS.keys() - {"efficientnet_lite0", "lenet", "mnistnet"}:
        preset = torchvision().models.get_model_weights(name).DEFAULT.transforms()
        assert preset.antialias, name
        assert preset.interpolation.value in ("bilinear", "bicubic"), name
        assert len(preset.resize_size) == len(preset.crop_size) == 1, name


# The smallest of each family that is quick enough, to be computed with.
SMALL = ["convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
         "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
         "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"]  # fmt: skip
LARGE = ["alexnet", "efficientnet_v2_s", "maxvit_t", "resnext50_32x4d", "swin_v2_t", "vgg11_bn",
         "vit_b_16", "vit_h_14", "wide_resnet50_2"]  # fmt: skip


def theirs_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    inception = name in ("googlenet", "inception_v3")
    more = {"init_weights": True, "transform_input": True} if inception else {}
    network: torch.nn.Module = torchvision().models.get_model(name, weights=None, **more)
    return network.eval()


@pytest.mark.parametrize("name", SMALL)
def test_features_are_what_torchvisions_last_layer_takes(name: str, tmp_path: Path) -> None:
    theirs = theirs_of(name)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    network = build_network(name, 3, weights=str(tmp_path / "theirs.pth"), dropout=0.1).eval()
    pictures = torch.randint(0, 255, (2, 3, 80, 80), dtype=torch.uint8)
    with torch.no_grad():
        features = network.features(pictures)
        logits = theirs((pictures / 255 - network.mean) / network.std)
    *_, last = (m for m in theirs.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d))
    if isinstance(last, torch.nn.Linear):  # SqueezeNet pools after its convolution.
        assert torch.allclose(last(features), logits, atol=1e-5)
    assert features.shape == (2, network.width)
    answers = network.train()(pictures, torch.bfloat16)
    assert answers.shape == (2, 3)
    answers.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", LARGE)
def test_a_large_model_takes_its_size_and_224(name: str) -> None:
    with Unallocated():
        network = build_network(name, 3, weights="none", dropout=0.1).to("meta")
    for size in (network.input_spec.crop, 224):
        pictures = torch.empty(1, 3, size, size, dtype=torch.uint8, device="meta")
        if size == 224 and name in names.FIXED_SIZE:
            with pytest.raises(AssertionError):
                network(pictures)
            continue
        answers = network(pictures)
        assert answers.shape == (1, 3)
        answers.sum().backward()
        assert all(p.grad is not None for p in network.parameters())
    assert names.FIXED_SIZE.get(name, network.input_spec.crop) == network.input_spec.crop


@pytest.mark.parametrize(
    ("name", "dropouts"),
    [("alexnet", 2), ("vgg11", 1), ("mobilenet_v3_small", 0), ("inception_v3", 0),
     ("squeezenet1_0", 0), ("mnasnet0_5", 0)],
)  # fmt: skip
def test_only_the_dropout_before_the_last_layer_is_replaced(name: str, dropouts: int) -> None:
    with Unallocated():
        trunk = build_backbone(name).trunk
    assert sum(isinstance(module, torch.nn.Dropout) for module in trunk.modules()) == dropouts


@pytest.mark.parametrize("what", ["trunk", 0, 2, 4])
@pytest.mark.parametrize("name", ["resnet18", "lenet"])
def test_what_is_frozen_does_not_move_and_keeps_its_statistics(name: str, what: str | int) -> None:
    network = build_network(name, 2, weights="none", dropout=0.5)
    what = min(what, names.MODELS[name]) if isinstance(what, int) else what
    network.freeze(what)
    count = names.MODELS[name] if what == "trunk" else int(what)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    pictures = torch.randint(0, 255, (4, network.input_spec.channels, 28, 28), dtype=torch.uint8)
    network.eval().train()(pictures).square().sum().backward()
    optimizer.step()
    parts = [set(map(id, part.state_dict(keep_vars=True).values())) for part in
             stages(network.trunk)]  # fmt: skip
    for key, value in network.state_dict(keep_vars=True).items():
        frozen = any(id(value) in part for part in parts[:count])
        assert torch.equal(value, before[key]) == frozen, key


def test_the_head_computes_in_float32_beside_a_bfloat16_trunk() -> None:
    network = build_network("lenet", 1, weights="none", dropout=0.0).eval()
    pictures = torch.randint(0, 255, (300, 1, 28, 28), dtype=torch.uint8)
    answers = network(pictures, torch.bfloat16)
    assert answers.dtype == torch.float32
    assert len(np.unique(answers.detach().numpy())) > 290


def data_parallel(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"arch": "any", "state_dict": {f"module.{k}": v for k, v in state.items()}}


def of_torchvisions_script(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"model": state, "epoch": 3}


def of_lightning(state: dict[str, torch.Tensor]) -> dict[str, object]:
    from argparse import Namespace

    ema = {f"ema_model.{k}": v * 0 for k, v in state.items() if v.is_floating_point()}
    return {
        "epoch": 3, "pytorch-lightning_version": "2.4.0", "hyper_parameters": Namespace(lr=0.1),
        "state_dict": {**ema, **{f"model.{k}": v for k, v in state.items()}, "loss.weight":
                       torch.ones(2)},
    }  # fmt: skip


def of_the_tutorial(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"epoch": 5, "model_state_dict": state, "loss": np.float64(0.4)}


def nested(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"model_state_dict": {f"module.model._orig_mod.{k}": v for k, v in state.items()}}


def of_2017(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        re.sub(r"(denselayer\d+\.[a-z]+)([12])", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("resnet18", data_parallel),
        ("resnet18", of_torchvisions_script),
        ("resnet18", of_lightning),
        ("googlenet", of_lightning),
        ("resnet18", of_the_tutorial),
        ("vit_b_32", of_the_tutorial),
        ("shufflenet_v2_x0_5", nested),
        ("densenet121", nested),
        ("densenet121", of_2017),
        ("mnasnet0_5", dict),
    ],
)
def test_weights_from_files_of_other_programs(name: str, changed: Any, tmp_path: Path) -> None:
    theirs = theirs_of(name).state_dict()
    torch.save(changed(theirs), tmp_path / "w.pth")
    ours = build_backbone(name, str(tmp_path / "w.pth")).trunk.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["googlenet", "mnasnet0_5", "squeezenet1_1", "efficientnet_lite0"])
def test_weights_from_a_checkpoint_with_another_head(name: str, tmp_path: Path) -> None:
    one = build_network(name, 7, weights="none", dropout=0.1)
    torch.save({"state_dict": one.state_dict(), "epoch": 3}, tmp_path / "one.best.pt")
    two = build_network(name, 2, weights=str(tmp_path / "one.best.pt"), dropout=0.1)
    state = one.trunk.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in two.trunk.state_dict().items())


def test_weights_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    torch.save(efficientnet_lite.bundled_state(), tmp_path / "lite.pth")
    with pytest.raises(WeightsError, match="does not fit --model=resnet18"):
        build_backbone("resnet18", str(tmp_path / "lite.pth"))
    torch.save(theirs_of("resnet34").state_dict(), tmp_path / "r34.pth")  # It has all of resnet18.
    with pytest.raises(WeightsError, match=r"left over .* the first is layer1.2.conv1.weight"):
        build_backbone("resnet18", str(tmp_path / "r34.pth"))
    diverged = theirs_of("resnet18").state_dict()
    diverged["layer1.0.bn1.running_var"][3] = float("inf")
    torch.save(diverged, tmp_path / "inf.pth")
    with pytest.raises(
        WeightsError, match=r"an infinity in layer1\.0\.bn1\.running_var; replace it"
    ):
        build_backbone("resnet18", str(tmp_path / "inf.pth"))
    (tmp_path / "noise.pth").write_bytes(b"\x00\x01" * 400)
    with pytest.raises(WeightsError, match="is not a file of weights"):
        build_backbone("resnet18", str(tmp_path / "noise.pth"))
    for path in (str(tmp_path / "nothing.pth"), "~no-such-user/w.pth"):
        with pytest.raises(WeightsError, match="does not exist"):
            build_backbone("resnet18", path)
    with pytest.raises(WeightsError, match="is a folder; name a file in it"):
        build_backbone("resnet18", str(tmp_path))
    for content, kind in (([1, 2], "list"), ({"epoch": 3}, "dict"), (torch.zeros(3), "Tensor")):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=f"has a {kind} without tensors by name; save"):
            build_backbone("resnet18", str(tmp_path / "other.pth"))


def test_a_pickled_model_is_refused_with_the_code_that_saves_its_weights(tmp_path: Path) -> None:
    model, file = theirs_of("resnet18"), tmp_path / "whole.pt"
    for old in (False, True):
        torch.save(model, file, _use_new_zipfile_serialization=not old)
        with pytest.raises(WeightsError, match=r"a pickled torchvision\.models\.resnet") as caught:
            build_backbone("resnet18", str(file))
        message = str(caught.value)
        assert "\n" not in message
        code = message.split("made: ")[1].replace("weights.pt", str(tmp_path / "weights.pt"))
        exec(code, {"torch": torch})
        ours = build_backbone("resnet18", str(tmp_path / "weights.pt")).trunk.state_dict()
        assert all(torch.equal(ours[key], model.state_dict()[key]) for key in ours)
    torch.save({"state_dict": model.state_dict(), "config": Path.cwd, "x": re.match}, file)
    with pytest.raises(WeightsError, match=r'torch.save\(model\["state_dict"\], '):
        build_backbone("resnet18", str(file))
    saved = {"epoch": 3, "loss": torch.ones(2), "net": model, "optimizer": {"lr": 0.1}}
    torch.save(saved, file)
    with pytest.raises(WeightsError, match=r'torch.save\(model\["net"\].state_dict\(\), '):
        build_backbone("resnet18", str(file))
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(file))
    with pytest.raises(WeightsError, match=r"is TorchScript, .* model = torch.jit.load\("):
        build_backbone("resnet18", str(file))


def test_the_names_of_weights_are_torchvisions() -> None:
    for name in names.MODELS.keys() - {"efficientnet_lite0", "lenet", "mnistnet"}:
        entries = torchvision().models.get_model_weights(name)
        legal = [entry.name for entry in entries if entry.name != "IMAGENET1K_FEATURES"]
        assert sorted(names.TORCHVISION_WEIGHTS[name]) == sorted(legal)
        for entry in entries:  # Those that name one size, which is not the usual one.
            least = entry.meta["min_size"][0] if name.startswith("vit_") else 224
            size = names.fixed_size(name, f"Any_Weights.{entry.name}")
            assert size == (None if least == 224 else least), entry
    assert not names.TORCHVISION_WEIGHTS["lenet"] + names.TORCHVISION_WEIGHTS["efficientnet_lite0"]


@pytest.mark.parametrize(
    ("name", "entry", "size"),
    [
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384),
        ("vit_b_16", "ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1", 224),
        ("mobilenet_v2", "IMAGENET1K_V1", 224),
        ("mobilenet_v2", "IMAGENET1K_V2", 224),
        ("mobilenet_v2", "DEFAULT", 224),
    ],
)
def test_weights_by_torchvisions_names(
    name: str, entry: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = torchvision().models.get_model_weights(name)[entry.rpartition(".")[2]]
    args = {"image_size": size} if name.startswith("vit") else {}
    state = torchvision().models.get_model(name, weights=None, **args).state_dict()
    file = tmp_path / "hub/checkpoints" / theirs.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    network = build_network(name, 1, weights=entry, dropout=0.0)
    preset = theirs.transforms()
    spec = network.input_spec
    assert (spec.crop, spec.resize) == (size, preset.resize_size[0])
    assert (list(spec.mean), spec.interpolation) == (preset.mean, preset.interpolation.value)
    assert all(torch.equal(v, state[k]) for k, v in network.trunk.state_dict().items())
    # A checkpoint is loaded into a network without weights.
    other = build_network(name, 1, weights="none", dropout=0.0, preset=entry)
    assert other.input_spec == spec
    other.load_state_dict(network.state_dict())


def test_an_unknown_name_of_weights_lists_those_of_the_model() -> None:
    text = "choose from IMAGENET1K_SWAG_E2E_V1, IMAGENET1K_SWAG_LINEAR_V1, IMAGENET1K_V1"
    for unknown in ("IMAGENET1K_SWAG_V1", "imagenet1k_swag_e2e_v1", "IMAGENET21K"):
        with pytest.raises(
            ConfigError, match=f"weights={unknown} is unknown for vit_b_16; .*{text}"
        ):
            TrainConfig(task="perception", model="vit_b_16", weights=unknown)
    with pytest.raises(ConfigError, match="lenet takes imagenet, none or a file"):
        TrainConfig(task="digits", weights="IMAGENET1K_V1")
    swag = {"task": "perception", "model": "vit_b_16", "weights": "IMAGENET1K_SWAG_E2E_V1"}
    with pytest.raises(ConfigError, match="but vit_b_16 takes 384 x 384"):
        TrainConfig(**swag, pre="resnet")
    TrainConfig(**swag)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "vit_b_16"])
def test_an_impossible_download_names_three_ways_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy"):  # Nobody listens there: no network, at once.
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    urllib.request.install_opener(None)  # It keeps the proxies of its first use.
    with pytest.raises(WeightsError) as caught:
        build_network(name, 1, weights="imagenet", dropout=0.0)
    message = str(caught.value)
    for way in ("cannot be downloaded", "TORCH_HOME", "--weights=FILE", "--weights=none"):
        assert way in message
    assert "\n" not in message
    _, file = weights_address(name)
    assert not list(file.parent.iterdir())
    file.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=f"{file} is not .* or damaged; .* fetch --model={name}"):
        build_network(name, 1, weights="imagenet", dropout=0.0)

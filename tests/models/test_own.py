"""Networks of the user: what is passed, replaced, cut, refused, recognised and kept."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import deep_cnn
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError, DeepCnnError
from deep_cnn.models.lenet import FORMAT
from deep_cnn.models.own import OwnNetwork, build_own
from deep_cnn.names import IMAGENET
from deep_cnn.source import read_source
from tests.conftest import ROOT, Command, read_checkpoint
from tests.models.common import BLOCKS, FAST, write_evil, write_net

HEAD = "import torch\nfrom torch import nn\n\n\n"


def losses(folder: Path, run: str) -> list[str]:
    with (folder / f"outputs/results/{run}.csv").open(newline="") as file:
        return [row["loss_train"] for row in csv.DictReader(file)]


def built(folder: Path, code: str, name: str = "Net", outputs: int = 3) -> OwnNetwork:
    (folder / "own.py").write_text(HEAD + code)
    return build_own(f"{folder}/own.py:{name}", outputs, FORMAT)


# ---- From the command to the files


def test_a_network_with_relative_imports_trains_predicts_and_is_exported(
    here: Command, tmp_path: Path
) -> None:
    path = write_net(tmp_path / "a b" / "nets")
    model = "--model=a b/nets/net.py:Net"
    done = here(*FAST, model, "--run_name=one", "--tensorboard=True", "--histograms=1")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "outputs"
    with zipfile.ZipFile(out / "logger/one.source.zip") as archive:
        names = archive.namelist()
        assert names == ["model/blocks.py", "model/net.py", "model/sizes.py"]
        assert archive.read("model/net.py") == path.read_bytes()
    checkpoint = out / "models/one.best.pt"
    content = read_checkpoint(checkpoint)
    digest = read_source("model", f"{path}:Net").digest
    assert content["code"] == {"model": digest}
    assert content["state_dict"]["head.weight"].shape == (10, 32)
    result = json.loads((out / "results/one.json").read_text())
    assert result["environment"]["source"] == {"model": digest}
    log = (out / "logger/one.log").read_text()
    assert "no graph of the network" not in log
    assert "WARNING" not in log
    done = here(f"--test_net={checkpoint}", model)
    assert done.returncode == 0, done.stderr
    picture = tmp_path / "p.png"
    Image.new("L", (28, 28), 90).save(picture)
    done = here("predict", checkpoint, picture, f"--model={path}:Net")
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[1].split(",")
    table = deep_cnn.load(checkpoint, model=f"{path}:Net").predict([picture])
    assert (row[1], float(row[2])) == (table["class"][0], table["probability"][0])
    assert here("export", checkpoint, model, "--out=x.pt2").returncode == 0
    for words in (["predict", checkpoint, picture], ["export", checkpoint]):
        refused = here(*words)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "name it again, as in --model=a b/nets/net.py:Net" in refused.stderr


def test_an_ensemble_takes_the_classes_of_its_checkpoints(here: Command, tmp_path: Path) -> None:
    models = []
    for name in ("relu", "tanh"):
        write_net(tmp_path / name, name)
        models.append(f"{name}/net.py:Net")
        assert here(*FAST, f"--model={models[-1]}", f"--run_name={name}").returncode == 0
    assert losses(tmp_path, "relu") != losses(tmp_path, "tanh")
    files = [f"outputs/models/{name}.best.pt" for name in ("relu", "tanh")]
    Image.new("L", (28, 28), 90).save(tmp_path / "p.png")
    done = here("predict", *files, "p.png", f"--model={','.join(reversed(models))}")
    assert done.returncode == 0, done.stderr
    refused = here("predict", *files, "p.png", f"--model={models[0]}")
    assert refused.returncode == 2
    assert f"is not the source that {files[1]} was trained with" in refused.stderr


def test_the_example_of_the_page_runs(here: Command, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sweeps" / "examples", tmp_path / "nets")
    words = ("--model=nets/net.py:Net", "--schedule=nets/schedule.py:Linear", "--epochs=2")
    done = here(*FAST, *words, "--run_name=one")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "outputs/results/one.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == [0.01, 0.005]


def test_a_changed_file_is_another_source(here: Command, tmp_path: Path) -> None:
    write_net(tmp_path / "nets")
    model = "--model=nets/net.py:Net"
    assert here(*FAST, model, "--run_name=one").returncode == 0
    before = (tmp_path / "nets/sizes.py").read_text()
    (tmp_path / "nets/sizes.py").write_text(before + "# Changed.\n")
    resume = ("--resume=outputs/models/one.pt", "--epochs=2", model)
    refused = here(*resume)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 2)  # And the device.
    assert "is not the source that outputs/models/one.pt was trained with" in refused.stderr
    (tmp_path / "nets/sizes.py").write_text(before)
    (tmp_path / "nets").rename(tmp_path / "moved")
    done = here(*resume[:2], "--model=moved/net.py:Net")
    assert done.returncode == 0, done.stderr
    assert here(*FAST, "--model=moved/net.py:Net", "--epochs=2", "--run_name=two").returncode == 0
    assert losses(tmp_path, "one") == losses(tmp_path, "two")


def test_files_that_are_not_imported_do_not_count(tmp_path: Path) -> None:
    path = write_net(tmp_path)
    before = read_source("model", f"{path}:Net").digest
    (tmp_path / "other.py").write_text("def f(:\n")
    assert read_source("model", f"{path}:Net").digest == before
    assert set(read_source("model", f"{path}:Net").files) == {"net.py", "blocks.py", "sizes.py"}


def test_bytecode_is_neither_read_nor_written(tmp_path: Path) -> None:
    # Python takes old bytecode for a file of the same size and second.
    path = write_net(tmp_path)
    first = build_own(f"{path}:Net", 2, FORMAT)
    (tmp_path / "sizes.py").write_text("WIDTH = 4\n")
    second = build_own(f"{path}:Net", 2, FORMAT)
    widths = [net.trunk.get_parameter("first.norm.weight").numel() for net in (first, second)]
    assert widths == [8, 4]
    assert not (tmp_path / "__pycache__").exists()


def test_cached_features_belong_to_the_code(here: Command, tmp_path: Path) -> None:
    # Both networks have the same weights, as they have the same seed.
    for activation in ("relu", "tanh"):
        write_net(tmp_path / "nets", activation)
        words = ("--model=nets/net.py:Net", "--freeze=trunk", f"--run_name={activation}")
        assert here(*FAST, *words).returncode == 0
    assert losses(tmp_path, "relu") != losses(tmp_path, "tanh")


def test_an_import_does_not_change_random_numbers(tmp_path: Path) -> None:
    # Only the first trial of a worker imports the file.
    path = write_net(tmp_path)
    path.write_text("import torch\ntorch.manual_seed(1)\ntorch.rand(3)\n" + path.read_text())
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(build_own(f"{path}:Net", 2, FORMAT).head.weight)
    assert weights[0].equal(weights[1])


# ---- How files are found


@pytest.mark.parametrize(
    "line", ["from blocks import Block", "import blocks; Block = blocks.Block"]
)
def test_files_beside_it_are_imported_without_a_dot(tmp_path: Path, line: str) -> None:
    for name, activation in (("a", "relu"), ("b", "tanh")):
        path = write_net(tmp_path / name, activation)
        text = path.read_text().replace("from .blocks import Block", line)
        path.write_text(text.replace("from . import sizes", "import sizes"))
    pictures = torch.full((1, 1, 28, 28), 50, dtype=torch.uint8)
    outputs = []
    for name in ("a", "b"):
        torch.manual_seed(0)
        outputs.append(build_own(f"{tmp_path / name}/net.py:Net", 2, FORMAT).eval()(pictures))
    assert not outputs[0].equal(outputs[1])


def test_a_module_is_found_from_the_working_directory_and_its_package_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_net(tmp_path / "shop" / "nets")
    path.write_text(path.read_text().replace("from . import sizes", "from .. import sizes"))
    (tmp_path / "shop/nets/sizes.py").rename(tmp_path / "shop/sizes.py")
    (tmp_path / "shop/__init__.py").write_text("from shop.nets.blocks import Block\n")
    (tmp_path / "shop/nets/__init__.py").write_text("")
    network = build_own("shop.nets.net:Net", 2, FORMAT)
    assert network.head.weight.shape == (2, 32)
    expected = {"__init__.py", "sizes.py", "nets/__init__.py", "nets/net.py", "nets/blocks.py"}
    assert set(network.source.files) == expected
    same = build_own("shop/nets/net.py:Net", 2, FORMAT)
    assert same.source.digest == network.source.digest


def test_a_link_finds_what_lies_beside_its_target(tmp_path: Path) -> None:
    path = write_net(tmp_path / "nets")
    (tmp_path / "link.py").symlink_to(path)
    digests = {read_source("model", f"{each}:Net").digest for each in (path, tmp_path / "link.py")}
    assert len(digests) == 1


def test_an_installed_module_is_imported_as_usual() -> None:
    network = build_own("torchvision.models:AlexNet", 5, IMAGENET)
    assert network.head.out_features == 5
    assert network.width == 4096


# ---- The last layer


def test_the_last_linear_is_replaced_where_outputs_is_not_taken(tmp_path: Path) -> None:
    code = (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Linear(20, 1000)\n        self.first = nn.Linear(784, 20)\n\n"
        "    def forward(self, x):\n        return self.last(self.first(x.flatten(1)))\n"
    )
    network = built(tmp_path, code)
    assert (network.head.in_features, network.head.out_features) == (20, 3)
    assert network.is_divided
    assert "trunk.last.weight" not in network.state_dict()


def test_what_follows_the_last_linear_stays(tmp_path: Path) -> None:
    code = (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Linear(784, 1000)\n\n    def forward(self, x):\n"
        "        return torch.log_softmax(self.last(x.flatten(1)), 1)\n"
    )
    network = built(tmp_path, code)
    pictures = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    assert torch.allclose(network(pictures).exp().sum(1), torch.ones(4))
    with pytest.raises(ConfigError, match=r"is no nn.Linear, so nothing"):
        network.freeze("trunk")


def test_a_layer_whose_weight_the_code_uses_stays_in_place(tmp_path: Path) -> None:
    code = (
        "class Net(nn.Module):\n    def __init__(self, outputs):\n        super().__init__()\n"
        "        self.last = nn.Linear(784, outputs)\n\n    def forward(self, x):\n"
        "        assert self.last.weight.isfinite().all()\n"
        "        return self.last(x.flatten(1))\n"
    )
    assert not built(tmp_path, code).is_divided


def test_lazy_layers_get_their_sizes(tmp_path: Path) -> None:
    code = (
        "class Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(7))\n"
    )
    assert built(tmp_path, code).head.weight.shape == (3, 4 * 26 * 26)


def test_the_whole_network_is_that_of_the_user(tmp_path: Path) -> None:
    path = write_net(tmp_path)
    network = build_own(f"{path}:Net", 3, FORMAT).eval()
    pictures = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    own = network.trunk
    own.last = network.head
    expected = own((pictures.float() / 255 - 0.1307) / 0.3081)
    own.last = nn.Identity()
    assert network(pictures).equal(expected)
    assert network.get_features(pictures).shape == (4, 16 * 7 * 7)


def test_view_works_in_lower_precision(tmp_path: Path) -> None:
    # It fails for tensors in the memory format channels_last.
    network = build_own(f"{write_net(tmp_path)}:Net", 3, FORMAT)
    pictures = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    assert network(pictures, torch.bfloat16).shape == (2, 3)


@pytest.mark.parametrize("words", ["freeze=trunk", "freeze=1", "ema=0.5", "lr_trunk=0.1",
                                   "amp=bf16", "pre=augment", "train_on=train+val"])  # fmt: skip
def test_options_work_with_a_network_of_the_user(here: Command, tmp_path: Path, words: str) -> None:
    write_net(tmp_path / "nets")
    done = here(*FAST, "--model=nets/net.py:Net", f"--{words}", "--run_name=one")
    assert done.returncode == 0, done.stderr


def test_a_frozen_trunk_stays_as_it_is(tmp_path: Path) -> None:
    network = build_own(f"{write_net(tmp_path)}:Net", 3, FORMAT)
    network.freeze("trunk")
    assert [name for name, p in network.named_parameters() if p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    network.train()
    assert not network.trunk.training
    assert network.head.training


def test_the_default_weights_are_none_and_others_are_refused(tmp_path: Path) -> None:
    config = TrainConfig(task="folders", model="net.py:Net")
    assert config.weights == "none"
    assert TrainConfig(task="folders", model="resnet18").weights == "imagenet"
    for weights in ("imagenet", "IMAGENET1K_V1"):
        with pytest.raises(ConfigError, match="has no pretrained weights"):
            TrainConfig(task="folders", model="net.py:Net", weights=weights)


# ---- What the class expects of pictures


def test_class_attributes_say_what_the_pictures_are(tmp_path: Path) -> None:
    code = (
        "class Net(nn.Sequential):\n    ATTRIBUTES\n\n    def __init__(self, outputs):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(outputs))\n"
    )
    own = code.replace("ATTRIBUTES", "input_size = 32; mean = 0.25, 0.5, 0.75; std = [1, 2, 3]")
    spec = built(tmp_path, own).input_spec
    assert (spec.crop, spec.mean, spec.std) == (32, (0.25, 0.5, 0.75), (1, 2, 3))
    assert built(tmp_path, code.replace("ATTRIBUTES", "pass")).input_spec == FORMAT
    grey = built(tmp_path, code.replace("ATTRIBUTES", "mean = 0.5; std = 0.25")).input_spec
    assert (grey.crop, grey.mean, grey.std) == (28, (0.5,), (0.25,))
    for wrong in ("input_size = 3, 28, 28", "input_size = 0", "mean = 0.5, 0.5", "std = (0,)",
                  "mean = 'grey'", "input_size = True", "mean = None"):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{wrong.split()[0]} is .*; give"):
            built(tmp_path, code.replace("ATTRIBUTES", wrong))


# ---- Bad code is one line

INIT = "class Net(nn.Module):\n    def __init__(self{}):\n        super().__init__()\n        {}\n"
FORWARD = "\n    def forward(self, x):\n        return {}\n"
LINEAR = "self.last = nn.Linear(784, outputs)"
BAD = {
    "syntax": ("def f(:\n", r"own\.py, line 5: invalid syntax"),
    "null byte": ("x = '\0'\n", "null bytes"),
    "import": ("import not_there_at_all\n", r"line 5: ModuleNotFoundError: .*not_there_at_all"),
    "error": ("raise RuntimeError('a\\nb')\n", r"line 5: RuntimeError: a; correct"),
    "exit": ("import sys\nsys.exit(3)\n", r"line 6: SystemExit: 3"),
    "no class": ("class Other(nn.Module): pass\n", "there is no Net in it; .*Other"),
    "no module": ("class Net: pass\n", "Net is not a subclass of torch.nn.Module"),
    "function": ("def Net(): return nn.Linear(1, 1)\n", "Net is not a subclass"),
    "arguments": (INIT.format(", depth, *, width, outputs=1", "pass"), "needs depth, width; give"),
    "constructor": (INIT.format("", "1 / 0"), r"line 8: ZeroDivisionError"),
    "no super": (INIT.replace("super().__init__()", "pass").format("", "pass"), "call super()"),
    "no forward": (INIT.format(", outputs", LINEAR), "NotImplementedError"),
    "forward": (INIT.format(", outputs", LINEAR) + FORWARD.format("x @ x.T[0]"), r"line 11: Runt"),
    "shape": (
        INIT.format(", outputs", LINEAR) + FORWARD.format("self.last(x.flatten(1)).sum(1)"),
        r"returns a tensor \(2,\) for 2 pictures, where \(2, 10\) is needed",
    ),
    "tuple": (INIT.format(", outputs", LINEAR) + FORWARD.format("x, x"), "returns a tuple"),
    "no linear": (
        INIT.format("", "self.c = nn.Conv2d(1, 10, 28)") + FORWARD.format("self.c(x).flatten(1)"),
        "no nn.Linear is called in it; let its constructor take outputs=",
    ),
    "training": (
        INIT.format(", outputs", LINEAR)
        + FORWARD.format("(self.last(x.flatten(1)) if not self.training else x)"),
        r"returns a tensor \(60, 1, 28, 28\)",
    ),
    "channels": (
        INIT.format("", "self.c = nn.Conv2d(3, 8, 28); self.last = nn.Linear(8, 2)")
        + FORWARD.format("self.last(self.c(x).flatten(1))"),
        r"it gets \(2, 1, 28, 28\); correct it, or set input_size, mean and std",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_code_is_refused_in_one_line(here: Command, tmp_path: Path, name: str) -> None:
    code, message = BAD[name]
    (tmp_path / "own.py").write_text(HEAD + code)
    done = here(*FAST, "--model=own.py:Net", "--run_name=one", "--batch_size=60")
    error = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert error.startswith("deep_cnn: --model=own.py:Net: ")
    assert re.search(message, error), error
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing.py:Net", r"missing\.py cannot be read \(No such file"),
        ("folder.py:Net", r"folder\.py cannot be read \(not an ordinary file\)"),
        ("net.v2.py:Net", r"net\.v2\.py: the name of a module has no dot"),
        ("not_there.at.all:Net", "there is no such module"),
        ("own.py", "names no class; write file.py:Class"),
        ("own.py:", "names no class"),
        ("own.txt:Net:x", "names no class"),
        ("__main__:Net", "there is no such module"),
    ],
)
def test_a_name_without_a_class_is_refused(
    here: Command, tmp_path: Path, model: str, message: str
) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "net.v2.py").touch()
    done = here(*FAST, f"--model={model}")
    import re

    assert done.returncode == 2
    assert re.search(message, done.stderr.splitlines()[-1]), done.stderr


def test_output_of_the_code_is_not_part_of_a_table(here: Command, tmp_path: Path) -> None:
    path = write_net(tmp_path / "nets")
    path.write_text(path.read_text() + "\nprint('hello')\n")
    model = "--model=nets/net.py:Net"
    assert here(*FAST, model, "--run_name=one").returncode == 0
    Image.new("L", (28, 28), 90).save(tmp_path / "p.png")
    done = here("predict", "outputs/models/one.best.pt", "p.png", model)
    assert done.stdout.startswith("image,class,probability\np.png,"), done.stdout


def test_loading_from_python_needs_the_class(here: Command, tmp_path: Path) -> None:
    path = write_net(tmp_path)
    assert here(*FAST, f"--model={path}:Net", "--run_name=one").returncode == 0
    checkpoint = tmp_path / "outputs/models/one.best.pt"
    with pytest.raises(DeepCnnError, match="name it again"):
        deep_cnn.load(checkpoint)
    (tmp_path / "blocks.py").write_text(BLOCKS.replace("ACTIVATION", "tanh"))
    with pytest.raises(DeepCnnError, match="is not the source"):
        deep_cnn.load(checkpoint, model=f"{path}:Net")
    mark = write_evil(tmp_path / "evil.py")
    with pytest.raises(DeepCnnError, match="is not the source"):
        deep_cnn.load(checkpoint, model=f"{tmp_path}/evil.py:Net")
    assert not mark.exists()

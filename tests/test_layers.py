"""The picture of the layers in the README, as a rule: imports point down, and homes are kept."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import environment, make_classes

PACKAGE = Path(__file__).parent.parent / "deep_cnn"
# From the bottom to the top; what stands in one line does not see each other.
LAYERS = [
    ["synonyms", "text"],
    ["errors", "hosts", "processes", "home", "resources"],
    ["options", "streams", "delimited", "layout"],
    ["names", "found_tables"],
    ["run_options"],
    ["config"],
    ["argv", "resolve", "effects"],
    ["files", "results"],
    ["source", "vision"],
    ["own_code"],
    ["data", "models", "metrics", "tracking", "progress"],
    ["bootstrap"],
    ["tasks"],
    ["training"],
    ["sweep"],
    ["report", "fetch", "upload", "cluster", "inference"],
    ["cli"],
]
# Below the families, what one part of a line may take from another.
ALLOWED = {("data", "progress")}
HOMES = {
    "yaml": {"sweep"},
    "torchvision": {"vision"},
    "wandb": {"tracking", "sweep"},
    "optuna": {"sweep", "report"},
    "pyarrow": {"inference"},
    "onnxruntime": {"inference"},
    "tqdm": {"progress"},
    "subprocess": {"training", "cluster", "sweep", "tracking"},
    "tensorboard": {"tracking"},
    "matplotlib": {"report"},
}
# Its client is slow to import, and changes: a few files know it.
KNOW_WANDB = {
    "wandb_tracker.py", "wandb_client.py", "wandb_server.py", "wandb_upload.py", "wandb_file.py",
    "wandb_media.py", "wandb_sync.py", "wandb_session.py", "api.py",
}  # fmt: skip
# What takes so long to import that no module has it at its top.
IMPORTED_WHEN_USED = {"pandas"}
# Modules that are themselves imported only when they are used.
DRAW = {"figures.py", "plots.py"}
QUICK_TO_IMPORT = {
    "synonyms", "text", "errors", "hosts", "processes", "home", "resources", "streams", "options",
    "delimited", "layout", "found_tables",
    "names", "run_options", "config", "argv", "resolve", "files", "effects", "results", "source",
    "cli",
    "fetch", "report", "cluster",
}  # fmt: skip
# Inside `sweep`, from the bottom to the top; whatever is not named here is above.
SWEEP_LAYERS = ["spec", "search", "run", "wandb_agent"]
# Search needs numpy and Optuna only once it has something to learn from.
SLOW = {"torch", "numpy", "scipy", "optuna", "pandas", "sklearn"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def level(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at the top of the file) for every import."""
    tree = ast.parse(path.read_text())
    top = set(
        ast.walk(
            ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        )
    )
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"deep_cnn.{a.name}" for a in node.names]
                if node.module == "deep_cnn"
                else [node.module]
            )
            found += [(name, node in top) for name in names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return
    for module, _ in imports(path):
        other = module.split(".")[1] if module.startswith("deep_cnn.") else part
        other = part if other == "__version__" else other
        if other != part and (part, other) not in ALLOWED:
            assert level(other) < level(part), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_outside_packages_stay_at_home(path: Path) -> None:
    for module, at_top in imports(path):
        package = module.split(".")[0]
        assert package != "wandb" or path.name in KNOW_WANDB, path.name
        assert part_of(path) in HOMES.get(package, {part_of(path)}), (
            f"{path.name} imports {package}"
        )
        assert package not in IMPORTED_WHEN_USED or not at_top or path.name in DRAW, (
            f"{path.name} imports {package}"
        )
        if part_of(path) in QUICK_TO_IMPORT and at_top and path.name not in DRAW:
            import sys

            assert package in sys.stdlib_module_names | {"deep_cnn", "pydantic"}, (
                f"{path.name}: {package}"
            )


@pytest.mark.parametrize("layer", SWEEP_LAYERS)
def test_inside_sweep_imports_point_down_too(layer: str) -> None:
    legal = SWEEP_LAYERS[: SWEEP_LAYERS.index(layer) + 1]
    for path in sorted((PACKAGE / "sweep" / layer).glob("*.py")):
        for module, at_top in imports(path):
            parts = module.split(".")
            if parts[:2] == ["deep_cnn", "sweep"]:
                assert parts[2] in legal, f"{path.name} imports {module}"
            is_slow = at_top and layer in ("spec", "search") and parts[0] in SLOW
            assert not is_slow or path.name == "bayes.py", f"{path.name} imports {module}"


@pytest.mark.parametrize(
    "args",
    [
        ["-h"],
        ["check", "s.yaml"],
        ["sample", "s.yaml", "-n", "1"],
        # scikit-learn, which has the digits, imports pandas by itself.
        ["--data_dir=classes", "--model=lenet", "--weights=none", "--epochs=1"],
    ],
)
def test_no_table_no_pandas(tmp_path: Path, args: list[str]) -> None:
    make_classes(tmp_path / "classes")
    (tmp_path / "s.yaml").write_text(
        "method: random\nparameters: {lr: {min: 0.1, max: 0.2}, task: {value: digits}}\n"
        'command: ["${env}", python, -m, deep_cnn, "${args}"]\n'
    )
    code = (
        "import sys; from deep_cnn.cli import main; status = main(sys.argv[1:]);"
        " assert 'pandas' not in sys.modules; sys.exit(status)"
    )
    command = [sys.executable, "-c", code, *args]
    env = environment(OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

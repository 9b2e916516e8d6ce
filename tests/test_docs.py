"""The documentation is true: its links, its commands, and its example of a log."""

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deep_cnn.cli import main
from tests.conftest import ROOT, SAMPLE, environment
from tests.mnist_files import contents, write

PAGES = (
    "README.md",
    "sweeps/README.md",
    "outputs/README.md",
    "deep_cnn/README.md",
    "deep_cnn/tasks/README.md",
    "deep_cnn/tasks/TUTORIALS.md",
    "deep_cnn/cluster/README.md",
    "deep_cnn/inference/README.md",
    "deep_cnn/sweep/run/README.md",
    "tests/benchmarks/README.md",
)
LONGEST_README = 190
# Words of a dialect that the documentation once had.
DIALECT = ("heed", "mend", "nobody", "insists", "told")

# ---- Commands: what is replaced before they run here, and which ones cannot run.
SUBSTITUTIONS = (
    # A name of the documentation, what stands for it here.
    (r"([ =])(FOLDER\b|new_pictures/)", rf"\1{SAMPLE}"),
    (r" --out=(\S+)", r" --out=\1 --overwrite"),
    # A shell would do so.
    (r"outputs/models/lr-repeats-\*", "outputs/models/first.best.pt outputs/models/third"),
    (r"^sweep (.*) --data_dir=\S+", r"sweep \1"),
    # Seconds instead of minutes; a resumed run takes --freeze from its checkpoint.
    (r"--epochs=(1|20) ", "--epochs=1 --freeze=trunk "),
    (r"--epochs=40\b", "--epochs=2"),
    (r"^--run_name=first ", "--run_name=first --epochs=1 --freeze=trunk "),
    (r"--workers=4\b", "--workers=2"),
    (r"--repeats=5\b", "--repeats=2"),
    # Sweeps of these names that train a small network on digits.
    (r"^sweep +sweeps/(lr|model|smoke)\.yaml", r"sweep quick/\1.yaml"),
    (r"^check +(\S+) --probe", r"check quick/lr.yaml --probe"),
    (r"--scheduler=", "--dry_run --scheduler="),
    (r"^submit +sweeps/lr\.yaml", "submit quick/lr.yaml"),
    (r"^--task=mnist ", "--task=mnist --epochs=1 --freeze=trunk "),
)
# Part of a command, and why it cannot run here.
NOT_RUN = {
    "upload": "needs an account on wandb.ai, or a server",
    "agent ENTITY/PROJECT/SWEEP_ID": "needs W&B's server; tests/tracking/test_wandb.py has another",
    "fetch --model": "needs a network; tests/test_fetch.py runs it with a local server",
    "--weights=IMAGENET1K_SWAG_E2E_V1 --freeze": "needs a network; tests/models has random weights",
    "--format=onnx": "needs an extra; tests/inference has it",
    "sweeps/examples/fit.yaml": "starts `python`; tests/sweep/run/test_programs.py does it",
    "fetch --data": "needs a network; tests/test_fetch.py runs it with a local server",
}
# What is in the workspace is made with these commands, by names that the pages use.
FAST = "--freeze=trunk --lr=0.01 --epochs=1 --wandb=False"
PREPARATION = (
    f"{FAST} --run_name=first",
    f"{FAST} --batch_size=16 --run_name=second",
    f"{FAST} --seed=1 --run_name=third",
    "--task=digits --model=sweeps/examples/net.py:Net --epochs=1 --wandb=False --run_name=own",
)
QUICK_SWEEP = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  task: {value: digits}
  train_samples: {value: 64}
  epochs: {value: 1}
  lr: {values: [0.01, 0.1]}
command: ["${env}", python, -m, deep_cnn, "${args}"]
"""


@dataclass(frozen=True)
class Command:
    """A command of the documentation: its page and line, and the words after `deep_cnn`."""

    page: str
    line: int
    text: str

    @property
    def reason_not_to_run(self) -> str | None:
        return next((why for part, why in NOT_RUN.items() if part in self.text), None)

    def here(self) -> list[str]:
        text = self.text
        for pattern, replacement in SUBSTITUTIONS:
            text = re.sub(pattern, replacement, f"{text} ").strip()
        return shlex.split(text)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks(page: str) -> Iterator[tuple[int, str, str]]:
    """(line of the first line of code, language, code) of each fenced block."""
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", read(page), re.M | re.S):
        yield read(page)[: match.start(3)].count("\n") + 1, match[2], match[3]


def commands() -> list[Command]:
    found = {}
    for page in PAGES:
        if page.endswith("TUTORIALS.md"):
            continue  # tests/test_tutorials.py runs its commands.
        for start, language, code in code_blocks(page):
            if language not in ("", "bash", "sh"):
                continue
            for number, line in enumerate(code.splitlines(), start):
                # In a session, what is typed follows a $; the rest is output.
                if language == "" and not line.startswith("$ "):
                    continue
                line = re.sub(r"(^|\s)#.*", "", line)
                for part in line.removeprefix("$ ").split("&&"):
                    words = re.match(r"\s*python3? -m deep_cnn\b(.*)", part)
                    if words:
                        text = " ".join(words[1].split())
                        found.setdefault(text, Command(page, number, text))
    return list(found.values())


COMMANDS = commands()


# ---- Links


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*)$", text, re.M):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = sum(
            re.fullmatch(rf"{re.escape(plain)}(-\d+)?", other) is not None for other in found
        )
        found.add(f"{plain}-{number}" if number else plain)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_and_anchor_exists(page: str) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", read(page), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page}: {target}"


# ---- Words


@pytest.mark.parametrize("page", PAGES)
def test_no_word_of_the_old_dialect(page: str) -> None:
    found = [word for word in DIALECT if re.search(rf"\b{word}\b", read(page), re.IGNORECASE)]
    assert not found, page


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= LONGEST_README


def test_the_architecture_page_lists_every_file() -> None:
    tree = next(code for _, _, code in code_blocks("deep_cnn/README.md"))
    listed, folders = set(), [""]
    for line in tree.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders[depth + 1 :] = []
        if name.endswith("/"):
            folders.append(name)
        else:
            listed.add("".join(folders[: depth + 1]) + name)
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "deep_cnn").rglob("*.py")}
    documented_inits = {name for name in listed if name.endswith("__init__.py")}
    there = {name for name in there if not name.endswith("__init__.py")} | documented_inits
    assert listed == there


# ---- Commands

Run = Callable[[list[str]], tuple[int, str]]


def share_cache(folder: Path, factory: pytest.TempPathFactory) -> None:
    """Let all runs of these tests compute the features of the sample once."""
    base = factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "docs-cache"
    cache.mkdir(exist_ok=True)
    (folder / "outputs").mkdir()
    (folder / "outputs" / "cache").symlink_to(cache)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's sweep files, quick ones, and two runs that are over."""
    folder = tmp_path_factory.mktemp("docs")
    share_cache(folder, tmp_path_factory)
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    (folder / "quick").mkdir()
    for name in ("lr", "model", "smoke"):
        (folder / "quick" / f"{name}.yaml").write_text(QUICK_SWEEP)
    write(folder / "mnist", contents())
    for words in PREPARATION:
        status, text = call(folder, shlex.split(words))
        assert status == 0, text
    return folder


def call(folder: Path, words: list[str]) -> tuple[int, str]:
    """Run a command in this process, which has imported torch already; its status."""
    wanted, before = environment(), dict(os.environ)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    place = Path.cwd()
    try:
        os.environ.clear()
        os.environ.update(wanted)
        os.chdir(folder)
        return main(words), " ".join(words)
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.text or "train")
def test_every_command_runs(
    workspace: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.reason_not_to_run:
        pytest.skip(command.reason_not_to_run)
    status, text = call(workspace, command.here())
    captured = capsys.readouterr()
    assert status == 0, f"{command.page}:{command.line} as {text}: {captured.err[-2000:]}"


def test_no_command_trains_a_whole_network_here() -> None:
    # It would take minutes: a new command needs an entry in SUBSTITUTIONS.
    short = ("--freeze=trunk", "--resume=", "--test_net=", "--dry_run", "-h")
    for command in COMMANDS:
        if command.reason_not_to_run:
            continue
        words = command.here()
        trains = not words or words[0].startswith("-")
        assert not trains or any(word.startswith(short) for word in words), command
        assert words[:1] != ["sweep"] or words[1].startswith("quick/"), command


def test_what_cannot_run_is_in_the_pages() -> None:
    for part in NOT_RUN:
        assert any(part in command.text for command in COMMANDS), part


def test_the_python_example_runs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = next(c for _, language, c in code_blocks("README.md") if language == "python")
    code = code.replace('"my_pictures"', repr(str(SAMPLE))).replace("epochs=10", "epochs=1")
    place = Path.cwd()
    try:
        os.chdir(workspace)
        exec(compile(code, "README.md", "exec"), {})
    finally:
        os.chdir(place)
    assert "loss_val" in capsys.readouterr().out


# ---- The annotated log

EXAMPLE = ROOT / "outputs" / "logger" / "example.log"
_NUMBER = re.compile(r"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?(?![\w.])|\bnan\b")


def lines_of_a_log(path: Path) -> list[str]:
    """The lines without annotations and time stamps; measured numbers are all the same."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        text = line.split(" ", 2)[2]
        if not text.startswith("INFO --"):
            # Which epoch is the best depends on the last digits.
            text = re.sub(r"^(INFO Running on) \w+", r"\1 DEVICE", text)
            text = _NUMBER.sub("N", re.sub(r"(?<==)\S+", "N", text)).removesuffix(" (best)")
        found.append(text)
    return found


def test_the_example_log_is_what_a_run_writes(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    share_cache(tmp_path, tmp_path_factory)
    command = re.search(r"^# +python -m deep_cnn (.*)$", EXAMPLE.read_text(), re.M)
    assert command
    status, text = call(tmp_path, shlex.split(command[1]))
    assert status == 0, text
    written = tmp_path / "outputs" / "logger" / "example.log"
    assert lines_of_a_log(written) == lines_of_a_log(EXAMPLE)


def test_pages_are_part_of_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    for page in (*PAGES, "outputs/logger/example.log"):
        ignored = subprocess.run(
            ["git", "check-ignore", "--no-index", "-q", page], cwd=ROOT, check=False
        )
        assert ignored.returncode != 0, page


def test_the_page_on_data_shows_the_examples_as_they_are() -> None:
    shown = []
    for _, language, code in code_blocks("deep_cnn/tasks/README.md"):
        name = re.match(r"# (sweeps/examples/\S+\.py)\n", code)
        if language == "python" and name:
            shown.append(name[1])
            assert code[name.end() :] == (ROOT / name[1]).read_text(encoding="utf-8")
    assert shown == ["sweeps/examples/net.py", "sweeps/examples/schedule.py"]

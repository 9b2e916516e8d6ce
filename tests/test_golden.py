"""What the program did before it was rebuilt, it does still: golden files, made anew and compared.

`python -m tests.golden.make [PART ...]` writes them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.golden import command_lines, folders, histories, parts
from tests.golden.common import called, differences, machine, read, run_well

# How far numbers may be apart on another machine than the one that made the files.
FAR = 1e-2
# Nothing but the last digits of exp and log differs there.
NEAR = 1e-12
CHUNKS = 8


def tolerance(golden: Mapping[str, Any], elsewhere: float = FAR) -> float:
    return 0.0 if golden["machine"] == machine() else elsewhere


def assert_same(found: Any, expected: Any, allowed: float = 0.0) -> None:
    lines = differences(found, expected, allowed)
    assert not lines, "\n".join(lines[:50])


def test_options() -> None:
    assert_same(parts.options(), read("options.json"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command_lines")
    command_lines.prepare(folder)
    return folder


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_command_lines(prepared: Path, chunk: int) -> None:
    cases = read("command_lines.json")[chunk::CHUNKS]
    found = [[case, command_lines.outcome(case, prepared)] for case, _ in cases]
    wrong = [f"{now} was {before}" for now, before in zip(found, cases, strict=True)
             if now != before]  # fmt: skip
    assert not wrong, "\n".join(wrong[:50])


@pytest.mark.parametrize("file", parts.SWEEPS, ids=lambda file: file.stem)
def test_samples(tmp_path: Path, file: Path) -> None:
    allowed = tolerance(read("bayes.json"), NEAR)
    assert_same(parts.sampled(file, tmp_path), read(f"samples/{file.stem}.json"), allowed)


@pytest.mark.parametrize("form", ["csv", "commands"])
def test_samples_as_text(tmp_path: Path, form: str) -> None:
    if tolerance(read("bayes.json")):
        pytest.skip("the last digits may differ on this machine")
    found = {file.stem: parts.printed(file, tmp_path, form) for file in parts.SWEEPS}
    assert_same(found, read("samples_as_text.json")[form])


@pytest.mark.parametrize("name", parts.BAYES)
def test_bayes(name: str) -> None:
    golden = read("bayes.json")
    found, expected = parts.proposed(parts.BAYES[name]), golden["points"][name]
    assert_same(found[: parts.DRAWN], expected[: parts.DRAWN], tolerance(golden, NEAR))
    if not tolerance(golden):  # What is optimised may end elsewhere.
        assert_same(found, expected)


@pytest.mark.parametrize("name", histories.RUNS)
def test_histories(tmp_path: Path, name: str) -> None:
    golden = read("histories.json")
    assert_same(histories.trained(name, tmp_path), golden["runs"][name], tolerance(golden))


def test_wandb_offline(tmp_path: Path) -> None:
    assert_same(parts.offline(tmp_path), read("wandb_offline.json"))


def test_cache_entries(tmp_path: Path) -> None:
    assert_same(parts.cached(tmp_path), read("cache.json")["entries"])


def test_cache_fingerprints() -> None:
    assert_same(parts.fingerprints(), read("cache.json")["fingerprints"])


@pytest.mark.parametrize("name", folders.TEXTS)
def test_an_old_folder_is_read_as_it_was(tmp_path: Path, name: str) -> None:
    golden = read("folders.json")
    expected = golden["folders"][name]
    found = folders.expected(name, folders.copied(name, tmp_path))
    if name == "bayes" and tolerance(golden):
        del found["following"]
    assert_same(found, {key: expected[key] for key in found})


@pytest.mark.parametrize("name", [name for name in folders.TEXTS if name != "half"])
def test_an_old_sweep_that_is_over_runs_nothing_more(tmp_path: Path, name: str) -> None:
    folder = folders.copied(name, tmp_path)
    expected = read("folders.json")["folders"][name]
    run_well(folder, *folders.words(name))
    assert_same(folders.tables(folder), expected["tables"])
    assert folders.claims(folder) == expected["claims"]
    assert_same(folders.reported(folder), expected["report"])
    assert_same(folders.keys(folder), expected["keys"])


def test_an_old_sweep_that_was_killed_goes_on(tmp_path: Path) -> None:
    golden = read("folders.json")
    found = folders.finished_half(folders.copied("half", tmp_path))
    assert_same(found, golden["folders"]["half"]["finished"], tolerance(golden))
    points = [key for _, _, key in folders.keys(tmp_path)["s"]]
    assert len(points) == len(set(points)) == len(found["tables"]["s"])


def test_an_old_checkpoint_is_tested_and_goes_on(tmp_path: Path) -> None:
    golden = read("folders.json")
    found = folders.gone_on(folders.copied("finished", tmp_path))
    assert_same(found, golden["folders"]["checkpoint"], tolerance(golden))


def test_the_file_of_another_sweep_is_refused(tmp_path: Path) -> None:
    folder = folders.copied("finished", tmp_path)
    file = folder / "s.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("max: 0.1", "max: 0.2"))
    assert called(folder, *folders.words("finished"))[0] == 2
    assert called(folder, *folders.words("finished"), "--seed=1")[0] == 2

"""Run command lines in a folder with a little of everything, and say how they end."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.golden import adapter, cases
from tests.golden.common import as_json, called

_NAME = re.compile(r"--[a-z_]+")
_FINDING = re.compile(r"^\S+ line (\d+): ", re.MULTILINE)
_SERVED = {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r", "WANDB_MODE": "disabled"}


def prepare(folder: Path) -> None:
    """Put there what the command lines name: data, sweep files, a run."""
    for part in ("train", "val"):
        for i in range(4):
            for place in (folder / "classes" / part / "ab"[i % 2], folder / "tiny"):
                place.mkdir(parents=True, exist_ok=True)
                pixels = np.full((8, 8, 3), 20 * i + (part == "val"), np.uint8)
                Image.fromarray(pixels).save(place / f"{part}{i}.png")
    rows = [f"{part}{i}.png,{i},{i * i},{part}" for part in ("train", "val") for i in range(4)]
    (folder / "tiny" / "scores.csv").write_text("\n".join(["image,score,extra,split", *rows]))
    (folder / "empty").mkdir()
    texts = {
        "text.txt": "some text\n",
        "empty.txt": "",
        "args.json": '{"lr": 0.1, "epochs": 3}',
        "nested.json": '{"training": {"lr": 0.1, "inner": {"batch-size": 4}}, "patience": null}',
        "bad.json": '{"lr": ',
        "list.json": "[1]",
        "good.yaml": cases.sweep("lr: {values: [0.1, 0.2]}", method="grid"),
        "endless.yaml": cases.sweep(cases.LR),
        "faulty.yaml": cases.sweep("lr: {values: [x]}", "run_cap: x\n"),
        "foreign.yaml": cases.sweep("lr: {values: [1, 2]}", method="grid", command=cases.FOREIGN),
        "custom.yaml": cases.sweep("lr: {values: [1, 2]}", method="custom"),
        "nodata.yaml": cases.sweep("data_dir: {value: missing}", method="grid"),
        "trainval.yaml": cases.sweep(cases.LR, command=cases.fixed("--train_on=train")),
        "seeded.yaml": cases.sweep(cases.LR, command=cases.fixed("--seed=1")),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "binary").write_bytes(b"\x00\xff\xfe\x80")
    small = ("--task=digits", "--train_samples=40", "--hidden=4", "--epochs=1", "--wandb=False")
    assert called(folder, *small, "--run_name=old")[0] == 0
    assert called(folder, *small, "--run_name=older", "--lr=0.1")[0] == 0
    shutil.copyfile(folder / "outputs" / "models" / "old.pt", folder / "old.pt")


def train_argvs() -> Iterator[list[str]]:
    """Give the command lines that train, were it not for --dry_run."""
    for name, values in cases.VALUES.items():
        given = {"data_dir": cases.DRY, "task": cases.TINY, "dry_run": cases.TINY[1:]}
        owner = cases.OWNERS.get(name)
        begin = given.get(name, (*cases.DRY, owner) if owner else cases.TINY)
        for value in values:
            yield [*begin, f"--{name}={value}"]
        if owner is None and name not in ("data_dir", "task", "resume", "test_net"):
            yield ["--dry_run", "--task=digits", f"--{name}={values[0]}"]
    for words in cases.TRAIN:
        yield [*cases.TINY, *words]


def all_cases() -> list[dict[str, Any]]:
    """Give each case without what comes of it."""
    found: list[dict[str, Any]] = [{"argv": argv} for argv in train_argvs()]
    found += [{"argv": list(words)} for words in cases.VERBS]
    found += [{"swept": list(words)} for words in cases.SWEPT]
    for words in (("+lr=x",), ("lr=x",), ("--nothing=1",), ("trian",), ("lr=0.1", "hidden=x")):
        found.append({"argv": list(words), "env": _SERVED})
    found += [{"yaml": text} for text in cases.yaml_texts()]
    unique = {repr(case): case for case in found}
    return list(unique.values())


def outcome(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Say what comes of a case, in a folder that was prepared."""
    if "swept" in case:
        return _parsed(case["swept"], folder)
    if "yaml" in case:
        return _checked(case["yaml"], folder)
    argv: Sequence[str] = case["argv"]
    before = {path.name for path in folder.iterdir()}
    status, _, err = called(folder, *argv, **case.get("env", {}))
    found: dict[str, Any] = {"status": status}
    if status:
        found["named"] = _named(err)
    elif argv[:1] == ["--dry_run"]:
        found |= {"options": _parsed(argv, folder, sweep=False).get("options")}
    new = {path.name for path in folder.iterdir()} - before
    if new:
        found["made"] = sorted(new)
    return found


def _named(err: str) -> str | None:
    """Give the first option that the last line names."""
    lines = err.strip().splitlines()
    match = _NAME.search(lines[-1]) if lines else None
    return match[0] if match else None


def _parsed(words: Sequence[str], folder: Path, *, sweep: bool = True) -> dict[str, Any]:
    place = Path.cwd()
    os.chdir(folder)
    try:
        given = adapter.given_options(words, sweep=sweep)
    except adapter.Refused as error:
        return {"status": 2, "named": _named(str(error))}
    finally:
        os.chdir(place)
    return {"status": 0, "options": as_json(dict(sorted(given.items())))}


def _checked(text: str, folder: Path) -> dict[str, Any]:
    (folder / "checked.yaml").write_text(text, encoding="utf-8")
    status, out, err = called(folder, "check", "checked.yaml")
    faults = [[int(line), "fault"] for line in _FINDING.findall(err)]
    notes = [[int(line), "note"] for line in _FINDING.findall(out)]
    return {"status": status, "findings": sorted(faults + notes)}

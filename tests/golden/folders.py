"""Write outputs folders of sweeps, so that later versions can be asked to go on with them."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.golden import adapter
from tests.golden.common import HERE, command, environment, run_well, until
from tests.golden.parts import table

# Claims name the host that made them; this one is on no network, and its claims run out at once.
HOST = "golden"
# Where the folders are made: checkpoints and arguments hold the path.
PLACE = Path("/tmp/deep_cnn_golden")
_SMALL = """\
  hidden: {value: 1}
  momentum: {value: 0}
  train_samples: {value: 60}
  amp: {value: "off"}
command: ["${env}", python, -m, deep_cnn, --task=digits, --wandb=False, "${args}"]
"""
_RANDOM = """\
method: random
run_cap: 4
metric: {name: loss_val, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.001, max: 0.1}
  batch_size: {values: [20, 30]}
  epochs: {value: 2}
"""
_GRID = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  lr: {values: [0.1, 0.01, 0.001]}
  epochs: {value: 100}
"""
_BAYES = """\
method: bayes
run_cap: 12
metric: {name: loss_val, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.001, max: 0.1}
  batch_size: {distribution: q_uniform, min: 10, max: 60, q: 10}
  optimizer: {values: [sgd, adam]}
  epochs: {value: 1}
"""
_STOPPED = """\
method: grid
metric: {name: loss_val, goal: minimize}
early_terminate: {type: hyperband, min_iter: 2, eta: 2}
parameters:
  lr: {values: [0.03, 0.01, 0.0001]}
  epochs: {value: 6}
"""
_REPEATS = """\
method: grid
metric: {name: loss_val, goal: minimize}
parameters:
  lr: {values: [0.1, 0.01]}
  epochs: {value: 2}
"""
TEXTS = {
    "finished": _RANDOM + _SMALL,
    "half": _GRID + _SMALL,
    "bayes": _BAYES + _SMALL,
    "stopped": _STOPPED + _SMALL,
    "repeats": _REPEATS + _SMALL,
}
MORE: Mapping[str, tuple[str, ...]] = {"repeats": ("--repeats=2", "--top=2", "--refit")}
# What is not needed to go on.
_NEEDLESS = ("outputs/cache", "outputs/logger", "outputs/sweeps/s/optuna.db")


def words(name: str) -> tuple[str, ...]:
    """Give the words of the command that began the sweep, and goes on with it."""
    return ("sweep", "s.yaml", "--workers=1", *MORE.get(name, ()))


def make(name: str) -> None:
    """Write the folder of this name, and what is expected of it."""
    folder = PLACE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "s.yaml").write_text(TEXTS[name], encoding="utf-8")
    if name == "half":
        _interrupted(folder)
    else:
        run_well(folder, *words(name), DEEP_CNN_HOST=HOST)
    _shrink(folder, name)
    target = HERE / "folders" / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    shutil.rmtree(folder)


def _interrupted(folder: Path) -> None:
    """Kill a sweep, when one trial is over and the next one has a checkpoint."""
    process = subprocess.Popen(
        command(*words("half")),
        cwd=folder,
        env=environment(folder, DEEP_CNN_HOST=HOST),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def half() -> bool:
        place = folder / "outputs" / "sweeps" / "s"
        runs = [json.loads(path.read_text())["run_name"] for path in place.glob("00001.run")]
        begun = [folder / "outputs" / "models" / f"{run}.pt" for run in runs]
        return (place / "00000.done").exists() and any(path.exists() for path in begun)

    until(half, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _shrink(folder: Path, name: str) -> None:
    """Remove what is not needed, and name no host."""
    for path in [folder / needless for needless in _NEEDLESS]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in folder.glob("outputs/sweeps/*/optuna.db"):
        path.unlink()
    for path in folder.glob("outputs/sweeps/*/*.claim.*"):
        claim = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**claim, "host": HOST}), encoding="utf-8")
    kept = _checkpoints_kept(folder, name)
    for path in folder.glob("outputs/models/*.pt"):
        if path.name not in kept:
            path.unlink()
    for path in [*folder.glob("outputs/results/*.steps_*.csv"), *folder.glob("outputs/**/*.part")]:
        path.unlink()
    for path in folder.glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _checkpoints_kept(folder: Path, name: str) -> set[str]:
    """Name the checkpoints that somebody goes on from: one run's, and the unfinished one's."""
    if name not in ("finished", "half"):
        return set()
    number = "00000" if name == "finished" else "00001"
    run = json.loads((folder / "outputs" / "sweeps" / "s" / f"{number}.run").read_text())
    return {f"{run['run_name']}.pt", f"{run['run_name']}.best.pt"}


def copied(name: str, target: Path) -> Path:
    """Copy a folder to where it may be changed; all claims in it are old."""
    shutil.copytree(HERE / "folders" / name, target, dirs_exist_ok=True)
    for path in target.glob("outputs/sweeps/*/*.claim.*"):
        os.utime(path, (0, 0))
    return target


def trials(folder: Path, sweep: str = "s") -> list[dict[str, str]]:
    """Read the table of a sweep, without times."""
    text = (folder / "outputs" / "sweeps" / sweep / "trials.csv").read_text(encoding="utf-8")
    # Before version 0.2 two columns could be called epochs.
    names = {"epochs_run": "epochs", "config.run_name": "run_name"}
    return [
        {names.get(k, k): v for k, v in row.items() if k not in ("seconds", "epochs")}
        if "epochs_run" in row
        else {k: v for k, v in row.items() if k != "seconds"}
        for row in table(text)
    ]


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Read the tables of all sweeps in a folder."""
    places = sorted((folder / "outputs" / "sweeps").iterdir())
    return {place.name: trials(folder, place.name) for place in places}


def claims(folder: Path) -> int:
    """Count how often a trial was begun."""
    return len(list(folder.glob("outputs/sweeps/**/*.claim.*")))


def reported(folder: Path) -> list[list[str]]:
    """Give name, state and best value of each run, as the verb report lists them."""
    text = run_well(folder, "report", "outputs", "--csv").stdout
    return sorted([row["run_name"], row["state"], row["best"]] for row in table(text))


def keys(folder: Path) -> dict[str, list[Any]]:
    """Give state, value and canonical key of each stored trial, by sweep."""
    return {
        place.name: [
            [state, value, adapter.canonical_key(point)]
            for point, state, value in adapter.stored_trials(place)
        ]
        for place in sorted((folder / "outputs" / "sweeps").iterdir())
    }


def following(folder: Path) -> list[Any]:
    """Give the next three points of the sweep in a folder, as if each were worth 1."""
    place = folder / "outputs" / "sweeps" / "s"
    seen = [(point, value, False) for point, _, value in adapter.stored_trials(place)]
    found = []
    for _ in range(3):
        point = adapter.next_point(folder / "s.yaml", 0, seen)
        found.append(point)
        seen.append((point, 1.0, False))
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def expected(name: str, folder: Path) -> dict[str, Any]:
    """Describe a folder, before anybody goes on with it."""
    found: dict[str, Any] = {
        "tables": tables(folder),
        "report": reported(folder),
        "keys": keys(folder),
        "claims": claims(folder),
    }
    if name == "bayes":
        found["following"] = following(folder)
    return found


def finished_half(folder: Path) -> dict[str, Any]:
    """Go on with the sweep that was killed, to its end, and describe it."""
    run_well(folder, *words("half"), DEEP_CNN_HOST="another", DEEP_CNN_LEASE="2")
    tables_now = tables(folder)
    lengths = {
        row["run_name"]: len(
            (folder / "outputs" / "results" / f"{row['run_name']}.csv").read_text().splitlines()
        )
        for row in tables_now["s"]
    }
    return {"tables": tables_now, "report": reported(folder), "lines": lengths}


def gone_on(folder: Path) -> dict[str, Any]:
    """Train a run of an old sweep for one more epoch, and test its best checkpoint."""
    run = trials(folder)[0]["run_name"]
    models = folder / "outputs" / "models"
    run_well(folder, f"--test_net={models / run}.best.pt")
    text = (folder / "outputs" / "results" / f"{run}.json").read_text(encoding="utf-8")
    test = json.loads(text)["test"]
    run_well(folder, f"--resume={models / run}.pt", "--epochs=3")
    rows = table((folder / "outputs" / "results" / f"{run}.csv").read_text(encoding="utf-8"))
    timing = ("seconds", "images_per_second")
    history = [{k: v for k, v in row.items() if k not in timing} for row in rows]
    return {"run": run, "test": test, "history": history}

"""Sweeps of programs that are not ours: real scripts, W&B's client offline, kills and daemons."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest

from deep_cnn.results import Metric
from deep_cnn.sweep.search.early_stopping import costs_of
from tests.conftest import PATIENCE, ROOT, SHOWS_PROCESSES, environment, family, processes, until
from tests.wandb_server import WandbServer

# As for an agent, `python` is the one on PATH.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
GRID = "method: grid\nmetric: {name: loss}\nprogram: p.py\nparameters:\n  x: {values: [3, 1, 2]}\n"
OF_WANDB = """
import wandb
run = wandb.init()
for step in range(4):
    run.log({"loss": run.config["x"] + 1 / (step + 1), "other": step, "text": "a", "flag": True})
"""
# A daemon: a new session, and no parent that is known.
DAEMON = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(f"daemon-{os.environ['WANDB_RUN_ID']}", "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
"""


def env(**extra: str) -> dict[str, str]:
    return environment(**{"PATH": PATH, "WANDB__DISABLE_STATS": "true", **extra})


def write(folder: Path, sweep: str, program: str, name: str = "p.py") -> None:
    (folder / "s.yaml").write_text(sweep)
    (folder / name).write_text(program)


def sweep(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deep_cnn", "sweep", "s.yaml", *words],
        cwd=folder, env=env(**extra), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def start(folder: Path, *words: str, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deep_cnn", "sweep", "s.yaml", *words],
        cwd=folder, env=env(**extra), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "outputs/sweeps/s/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rows(folder: Path, run: str) -> list[dict[str, str]]:
    with (folder / f"outputs/results/{run}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def result(folder: Path, run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"outputs/results/{run}.json").read_text())
    return content


def ended_well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def is_alive(pid: int) -> bool:
    return pid in processes()


def test_a_program_with_wandb_runs_as_under_an_agent(tmp_path: Path) -> None:
    write(tmp_path, GRID, OF_WANDB)
    ended_well(sweep(tmp_path))
    found = [(t["x"], t["state"], float(t["value"]), t["epochs_run"]) for t in trials(tmp_path)]
    expected = [("3", "finished", 3.25, "4"), ("1", "finished", 1.25, "4")]
    assert found == [*expected, ("2", "finished", 2.25, "4")]
    losses = [row["loss"] for row in rows(tmp_path, "s-00001")]
    assert losses == [repr(1 + 1 / n) for n in (1, 2, 3, 4)]
    assert set(rows(tmp_path, "s-00001")[0]) == {"epoch", "loss", "other"}
    about = result(tmp_path, "s-00002")
    assert about["state"] == "finished"
    assert about["best"] == {"epoch": 3, "metric": "loss", "value": 2.25}
    assert about["config"] == {"x": 2}
    assert len(list((tmp_path / "outputs/wandb").glob("offline-run-*"))) == 3
    report = subprocess.run(
        [sys.executable, "-m", "deep_cnn", "report", "outputs", "--csv"],
        cwd=tmp_path, env=env(), capture_output=True, text=True,
    )  # fmt: skip
    best = next(csv.DictReader(report.stdout.splitlines()))
    assert (best["run_name"], best["x"]) == ("s-00001", "1"), report.stdout + report.stderr
    # The same command again finds nothing to do.
    before = (tmp_path / "outputs/results/s-00000.json").read_bytes()
    ended_well(sweep(tmp_path))
    assert (tmp_path / "outputs/results/s-00000.json").read_bytes() == before


def test_nested_parameters_and_metrics_with_four_workers(tmp_path: Path) -> None:
    yaml = (
        "method: random\nrun_cap: 6\nmetric: {name: val.best.acc, goal: maximize}\n"
        "program: p.py\nproject: places\nparameters:\n  opt:\n    parameters:\n"
        "      lr: {min: 0.0, max: 1.0}\n      name: {values: [a, b]}\n"
    )
    write(tmp_path, yaml, "import wandb\nrun = wandb.init(project='theirs')\n"
          "assert run.project == 'places' and run.group == 's', (run.project, run.group)\n"
          "run.log({'val': {'best': {'acc': run.config['opt']['lr']}}})\n")  # fmt: skip
    ended_well(sweep(tmp_path, "--workers=4"))
    assert len(trials(tmp_path)) == 6
    for trial in trials(tmp_path):
        assert float(trial["value"]) == float(trial["opt.lr"])


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("${args}", ["--b=True", "--l=[9, 5]", "--x=0.1"]),
        ("${args_no_boolean_flags}", ["--b", "--l=[9, 5]", "--x=0.1"]),
        ("${args_no_hyphens}", ["b=True", "l=[9, 5]", "x=0.1"]),
        ("${args_append_hydra}", ["+b=True", "+l=[9, 5]", "+x=0.1"]),
        ("${args_override_hydra}", ["++b=True", "++l=[9, 5]", "++x=0.1"]),
        ("${args_json}", ['{"b": true, "l": [9, 5], "x": 0.1}']),
        ("${args_json_file}", [{"b": True, "l": [9, 5], "x": 0.1}]),
    ],
)
def test_the_command_line_and_the_environment(
    tmp_path: Path, macro: str, expected: list[Any]
) -> None:
    parameters = "parameters:\n  b: {value: true}\n  l: {value: [9, 5]}\n  x: {value: 0.1}\n"
    command = f'command: [/usr/bin/env, python, "${{program}}", "${{envvar:SECRET}}", "{macro}"]\n'
    yaml = f"method: grid\nmetric: {{name: loss}}\nprogram: p.py\n{parameters}{command}"
    program = (
        "import json, os, signal, sys\n"
        "args = [json.load(open(a)) if a.endswith('.json') else a for a in sys.argv[1:]]\n"
        "held = [s for s in (2, 1, 10) if signal.getsignal(s) == signal.SIG_IGN]\n"
        "blocked = list(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "about = {'args': args, 'env': dict(os.environ), 'cwd': os.getcwd(),"
        " 'held': held + blocked, 'stdin': sys.stdin.read()}\n"
        "json.dump(about, open('about', 'w'))\nprint(json.dumps({'loss': 0.3}), flush=True)\n"
    )
    write(tmp_path, yaml, program)
    ended_well(sweep(tmp_path, SECRET="token-123", WANDB_SERVICE="x"))
    about = json.loads((tmp_path / "about").read_text())
    assert about["args"] == ["token-123", *expected]
    assert (about["cwd"], about["held"], about["stdin"]) == (str(tmp_path), [], "")
    env = about["env"]
    assert env["WANDB_MODE"] == "offline"
    assert env["WANDB_DIR"] == str(tmp_path / "outputs")
    assert env["WANDB_RUN_GROUP"] == "s"
    assert env["DEEP_CNN_ATTEMPT"] == "0"
    assert len(env["WANDB_RUN_ID"]) == len(env["WANDB_SWEEP_ID"]) == 8
    assert "OMP_NUM_THREADS" not in env or "OMP_NUM_THREADS" in os.environ
    assert "WANDB_SERVICE" not in env
    assert trials(tmp_path)[0]["value"] == "0.3"
    for path in (tmp_path / "outputs").rglob("*"):
        assert not path.is_file() or b"token-123" not in path.read_bytes(), path


def test_a_bash_wrapper_and_a_last_line(tmp_path: Path) -> None:
    yaml = GRID + 'command: [bash, "${program}", "${args_no_hyphens}"]\n'
    write(tmp_path, yaml, "export \"$1\"\npython -c \"print('done'); print('loss=$x.5, n=7')\"\n")
    ended_well(sweep(tmp_path, "--workers=2"))
    assert [t["value"] for t in trials(tmp_path)] == ["3.5", "1.5", "2.5"]
    assert rows(tmp_path, "s-00000") == [{"epoch": "0", "loss": "3.5", "n": "7.0"}]


def test_json_lines_with_colors_and_other_text(tmp_path: Path) -> None:
    program = (
        "import sys, json\nx = float(sys.argv[1].partition('=')[2])\nprint('begin {')\n"
        "print(json.dumps({'loss': x, 'a': {'b': 2}}))\nprint('{broken')\n"
        "print(json.dumps({'acc': 1}))\nprint(json.dumps({'loss': x / 2}))\nprint('the end')\n"
    )
    write(tmp_path, GRID, program)
    ended_well(sweep(tmp_path))
    assert [t["value"] for t in trials(tmp_path)] == ["1.5", "0.5", "1.0"]
    assert rows(tmp_path, "s-00000") == [
        {"epoch": "0", "loss": "3.0", "a.b": "2.0", "acc": ""},
        {"epoch": "1", "loss": "", "a.b": "", "acc": "1.0"},
        {"epoch": "2", "loss": "1.5", "a.b": "", "acc": ""},
    ]


def test_an_old_client_and_the_source_of_values_are_said_once(tmp_path: Path) -> None:
    program = (
        "print('wandb: Tracking run with wandb version 0.21.4')\n"
        "import sys\nprint('loss=' + sys.argv[1].partition('=')[2])\n"
    )
    rule = "early_terminate: {type: hyperband, min_iter: 2}\n"
    write(tmp_path, GRID + rule, program)
    done = sweep(tmp_path, "--workers=2")
    ended_well(done)
    assert done.stderr.count("s: loss is read from the last line of the output") == 1
    assert done.stderr.count("client is older than 0.31: no run can be stopped early") == 1


@pytest.mark.parametrize("mode", ["w", "a"])
def test_a_table_that_the_program_writes(tmp_path: Path, mode: str) -> None:
    program = (
        "import sys, os\nx = float(sys.argv[1].partition('=')[2])\n"
        f"new = {mode == 'w'} or not os.path.exists('m.csv')\n"
        f"with open('m.csv', {mode!r}) as file:\n"
        "    file.write('step,loss\\n' * new + f'0,{x}\\n1,{x + 1}\\n')\n"
    )
    write(tmp_path, GRID, program)
    ended_well(sweep(tmp_path, "--metric_file=m.csv"))
    assert [(t["value"], t["epochs_run"]) for t in trials(tmp_path)] == [
        ("3.0", "2"), ("1.0", "2"), ("2.0", "2"),
    ]  # fmt: skip
    done = sweep(tmp_path, "--metric_file=m.csv", "--workers=2")
    assert (done.returncode, "one file for 2 programs" in done.stderr) == (2, True)


def test_a_program_that_never_logs_the_metric_fails(tmp_path: Path) -> None:
    program = "import wandb\nwandb.init().log({'acc': 1, 'val': {'mae': 2}})\n"
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    done = sweep(tmp_path, "--retries=0")
    assert done.returncode == 1
    sentence = "the program exited with 0 and never logged the metric loss; it logged: acc, val.mae"
    assert f"trial 0 failed: {sentence}" in done.stderr
    assert result(tmp_path, "s-00000")["error"] == sentence


def test_a_crash_is_tried_again_and_says_its_last_output(tmp_path: Path) -> None:
    program = (
        "import os, signal\nprint('attempt', os.environ['DEEP_CNN_ATTEMPT'])\n"
        "for i in range(30):\n    print('line', i)\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    done = sweep(tmp_path)
    assert done.returncode == 1
    error = result(tmp_path, "s-00000")["error"]
    lines = error.split("\n")
    assert lines[0] == "the program was killed by signal 11 (SIGSEGV); its last output:"
    assert lines[1:] == [f"line {i}" for i in range(10, 30)]
    assert "attempt 1" in (tmp_path / "outputs/logger/s-00000.log").read_text()
    assert lines[-1] in done.stderr


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    command = 'command: [./gone, "${args}"]\n'
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]") + command, "")
    (tmp_path / "folder").mkdir()
    for yaml, expected in (
        (GRID + command, "./gone, with which the command begins, is not on PATH"),
        (GRID.replace("p.py", "gone.py"), "program gone.py is not in"),
        (GRID.replace("p.py", "folder"), "program folder is a folder"),
    ):
        (tmp_path / "s.yaml").write_text(yaml)
        done = sweep(tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert expected in done.stderr
    # What the system refuses only when it starts it costs the trial.
    (tmp_path / "gone").write_text("#!/no/such/interpreter\n")
    (tmp_path / "gone").chmod(0o755)
    (tmp_path / "s.yaml").write_text(GRID.replace("[3, 1, 2]", "[3]") + command)
    done = sweep(tmp_path)
    assert done.returncode == 1
    assert "./gone cannot be started (No such file or directory)" in done.stderr


def test_failures_before_a_start_do_not_count_against_it(tmp_path: Path) -> None:
    yaml = GRID.replace("[3, 1, 2]", "[1, 2, 3, 4, 5, 6, 7]")
    write(tmp_path, yaml, "import sys\nsys.exit(1)\n")
    done = sweep(tmp_path, "--retries=3")
    assert done.returncode == 1
    assert "failures in a row" in done.stderr
    # Slow enough to be killed, if the sweep were stopped again.
    (tmp_path / "p.py").write_text("import time\ntime.sleep(1)\nprint('loss=1')\n")
    ended_well(sweep(tmp_path, "--retries=3", "--workers=4"))
    assert [trial["state"] for trial in trials(tmp_path)] == ["finished"] * 7


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("", ("--metric_file=gone.csv",), "the metric loss; gone.csv does not exist"),
        (
            "import wandb\nwandb.init().log({'name': 'a', 'flag': True})\n", (),
            "the metric loss; it logged: flag, name",
        ),
    ],
)  # fmt: skip
def test_the_error_of_a_program_without_the_metric(
    tmp_path: Path, program: str, words: tuple[str, ...], expected: str
) -> None:
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    done = sweep(tmp_path, "--retries=0", *words)
    assert done.returncode == 1
    assert expected in done.stderr


def test_a_program_that_has_ended_is_not_stopped(tmp_path: Path) -> None:
    yaml = GRID.replace("[3, 1, 2]", "[1, 2, 3]") + (
        "early_terminate: {type: hyperband, min_iter: 2}\n"
    )
    program = (
        "import os, sys\nx = float(sys.argv[1].partition('=')[2])\n"
        "for step in range(9):\n    print('{\"loss\": %f}' % (x + step))\n"
        "sys.stdout.flush()\nos._exit(0)\n"
    )
    write(tmp_path, yaml, program)
    ended_well(sweep(tmp_path))
    assert [(t["state"], t["epochs_run"]) for t in trials(tmp_path)] == [("finished", "9")] * 3


def test_programs_share_gpus_and_cores_and_need_no_metric(tmp_path: Path) -> None:
    program = (
        "import os, time\nwith open('seen', 'a') as file:\n"
        "    names = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'WANDB_MODE', 'WANDB_SWEEP_ID')\n"
        "    print(*map(os.environ.get, names), file=file)\ntime.sleep(1)\n"
    )
    write(tmp_path, GRID.replace("metric: {name: loss}\n", "entity: me\n"), program)
    words = ("--workers=2", "--wandb=True")
    account = {"WB_KEY": "k" * 40, "WB_PROJECT": "p", "WB_USER": "me"}
    ended_well(sweep(tmp_path, *words, **account, CUDA_VISIBLE_DEVICES="5,7", OMP_NUM_THREADS=""))
    assert [(t["state"], t["value"]) for t in trials(tmp_path)] == [("finished", "")] * 3
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert {gpu for gpu, *_ in seen} == {"5", "7"}
    assert all(int(threads) >= 1 for _, threads, *_ in seen)
    assert {tuple(rest) for _, _, *rest in seen} == {("None", "None")}


@SHOWS_PROCESSES
def test_a_stopped_program_that_ignores_sigterm_leaves_nothing(tmp_path: Path) -> None:
    yaml = GRID.replace("[3, 1, 2]", "[1, 2]") + "early_terminate: {type: hyperband, min_iter: 2}\n"
    program = DAEMON + (
        "x = float(sys.argv[1].partition('=')[2])\n"
        "for step in range(3):\n    print('{\"loss\": %f}' % (x + step))\n"
        "time.sleep(600 if x == 2 else 0)\n"
    )
    write(tmp_path, yaml, program)
    ended_well(sweep(tmp_path, WANDB_AGENT_KILL_DELAY="0.3"))
    first, second = trials(tmp_path)
    assert (first["state"], second["state"]) == ("finished", "stopped")
    reason = {"band": 2, "rule": "hyperband", "threshold": 2.0, "value": 3.0}
    assert json.loads(second["stop_reason"]) == reason
    daemons = [int(path.read_text()) for path in tmp_path.glob("daemon-*")]
    assert len(daemons) == 2
    assert not any(map(is_alive, daemons))


@SHOWS_PROCESSES
@pytest.mark.parametrize("victim", ["engine", "all"])
def test_nothing_survives_a_killed_sweep(tmp_path: Path, victim: str) -> None:
    write(tmp_path, GRID, DAEMON + "time.sleep(600)\n")
    process = start(tmp_path, "--workers=2")
    until(lambda: all(p.read_text() for p in tmp_path.glob("daemon-*"))
          and len(list(tmp_path.glob("daemon-*"))) == 2, process)  # fmt: skip
    daemons = [int(path.read_text()) for path in tmp_path.glob("daemon-*")]
    started = family(process.pid) | set(daemons)
    for pid in [process.pid] if victim == "engine" else family(process.pid) - set(daemons):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    if victim == "all":  # Even the watcher: then the next start ends the rest.
        for path in tmp_path.glob("daemon-*"):
            path.unlink()
        (tmp_path / "p.py").write_text("print('loss=1')")
        ended_well(sweep(tmp_path, "--workers=2"))
    until(lambda: not any(map(is_alive, started)))


@SHOWS_PROCESSES
def test_an_interrupted_trial_starts_again_as_the_same_run(tmp_path: Path) -> None:
    program = (
        "import os, time, wandb\nrun = wandb.init()\n"
        "attempt = int(os.environ['DEEP_CNN_ATTEMPT'])\n"
        "run.log({'loss': 5 - 4 * (attempt == 0)})\n"
        "open(f'{attempt}-{run.id}', 'w').close()\ntime.sleep(0 if attempt else 600)\n"
    )
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    process = start(tmp_path)
    until(lambda: list(tmp_path.glob("0-*")), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "go on with: python -m deep_cnn sweep s.yaml" in errors
    assert trials(tmp_path)[0]["state"] == "interrupted"
    ended_well(sweep(tmp_path))
    (first,) = tmp_path.glob("0-*")
    assert (tmp_path / f"1-{first.name[2:]}").exists()
    assert trials(tmp_path)[0]["value"] == "5.0"
    runs = tmp_path / "outputs/wandb"
    assert len(list(runs.glob("offline-run-*"))) == 1
    assert len(list(runs.glob("superseded/offline-run-*"))) == 1


@SHOWS_PROCESSES
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3, 1, 2, 4, 5]"), (
        "import sys, time\nx = float(sys.argv[1].partition('=')[2])\nfor i in range(3):\n"
        "    print('{\"loss\": %f}' % (x + 2 - i))\n    time.sleep(0.2)\n"
    ))  # fmt: skip
    for _ in range(6):
        process = start(tmp_path, "--workers=2", "--retries=20")
        with suppress(subprocess.TimeoutExpired):
            process.wait(2 + 4 * dice.random())
        below = sorted(family(process.pid))
        for pid in dice.sample(below, min(2, len(below))) if process.poll() is None else ():
            with suppress(ProcessLookupError):  # It has just ended.
                os.kill(pid, signal.SIGKILL)
        if process.poll() is None:
            time.sleep(dice.random())
            process.kill()
        process.communicate()
        until(lambda b=below: not any(map(is_alive, b)))  # type: ignore[misc]
    ended_well(sweep(tmp_path, "--workers=2", "--retries=20"))
    found = [(t["x"], t["state"], t["value"], t["epochs_run"]) for t in trials(tmp_path)]
    assert found == [(str(x), "finished", f"{x}.0", "3") for x in (3, 1, 2, 4, 5)]
    assert len(list((tmp_path / "outputs/results").glob("*.args.json"))) == 5
    assert not list((tmp_path / "outputs/sweeps/s/work").iterdir())


def test_the_example_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    shutil.copy(ROOT / "sweeps/examples/fit.yaml", tmp_path / "s.yaml")
    ended_well(sweep(tmp_path, "--workers=2"))
    assert {t["state"] for t in trials(tmp_path)} <= {"finished", "stopped"}
    assert len({t["value"] for t in trials(tmp_path)}) == 6


@SHOWS_PROCESSES
def test_the_program_of_a_killed_worker_is_ended(tmp_path: Path) -> None:
    program = (
        "import os, time\nattempt = os.environ['DEEP_CNN_ATTEMPT']\n"
        "open(f'pid-{attempt}', 'w').write(str(os.getpid()))\n"
        "print('loss=1', flush=True)\ntime.sleep(0 if attempt != '0' else 600)"
    )
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    process = start(tmp_path)
    until(lambda: (tmp_path / "pid-0").exists() and (tmp_path / "pid-0").read_text(), process)
    pid = int((tmp_path / "pid-0").read_text())
    os.kill(processes()[pid], signal.SIGKILL)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "1 of 1 trials are over" in output) == (0, True), errors
    assert not is_alive(pid)


def test_stops_are_those_of_wandbs_rule(tmp_path: Path) -> None:
    yaml = (
        "method: random\nrun_cap: 6\nmetric: {name: acc, goal: maximize}\nprogram: p.py\n"
        "parameters:\n  x: {min: 0.0, max: 1.0}\n"
        "early_terminate: {type: hyperband, min_iter: 2, eta: 2}\n"
    )
    program = (
        "import time, wandb\nrun = wandb.init()\nfor i in range(9):\n"
        "    run.log({'other': 1})\n    run.log({'acc': run.config['x'] + i})\n"
        "    time.sleep(0.4)\n"
    )
    write(tmp_path, yaml, program)
    ended_well(sweep(tmp_path, "--workers=2"))
    metric = Metric(name="acc", goal="maximize")
    found = trials(tmp_path)
    values = {
        t["run_name"]: [float(r["acc"]) for r in rows(tmp_path, t["run_name"]) if r["acc"]]
        for t in found
    }
    stopped = [trial for trial in found if trial["state"] == "stopped"]
    assert stopped
    assert {t["state"] for t in found} <= {"stopped", "finished"}
    for trial in stopped:
        reason = json.loads(trial["stop_reason"])
        assert reason["value"] == values[trial["run_name"]][reason["band"] - 1]
        at_band = [costs_of(v, metric)[reason["band"] - 1] for v in values.values()
                   if len(v) >= reason["band"]]  # fmt: skip
        assert -reason["threshold"] in at_band
        assert reason["value"] < reason["threshold"]
    best = max(found, key=lambda trial: float(trial["x"]))
    assert best["state"] == "finished"


def test_fifty_thousand_steps_with_nested_keys_and_pictures(tmp_path: Path) -> None:
    program = (
        "import numpy as np, wandb\nrun = wandb.init()\nfor i in range(50_000):\n"
        "    row = {'loss': 1 / (i + 1), 'a': {'b': i, 'c': {'d': -i}}}\n"
        "    if i % 10_000 == 0:\n"
        "        row['image'] = wandb.Image(np.zeros((4, 4, 3), np.uint8))\n"
        "    run.log(row)\n"
    )
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    ended_well(sweep(tmp_path))
    assert trials(tmp_path)[0]["epochs_run"] == "50000"
    assert float(trials(tmp_path)[0]["value"]) == 1 / 50_000
    (trial,) = optuna.load_study(
        study_name="s", storage=f"sqlite:///{tmp_path}/outputs/sweeps/s/optuna.db"
    ).trials
    assert len(trial.intermediate_values) == 1001
    assert trial.intermediate_values[49_950] == 1 / 49_951
    table = rows(tmp_path, "s-00000")
    assert table[-1] == {"epoch": "49999", "loss": "2e-05", "a.b": "49999.0", "a.c.d": "-49999.0"}


def test_dry_run_shows_commands_without_secrets(tmp_path: Path) -> None:
    yaml = GRID + 'command: [python, "${program}", "--key=${envvar:SECRET}", "${args}"]\n'
    write(tmp_path, yaml, "")
    done = sweep(tmp_path, "--dry_run", SECRET="token-123", WANDB_API_KEY="x" * 40)
    assert done.stdout.splitlines()[:2] == [
        "python p.py '--key=***' --x=3",
        "python p.py '--key=***' --x=1",
    ]
    assert "WANDB_MODE=offline" in done.stdout
    assert "token-123" not in done.stdout
    assert "x" * 40 not in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_the_summary_counts_when_nothing_was_logged(tmp_path: Path, method: str) -> None:
    yaml = (
        f"method: {method}\nrun_cap: 3\nmetric: {{name: loss}}\nprogram: p.py\n"
        "parameters:\n  x: {min: 0.0, max: 1.0}\n"
    )
    program = (
        "import wandb\nrun = wandb.init()\nrun.log({'a': 1})\n"
        "run.summary['loss'] = run.config['x']\n"
    )
    write(tmp_path, yaml, program)
    ended_well(sweep(tmp_path))
    assert all(float(t["value"]) == float(t["x"]) for t in trials(tmp_path))
    assert (tmp_path / "outputs/sweeps/s/optuna.db").exists()


def test_upload_hands_each_run_to_wandb_sync_once_without_the_sweep(tmp_path: Path) -> None:
    program = (
        "import numpy as np, wandb\nrun = wandb.init()\nfor step in range(3):\n"
        "    picture = wandb.Image(np.zeros((2, 2, 3), dtype=np.uint8))\n"
        "    run.log({'loss': run.config['x'] + step, 'text': 'a' * 40_000, 'picture': picture})\n"
    )
    write(tmp_path, GRID, program)
    ended_well(sweep(tmp_path))
    with WandbServer() as server:
        server.knows_sweeps_only = True
        access = {"WB_KEY": server.key, "WB_PROJECT": "places", "WB_USER": server.entity}
        settings = env(**server.environment(tmp_path / "home"), **access)

        def upload() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "deep_cnn", "upload"],
                cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip

        broken = server.fault("file_stream", 400)
        failed = upload()
        assert failed.returncode == 1
        assert failed.stdout.count("failed: wandb sync: an upload broke off") == 3, failed.stdout
        broken.lift()
        ended_well(upload())
        runs = sorted(server.runs.values(), key=lambda run: int(run.config["x"]))
        assert [(run.config["x"], run.sweep, run.group, run.project) for run in runs] == [
            (x, None, "s", "places") for x in (1, 2, 3)
        ]
        for run in runs:
            assert [row["loss"] for row in run.history] == [run.config["x"] + i for i in range(3)]
            assert sum(name.startswith("media/images") for name in run.files) == 3
        before = len(server.requests)
        ended_well(upload())
        assert not [line for line in server.requests[before:] if "Upsert" in line]
    offline = list((tmp_path / "outputs/wandb").glob("offline-run-*/*.wandb"))
    assert len(offline) == 3
    assert all(path.with_name(f"{path.name}.synced").exists() for path in offline)
    assert not (tmp_path / "outputs/wandb/copies").exists()
    assert result(tmp_path, "s-00000")["unsynced"] == []


@pytest.mark.parametrize("is_in_file", [True, False])
def test_repeats_give_the_best_new_seeds(tmp_path: Path, is_in_file: bool) -> None:
    name = "seed" if is_in_file else "random_state"
    yaml = GRID + ("  seed: {values: [4, 7]}\n" if is_in_file else "")
    program = (
        "import sys\na = dict(word[2:].split('=') for word in sys.argv[1:])\n"
        f"print('loss=%r' % (float(a['x']) + int(a.get('{name}', 0)) / 1000))\n"
    )
    write(tmp_path, yaml, program)
    words = () if is_in_file else (f"--seed_parameter={name}",)
    done = sweep(tmp_path, "--repeats=3", "--top=2", *words)
    ended_well(done)
    with (tmp_path / "outputs/sweeps/s/repeats.csv").open(newline="") as file:
        repeats = [(row["seed"], float(row["value"])) for row in csv.DictReader(file)]
    seeds = (8, 9, 10) if is_in_file else (1, 2, 3)
    assert repeats == [(str(seed), x + seed / 1000) for x in (1, 2) for seed in seeds]
    assert "interval -1 to -1" in done.stdout


def test_repeats_of_a_program_need_the_name_of_its_seed(tmp_path: Path) -> None:
    write(tmp_path, GRID, "print('loss=1')")
    for words, expected in (
        (("--repeats=2",), "add --seed_parameter=NAME"),
        (("--refit=True",), "--refit trains deep_cnn"),
    ):
        done = sweep(tmp_path, *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert expected in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_earlier_attempts_are_set_aside_wherever_the_program_keeps_them(tmp_path: Path) -> None:
    program = (
        "import os, sys, wandb\nos.makedirs('mine', exist_ok=True)\n"
        "run = wandb.init(dir=os.path.abspath('mine'))\nrun.log({'loss': 5})\nrun.finish()\n"
        "sys.exit(0 if os.environ['DEEP_CNN_ATTEMPT'] == '2' else 1)\n"
    )
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    ended_well(sweep(tmp_path, "--retries=2"))
    assert result(tmp_path, "s-00000")["best"]["value"] == 5.0
    assert len(list((tmp_path / "mine/wandb").glob("offline-run-*"))) == 1
    assert len(list((tmp_path / "mine/wandb/superseded").iterdir())) == 2


def test_runs_go_online_with_the_account_of_the_user_if_asked(tmp_path: Path) -> None:
    write(tmp_path, GRID, OF_WANDB)
    refused = sweep(tmp_path, "--wandb=True")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
    assert "WB_KEY" in refused.stderr
    with WandbServer() as server:
        server.knows_sweeps_only = True
        account = {"WB_KEY": server.key, "WB_PROJECT": "places", "WB_USER": server.entity}
        settings = {**server.environment(tmp_path / "home"), **account}
        shown = sweep(tmp_path, "--wandb=True", "--dry_run", **settings)
        ended_well(shown)
        assert server.key not in shown.stdout + shown.stderr
        ended_well(sweep(tmp_path, "--wandb=True", **settings))
        runs = [
            (run.config["x"], run.sweep, run.group, run.project) for run in server.runs.values()
        ]
        assert runs == [(x, None, "s", "places") for x in (3, 1, 2)]
        assert [result(tmp_path, f"s-{i:05d}")["unsynced"] for i in range(3)] == [[]] * 3
        assert all(len(run.history) == 4 for run in server.runs.values())
        key = server.key.encode()
    assert [float(trial["value"]) for trial in trials(tmp_path)] == [3.25, 1.25, 2.25]
    outputs = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert not [path for path in outputs if key in path.read_bytes()]


def test_upload_completes_an_online_run_whose_program_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, time, wandb\nrun = wandb.init()\nrun.log({'loss': 1})\n"
        "run.log({'loss': 2})\ntime.sleep(1)\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    write(tmp_path, GRID.replace("[3, 1, 2]", "[3]"), program)
    with WandbServer() as server:
        server.knows_sweeps_only = True
        account = {"WB_KEY": server.key, "WB_PROJECT": "places", "WB_USER": server.entity}
        settings = env(**server.environment(tmp_path / "home"), **account)
        done = sweep(tmp_path, "--wandb=True", "--retries=0", **settings)
        assert done.returncode == 1
        upload = subprocess.run(
            [sys.executable, "-m", "deep_cnn", "upload"],
            cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        ended_well(upload)
        assert "uploaded with wandb sync" in upload.stdout
        (run,) = server.runs.values()
        assert [row["loss"] for row in run.history] == [1, 2]

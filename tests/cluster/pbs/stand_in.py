"""A stand-in for PBS Pro, as its User's Guide documents it: qsub, qstat and qdel on one machine.

`qsub` reads the directives, records its command line and its environment in $PBS_STAND_IN, prints
the id and returns. The jobs run in the background: in the home folder, with the environment of a
login and PBS's own variables, and never with that of `qsub` unless -V asks for it. At the walltime
every process of the job gets SIGTERM, and ten seconds later SIGKILL; qdel does the same.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

STATE = Path(os.environ["PBS_STAND_IN"])
KILL_DELAY = 10
SERVER = "pbs.example"
# The letters of options with a value, and of those without one.
VALUES, FLAGS = "aAceIJjklmMNopPqrSuvW", "fhIVXz"


def refuse(text: str) -> None:
    print(f"qsub: {text}", file=sys.stderr)
    sys.exit(1)


def directives(script: str) -> dict[str, list[str]]:
    """The options of the #PBS lines before the first command."""
    options: dict[str, list[str]] = {}
    for line in script.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("#PBS "):
            continue
        words = shlex.split(line[5:])
        while words:
            word = words.pop(0)
            letter, rest = word[1:2], word[2:]
            if word[:1] != "-" or letter not in VALUES + FLAGS:
                refuse(f"directive error: {word}")
            value = "" if letter in FLAGS else rest or (words.pop(0) if words else "")
            options.setdefault(letter, []).append(value)
    return options


def check(options: dict[str, list[str]]) -> None:
    name = options.get("N", ["x"])[-1]
    if not re.fullmatch(r"[A-Za-z][\w.+-]{0,229}", name):
        refuse(f"illegal -N value: {name}")
    if "J" in options:
        match = re.fullmatch(r"(\d+)-(\d+)(:\d+)?(%\d+)?", options["J"][-1])
        if not match or int(match[1]) >= int(match[2]):
            refuse("illegal -J value")
    for value in options.get("l", []):
        for part in value.removeprefix("select=").split(":") if "select" in value else []:
            if not re.fullmatch(r"\d+|ncpus=\d+|ngpus=\d+|mem=\d+([kmgt]?b)|gpu_type=\w+", part):
                refuse(f"Illegal attribute or resource value: {part}")


def seconds(options: dict[str, list[str]]) -> float | None:
    for value in options.get("l", []):
        if value.startswith("walltime="):
            hours, minutes, rest = map(int, value[9:].split(":"))
            return hours * 3600 + minutes * 60 + rest
    return None


def qsub(args: list[str]) -> None:
    if len(args) < 1 or args[-1].startswith("-"):
        refuse("no script")
    script = Path(args[-1]).read_text()
    options = directives(script)
    if "-V" in args:
        options["V"] = [""]
    check(options)
    number = len(list(STATE.glob("*.json"))) + 1
    range_ = re.match(r"(\d+)-(\d+)(?:%(\d+))?", options.get("J", [""])[-1])
    indices = list(range(int(range_[1]), int(range_[2]) + 1)) if range_ else [None]
    job = f"{number}{'[]' if range_ else ''}.{SERVER}"
    record = {"job": job, "args": args, "options": options, "environ": dict(os.environ)}
    (STATE / f"{number}.json").write_text(json.dumps(record))
    (STATE / f"{number}.sh").write_text(script)
    print(job, flush=True)
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    most = int(range_[3]) if range_ and range_[3] else len(indices)
    with ThreadPoolExecutor(most) as pool:
        list(pool.map(lambda index: run(number, index, options), indices))
    (STATE / f"{number}.over").touch()


def run(number: int, index: int | None, options: dict[str, list[str]]) -> None:
    job = f"{number}.{SERVER}" if index is None else f"{number}[{index}].{SERVER}"
    if (STATE / f"{number}.deleted").exists():
        return
    environ = {k: os.environ[k] for k in ("HOME", "USER", "LOGNAME", "SHELL") if k in os.environ}
    environ |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "PBS_JOBID": job, "NCPUS": "1"}
    environ |= {"PBS_ENVIRONMENT": "PBS_BATCH", "PBS_O_WORKDIR": str(Path.cwd())}
    environ |= {k: v for k, v in os.environ.items() if k.startswith("DEEP_CNN_TEST")}
    if index is not None:
        environ |= {"PBS_ARRAY_INDEX": str(index), "PBS_ARRAY_ID": f"{number}[].{SERVER}"}
    if "V" in options:
        environ = dict(os.environ) | environ
    files = {letter: Path(options.get(letter, ["."])[-1]) for letter in "oe"}
    paths = {
        letter: path / f"{job}.{ending}" if path.is_dir() else path
        for (letter, path), ending in zip(files.items(), ("OU", "ER"), strict=True)
    }
    with paths["o"].open("wb") as out, paths["e"].open("wb") as err:
        process = subprocess.Popen(
            ["/bin/bash", str(STATE / f"{number}.sh")],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ,
            cwd=environ["HOME"], start_new_session=True,
        )  # fmt: skip
        (STATE / f"{job}.pid").write_text(str(process.pid))
        end = time.monotonic() + (seconds(options) or 1e9)
        while process.poll() is None and time.monotonic() < end:
            if (STATE / f"{number}.deleted").exists():
                break
            time.sleep(0.1)
        if process.poll() is None:
            signal_all(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILL_DELAY)
        signal_all(process.pid, signal.SIGKILL)
        (STATE / f"{job}.status").write_text(str(process.wait()))


def signal_all(session: int, number: int) -> None:
    """Signal every process of a session, as the MoM does."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(path.parent.name), number)
        except (OSError, ValueError):
            continue


def find(job: str, command: str) -> int:
    number = int(re.match(r"\d+", job)[0])  # type: ignore[index]
    if not (STATE / f"{number}.json").exists():
        print(f"{command}: Unknown Job Id {job}", file=sys.stderr)
        sys.exit(153)
    if (STATE / f"{number}.over").exists():
        print(f"{command}: {job} Job has finished", file=sys.stderr)
        sys.exit(35)
    return number


def qstat(args: list[str]) -> None:
    number = find(args[-1], "qstat")
    print("Job id            Name             User              Time Use S Queue")
    print("----------------  ---------------- ----------------  -------- - -----")
    jobs = sorted(STATE.glob(f"{number}*.pid"))
    for path in jobs if "-t" in args else jobs[:1]:
        state = "X" if path.with_suffix(".status").exists() else "R"
        print(f"{path.stem:<18}{'job':<17}{'user':<18}{'00:00:00':<9}{state} workq")


def qdel(args: list[str]) -> None:
    (STATE / f"{find(args[-1], 'qdel')}.deleted").touch()


if __name__ == "__main__":
    {"qsub": qsub, "qstat": qstat, "qdel": qdel}[sys.argv[1]](sys.argv[2:])

"""Write the script of a job for PBS Pro or for Slurm: pure functions from a request to a text."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deep_cnn.cluster.request import Environment, JobRequest
from deep_cnn.options import is_code
from deep_cnn.sweep.run.submitted import VARIABLE

# Older versions of PBS refuse longer names of jobs.
_LONGEST_PBS_NAME = 15
_MOST_REQUEUES = 20
# Slurm looks at its clock every 30 seconds: a shorter warning may come too late.
_SLURM_CLOCK = 45
_WITHOUT_KEY = """\
# Without a key, runs log offline; `python -m deep_cnn upload` on the login node sends them.
if [ -z "${{WB_KEY:-}}${{WANDB_API_KEY:-}}" ] &&
  ! grep -qsF {hosts} "${{NETRC:-$HOME/.netrc}}"; then
  export WANDB_MODE="${{WANDB_MODE:-offline}}"
fi"""
# {command} runs in the background, because the shell must get the signals: Slurm sends its warning
# to the shell alone, and if the shell ends before its child, nothing is saved.
_SLURM_RUN = """\
start={start}
touch "$start"
pid=
forward() {{
  signalled=yes
  [ -n "$pid" ] || exit "$2"
  kill -s "$1" "$pid" 2>/dev/null
}}
trap 'forward USR1 75' USR1
trap 'ended=yes; forward TERM 143' TERM
{command} &
pid=$!
signalled=yes
while [ -n "$signalled" ]; do
  signalled=
  wait "$pid"
  status=$?
done

# What was warned (75) or killed goes on in the same job, if trials are left and it saved something.
again=
if [ "$status" -eq 75 ] || [ "$status" -gt 128 ]; then
  again=$(find {progress} -newer "$start" \\( -name '*.done' -o -name '*.pt' \\) | head -n 1)
  [ {progress}/ended.json -nt "$start" ] && again=
fi
rm -f "$start"
if [ -n "$again" ] && [ -z "${{ended:-}}" ]; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
    echo "deep_cnn: status $status, the job is queued again" >&2
    # The number alone would be the whole array for one of its elements.
    own=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
    scontrol requeue "${{own:-$SLURM_JOB_ID}}"
  fi
fi
exit "$status\""""


def pbs_script(job: JobRequest) -> str:
    """Return the script for `qsub`."""
    select = f"select=1:ncpus={job.cpus}"
    if job.memory:
        select += f":mem={job.memory[0]}{job.memory[1].lower()}b"
    if job.gpus:
        select += f":ngpus={job.gpus}" + (f":gpu_type={job.gpu_type}" if job.gpu_type else "")
    options = [f"-N {_pbs_name(job.name)}", "-S /bin/bash", f"-l {select}"]
    if job.walltime:
        options.append(f"-l walltime={_clock(job.walltime)}")
    if job.jobs > 1:  # An array has at least two jobs.
        options.append(f"-J 0-{job.jobs - 1}{_limit(job)}")
    if job.queue:
        options.append(f"-q {job.queue}")
    # A folder: the two files of each job get its id as their name.
    options += [f"-{letter} {_quoted(f'{job.folder}/')}" for letter in "oe"]
    command = _command(job)
    if job.walltime:
        # PBS itself gives no warning: ten seconds after its SIGTERM it kills.
        warn = f"timeout --foreground --signal=USR1 --preserve-status $((walltime-{job.warning}))"
        run = f"walltime={job.walltime}\nexec {warn} {command}"
    else:
        run = f"exec {command}"
    return _script(job, "PBS", options, "$PBS_O_WORKDIR", run)


def slurm_script(job: JobRequest) -> str:
    """Return the script for `sbatch`."""
    # In the name of a file, Slurm replaces what follows a %.
    name = f"{job.folder}/{job.name}-".replace("%", "%%") + ("%A_%a" if job.jobs > 1 else "%j")
    options = [
        f"--job-name={_name(job.name)}",
        "--ntasks=1",
        f"--cpus-per-task={job.cpus}",
        f"--output={_quoted(f'{name}.out')}",
        f"--error={_quoted(f'{name}.err')}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{max(job.warning, _SLURM_CLOCK)}",
        "--export=NONE",
    ]
    if job.memory:
        options.append(f"--mem={job.memory[0]}{job.memory[1]}")
    if job.gpus:
        options.append(f"--gres=gpu:{f'{job.gpu_type}:' if job.gpu_type else ''}{job.gpus}")
    if job.walltime:
        options.append(f"--time={_clock(job.walltime)}")
    if job.jobs > 1:
        options.append(f"--array=0-{job.jobs - 1}{_limit(job)}")
    if job.queue:
        options.append(f"--partition={job.queue}")
    run = _SLURM_RUN.format(
        start=f"{shlex.quote(str(job.folder))}/.start.$SLURM_JOB_ID",
        command=_command(job),
        progress=shlex.quote(str(job.progress)),
        most=_MOST_REQUEUES,
    )
    return _script(job, "SBATCH", options, "$SLURM_SUBMIT_DIR", run)


SCRIPTS: Mapping[str, Callable[[JobRequest], str]] = {"pbs": pbs_script, "slurm": slurm_script}


def setup_script(models: str, modules: tuple[str, ...], torch_home: Path, root: Path | None) -> str:
    """Return the script that sets deep_cnn up on a login node, which has a network.

    Args:
        models: The networks whose weights are fetched, separated by commas.
        modules: The modules to load.
        torch_home: The folder for weights.
        root: The folder with the sources, or None if they are elsewhere.
    """
    source = shlex.quote(str(root)) if root else '"${1:?the folder or the wheel of deep_cnn}"'
    loads = [f"module load {name}" for name in modules]
    return "\n".join(
        [
            "#!/bin/bash -l",
            "# Set up deep_cnn on a login node, in this folder: bash environment.sh",
            "# DATA=places365 bash environment.sh also downloads Places365 (25 GB).",
            "set -e",
            *(loads or ["# module load python/3.11   # if the cluster has modules"]),
            "[ -d .venv ] || python3 -m venv .venv",
            "source .venv/bin/activate",
            f"pip install -e {source}" if root else f"pip install {source}",
            f"export TORCH_HOME={shlex.quote(str(torch_home))}",
            *([f"python -m deep_cnn fetch --model={shlex.quote(models)}"] if models else []),
            'if [ "${DATA:-}" = places365 ]; then',
            "  python -m deep_cnn fetch --data=places365 --data_dir=places365",
            "fi",
            "python -m deep_cnn --version",
        ]
    )


def _script(job: JobRequest, prefix: str, options: list[str], folder: str, run: str) -> str:
    lines = [
        "#!/bin/bash -l",
        *(f"#{prefix} {option}" for option in options),
        "# Written by `python -m deep_cnn submit`, which may be given again to run what is left.",
        "",
        f'cd "{folder}" || exit 2',
        *(f"module load {name} || exit 2" for name in job.modules),
        *_activate(job.environment),
        *(f"export {name}={shlex.quote(text)}" for name, text in job.variables.items()),
    ]
    if job.command[0] == "sweep":
        lines.append(f"export {VARIABLE}=1")
    if job.wandb_hosts:
        hosts = " ".join(f"-e {shlex.quote(host)}" for host in job.wandb_hosts)
        lines.append(_WITHOUT_KEY.format(hosts=hosts))
    if job.checkpoint:
        last = shlex.quote(str(job.checkpoint))
        # A checkpoint does not name the code of the user that it needs.
        code = [shlex.quote(word) for word in job.command if is_code(word.partition("=")[2])]
        lines += [
            f"set -- {shlex.join(job.command)}",
            "# The job may have been started before.",
            f"if [ -e {last} ]; then set -- {' '.join([f'--resume={last}', *code])}; fi",
        ]
    return "\n".join([*lines, "", run]) + "\n"


def _command(job: JobRequest) -> str:
    arguments = '"$@"' if job.checkpoint else shlex.join(job.command)
    return f"{job.environment.python} -m deep_cnn {arguments}"


def _activate(environment: Environment) -> Iterator[str]:
    """Yield the lines that make an environment the one of the shell."""
    prefix = shlex.quote(str(environment.prefix))
    if environment.kind == "conda" and environment.base:
        yield f"source {shlex.quote(str(environment.base))}/bin/activate {prefix} || exit 2"
    elif environment.kind == "venv":
        yield f"source {prefix}/bin/activate || exit 2"
    else:
        yield f'export PATH={prefix}/bin:"$PATH"'


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _pbs_name(text: str) -> str:
    """Return a name that every version of PBS accepts; it begins with a letter."""
    name = _name(text)
    return (name if name[0].isalpha() else f"j{name}")[:_LONGEST_PBS_NAME]


def _limit(job: JobRequest) -> str:
    return f"%{job.at_once}" if job.at_once else ""


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _quoted(path: str) -> str:
    """Return a path for a directive; both schedulers read quotes there."""
    return path if re.fullmatch(r"[\w./%+=,@-]+", path) else f'"{path}"'

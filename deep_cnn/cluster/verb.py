"""Run the verb submit: submit sweeps and runs, show and cancel their jobs."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import deep_cnn
from deep_cnn.argv import parse_run, parse_sweep_verb
from deep_cnn.cluster.request import (
    JobRequest,
    parse_jobs,
    parse_memory,
    parse_queue,
    parse_walltime,
    parse_word,
)
from deep_cnn.cluster.scheduler import Submission, note_submission, secret_in, submit_script
from deep_cnn.cluster.scripts import SCRIPTS, setup_script
from deep_cnn.cluster.status import cancel_jobs, list_of_jobs, show_status
from deep_cnn.cluster.surroundings import (
    find_environment,
    local_folder,
    passed_variables,
    torch_home,
)
from deep_cnn.cluster.wandb_sweep import sweep_on_server
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError, SpecError
from deep_cnn.files import RunFiles, numbered_names, safe_name, write_text
from deep_cnn.home import expand_user
from deep_cnn.names import MODELS, weights_name
from deep_cnn.options import OptionModel, option
from deep_cnn.resolve import resolve
from deep_cnn.streams import required_stdout
from deep_cnn.sweep.formatting import models_of
from deep_cnn.sweep.options import SharedSweepOptions, parse_sweep_options
from deep_cnn.sweep.programs import program_options
from deep_cnn.sweep.run.folder_io import FolderIO
from deep_cnn.sweep.run.identity import SweepRecord, continue_sweep
from deep_cnn.sweep.run.records import read_record
from deep_cnn.sweep.spec.parse import read_sweep
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.verbs import base_out, read_runnable
from deep_cnn.text import printable
from deep_cnn.tracking.access import access_of, hosts_of_keys, is_logged_in

_ANY_SWEEP = "ENTITY/PROJECT/SWEEP_ID"
# The options of a sweep that W&B's agent has, too.
_OF_AGENT = {"workers", "count"}


class SubmitOptions(SharedSweepOptions):
    """Options of the verb submit."""

    scheduler: str | None = option(None, "scheduler of the cluster", choices=tuple(SCRIPTS))
    jobs: str = option("1", "number of jobs; 8%4: at most four of eight at once")
    walltime: str | None = option(None, "longest duration HH:MM:SS; None: that of the cluster")
    gpus: int = option(0, "GPUs of each job", low=0)
    gpu_type: str | None = option(None, "type of GPU, as the cluster calls it")
    cpus: int = option(1, "cores of each job", low=1)
    mem: str | None = option(None, "memory of each job, such as 24gb; None: that of the cluster")
    queue: str | None = option(None, "queue (PBS) or partition (Slurm)")
    module: str | None = option(None, "module to load, such as cuda/12.4; may be given repeatedly")
    engine: str = option(
        "local", "local: trials from the shared folder; wandb: from W&B", choices=("local", "wandb")
    )
    dry_run: bool = option(False, "print the script, and submit nothing")
    environment: bool = option(False, "print a script that sets deep_cnn up on a login node")
    status: str | None = option(None, "sweep whose jobs and trials are shown")
    cancel: str | None = option(None, "sweep whose jobs are cancelled; it can be resumed")


OPTIONS: Mapping[str, type[OptionModel]] = {"submit": SubmitOptions}


def submit(argv: list[str]) -> int:
    """Submit a sweep to a cluster as one or several jobs, which share its trials.

    `submit ... -- --epochs=50 ...` submits one run. The same command again runs what is left of a
    sweep. Options of `sweep` and of a run apply to every trial.
    """
    words, run = _split(argv)
    options, files, _ = parse_sweep_verb(SubmitOptions, words)
    if files:  # What follows -- is for the sweep, too.
        words = [*words, *run]
        options, files, _ = parse_sweep_verb(SubmitOptions, words)
    if options.status or options.cancel:
        verb = show_status if options.status else cancel_jobs
        return verb(options.status or options.cancel or "", options.out_dir)
    if options.environment:
        with required_stdout():
            print(_setup(options, files))
        return 0
    if options.scheduler is None:
        raise ConfigError("submit needs --scheduler=pbs or --scheduler=slurm")
    job = _sweep_job(words) if files or not run else _run_job(options, run)
    return _submit(options, job)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after `--`; all --module become one, with commas."""
    index = argv.index("--") if "--" in argv else len(argv)
    words: list[str] = []
    modules: list[str] = []
    before = iter(argv[:index])
    for word in before:
        name, equals, value = word.partition("=")
        if name == "--module":
            modules.append(value if equals else next(before, ""))
        else:
            words.append(word)
    return [*words, *([f"--module={','.join(modules)}"] if modules else [])], argv[index + 1 :]


def _modules(options: SubmitOptions) -> tuple[str, ...]:
    return tuple(parse_word(name, "module") for name in (options.module or "").split(",") if name)


def _setup(options: SubmitOptions, files: list[str]) -> str:
    """Return the script for a login node; a sweep file says which networks it needs."""
    models = [TrainConfig.parse({}).model]
    if files:
        models = [name for name in models_of(read_sweep(Path(files[0]), {})) if name in MODELS]
    root = Path(deep_cnn.__file__).parent.parent
    sources = root if (root / "pyproject.toml").exists() else None
    return setup_script(",".join(models), _modules(options), torch_home(os.environ), sources)


def _sweep_job(argv: list[str]) -> JobRequest:
    """Return the job of a sweep."""
    file, options, constants = parse_sweep_options("submit", SubmitOptions, argv)
    shared = options.model_fields_set & SharedSweepOptions.table().keys()
    if options.engine == "wandb":
        return _agent_job(Path(file), options, shared | constants.keys())
    program, others = program_options(Path(file), options, constants)
    spec, out = read_runnable(Path(file), options, others)
    folder = out.absolute() / "sweeps" / safe_name(spec.name)
    path = folder / "sweep.json"
    continue_sweep(path, read_record(SweepRecord, FolderIO().read(path)), spec, options.seed)
    values = {name: getattr(options, name) for name in sorted(shared)} | dict(constants)
    command = ("sweep", file, "--pilot", *(f"--{k}={v}" for k, v in values.items()))
    uses_wandb = program.online
    if spec.runs_deep_cnn:
        uses_wandb = spec.config(first_points(spec, options.seed, 1)[0]).wandb is not False
    return _request(options, safe_name(spec.name), command, out, folder, uses_wandb=uses_wandb)


def _agent_job(file: Path, options: SubmitOptions, names: set[str]) -> JobRequest:
    """Return the job of agents of a sweep on W&B's server, which is created unless in a dry run."""
    for name in sorted(names - _OF_AGENT):
        raise ConfigError(f"--{name} does not apply to --engine=wandb; set it in {file}")
    spec = read_sweep(file, {})
    if not spec.runs_deep_cnn:
        raise SpecError(f"{file}: the command does not run deep_cnn; use: wandb agent")
    name, out = safe_name(spec.name), base_out(spec)
    rest = tuple(f"--{name}={getattr(options, name)}" for name in sorted(names))
    command = ("agent", _ANY_SWEEP, *rest)
    job = _request(options, name, command, out, out.absolute() / "models", uses_wandb=False)
    if options.dry_run:
        return job
    access = access_of(True, os.environ, needed_by="--engine=wandb")
    assert access is not None, "it is an error where W&B was asked for"
    if access.key is not None and not is_logged_in(os.environ):
        raise ConfigError(
            "--engine=wandb: the jobs would find no key, because the one of this shell stays here;"
            " run `wandb login`, which stores it for them"
        )
    path = sweep_on_server(access, spec, out.absolute() / "sweeps" / name)
    return replace(job, command=("agent", path, *rest))


def _run_job(options: SubmitOptions, run: list[str]) -> JobRequest:
    """Return the job of one run, which continues its checkpoint if the job starts again."""
    for name in options.model_fields_set & SharedSweepOptions.table().keys():
        raise ConfigError(f"--{name} belongs after --, beside the other options of the run")
    if options.jobs != "1":
        raise ConfigError("--jobs is for sweeps; one run is one job")
    values = parse_run(run)
    if "resume" in values or "test_net" in values:
        option = "resume" if "resume" in values else "test_net"
        checkpoint = Path(values[option])
        if not checkpoint.is_file():
            raise ConfigError(f"--{option}={checkpoint} is no file; name a checkpoint")
        out = checkpoint.absolute().parent
        out = out.parent if out.name == "models" else TrainConfig.parse(values).out_path
        name = safe_name(checkpoint.name.removesuffix(".pt"))
        return _request(options, name, tuple(run), out, checkpoint.absolute())
    config = resolve(TrainConfig.parse(values))
    weights = config.weights
    is_file = weights not in ("imagenet", "none") and weights_name(weights) is None
    if is_file and not expand_user(weights).is_file():
        raise ConfigError(f"--weights={weights} is no file; name a checkpoint or a state dict")
    wanted = config.run_name or f"{config.model.rpartition(':')[2]}-{datetime.now():%Y%m%d-%H%M%S}"
    names = numbered_names(safe_name(wanted))
    name = next(name for name in names if not RunFiles(config.out_path, name).exist())
    values = {**values, "run_name": name}
    command = tuple(f"--{k}={v}" for k, v in values.items())
    last = RunFiles(config.out_path.absolute(), name).last
    uses_wandb = config.wandb is not False
    job = _request(options, name, command, config.out_path, last, uses_wandb=uses_wandb)
    return replace(job, checkpoint=last)


def _request(
    options: SubmitOptions,
    name: str,
    command: tuple[str, ...],
    out: Path,
    progress: Path,
    *,
    uses_wandb: bool = True,
) -> JobRequest:
    """Return the request for a command with the options of `submit`."""
    jobs, at_once = parse_jobs(options.jobs)
    if options.gpu_type and not options.gpus:
        raise ConfigError("--gpu_type needs --gpus=1 or more")
    return JobRequest(
        name=name,
        command=command,
        folder=out.absolute() / "jobs",
        progress=progress,
        environment=find_environment(Path(sys.prefix), os.environ),
        jobs=jobs,
        at_once=at_once,
        walltime=parse_walltime(options.walltime) if options.walltime else None,
        gpus=options.gpus,
        gpu_type=parse_word(options.gpu_type, "gpu_type") if options.gpu_type else None,
        cpus=options.cpus,
        memory=parse_memory(options.mem) if options.mem else None,
        queue=parse_queue(options.queue) if options.queue else None,
        modules=_modules(options),
        variables=passed_variables(os.environ),
        wandb_hosts=tuple(sorted(hosts_of_keys(os.environ))) if uses_wandb else (),
    )


def _submit(options: SubmitOptions, job: JobRequest) -> int:
    """Print the script, or submit it and print the id of the job."""
    assert options.scheduler is not None, "it was asked for"
    out = job.folder.parent
    script = SCRIPTS[options.scheduler](job)
    if name := secret_in(script):
        raise ConfigError(f"the script would hold the value of {name}; remove it from the command")
    if printable(str(out)) != str(out) or {'"', "\\"} & set(str(out)):
        raise ConfigError(f"--out_dir={out} has characters that no script can hold; choose another")
    if reason := local_folder(out):
        text = f"--out_dir={out}: {reason}, where other machines do not see it; choose a shared one"
        print(printable(text), file=sys.stderr)
    keys = os.environ.get("WB_KEY") or os.environ.get("WANDB_API_KEY")
    if keys and job.command[0] != "agent" and not is_logged_in(os.environ):
        text = "the key stays on this machine; `wandb login` stores it for the jobs, which log"
        print(f"W&B: {text} offline without it", file=sys.stderr)
    if options.dry_run:
        with required_stdout():
            print(script, end="")
        return 0
    path = job.folder / f"{job.name}.{options.scheduler}"
    jobs = list_of_jobs(out, job.name, is_sweep=job.command[0] in ("sweep", "agent"))
    write_text(path, script)
    note_submission(jobs, None)  # Before the jobs start, because they look for it.
    number = submit_script(options.scheduler, path)
    note_submission(jobs, Submission(options.scheduler, number, job.jobs, options.retries))
    print(number)
    return 0

"""The scripts as text: directives, quoting, mistakes, and no secret; nothing is submitted."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deep_cnn.cluster.request import Environment, JobRequest
from deep_cnn.cluster.scripts import SCRIPTS, pbs_script, slurm_script
from deep_cnn.cluster.surroundings import find_environment, local_folder, passed_variables
from tests.cluster.common import SECRETS, submit, write_sweep
from tests.conftest import Command, environment

SWEEP = JobRequest(
    name="s",
    command=("sweep", "s.yaml", "--pilot"),
    folder=Path("/shared/me/outputs/jobs"),
    progress=Path("/shared/me/outputs/sweeps/s"),
    environment=Environment(Path("/shared/me/.venv"), "venv"),
)
LARGE = replace(
    SWEEP, jobs=8, at_once=4, walltime=86400, gpus=1, gpu_type="RTX6000", cpus=4, memory=(24, "G"),
    queue="gpu", modules=("cuda/12.4", "gcc"), variables={"TORCH_HOME": "/shared/me/torch"},
    wandb_hosts=("api.wandb.ai",),
)  # fmt: skip
# A name that is hostile wherever it is not quoted.
HOSTILE = "/sh ared/it's $(touch x)/`date`;&%a/outputs"
STRANGE = replace(
    LARGE, command=("sweep", f"{HOSTILE}/s.yaml", "--pilot"), folder=Path(HOSTILE) / "jobs",
    progress=Path(HOSTILE) / "sweeps/s", environment=Environment(Path(f"{HOSTILE}/.venv"), "venv"),
    variables={"TORCH_HOME": HOSTILE, "WANDB_NOTES": "two\nlines"},
)  # fmt: skip
CONDA = replace(
    SWEEP, environment=Environment(Path("/opt/conda/envs/x"), "conda", Path("/opt/conda"))
)
RUN = replace(
    SWEEP, command=("--epochs=50", "--run_name=a b"), checkpoint=Path(HOSTILE) / "models/a b.pt"
)


def directives(script: str, prefix: str) -> list[str]:
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash -l"
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    found = [line.removeprefix(f"#{prefix} ") for line in lines[:end] if f"#{prefix} " in line]
    assert all(f"#{prefix} " not in line for line in lines[end:]), "too late to be read"
    return found


def test_a_request_for_pbs() -> None:
    script = pbs_script(LARGE)
    assert directives(script, "PBS") == [
        "-N s",
        "-S /bin/bash",
        "-l select=1:ncpus=4:mem=24gb:ngpus=1:gpu_type=RTX6000",
        "-l walltime=24:00:00",
        "-J 0-7%4",
        "-q gpu",
        "-o /shared/me/outputs/jobs/",
        "-e /shared/me/outputs/jobs/",
    ]
    lines = script.splitlines()
    order = [
        'cd "$PBS_O_WORKDIR" || exit 2',
        "module load cuda/12.4 || exit 2",
        "module load gcc || exit 2",
        "source /shared/me/.venv/bin/activate || exit 2",
        "export TORCH_HOME=/shared/me/torch",
        "walltime=86400",
        "exec timeout --foreground --signal=USR1 --preserve-status $((walltime-300))"
        " python -m deep_cnn sweep s.yaml --pilot",
    ]
    assert [line for line in lines if line in order] == order
    assert lines[-1] == order[-1]


def test_a_request_for_slurm() -> None:
    script = slurm_script(LARGE)
    assert directives(script, "SBATCH") == [
        "--job-name=s",
        "--ntasks=1",
        "--cpus-per-task=4",
        "--output=/shared/me/outputs/jobs/s-%A_%a.out",
        "--error=/shared/me/outputs/jobs/s-%A_%a.err",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@300",
        "--export=NONE",
        "--mem=24G",
        "--gres=gpu:RTX6000:1",
        "--time=24:00:00",
        "--array=0-7%4",
        "--partition=gpu",
    ]
    assert 'cd "$SLURM_SUBMIT_DIR" || exit 2' in script
    assert "python -m deep_cnn sweep s.yaml --pilot &" in script


def test_what_is_not_asked_for_is_left_out() -> None:
    pbs, slurm = pbs_script(SWEEP), slurm_script(SWEEP)
    assert "-l select=1:ncpus=1" in directives(pbs, "PBS")
    assert not any(
        word in pbs for word in ("walltime", "mem=", "ngpus", "-J", "#PBS -q", "timeout")
    )
    assert not any(f"--{word}" in slurm for word in ("mem", "gres", "time=", "array", "partition"))
    assert pbs.splitlines()[-1] == "exec python -m deep_cnn sweep s.yaml --pilot"


@pytest.mark.parametrize(
    ("walltime", "pbs", "slurm"), [(60, 30, 45), (600, 300, 300), (540, 270, 270)]
)
def test_a_short_walltime_has_a_short_warning(walltime: int, pbs: int, slurm: int) -> None:
    job = replace(SWEEP, walltime=walltime)
    assert f"$((walltime-{pbs}))" in pbs_script(job)
    assert f"--signal=B:USR1@{slurm}" in slurm_script(job)


@pytest.mark.parametrize("scheduler", SCRIPTS)
@pytest.mark.parametrize("job", [SWEEP, LARGE, STRANGE, CONDA, RUN])
def test_bash_can_read_every_script(scheduler: str, job: JobRequest) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=SCRIPTS[scheduler](job), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("scheduler", SCRIPTS)
def test_no_part_of_a_hostile_path_is_run(tmp_path: Path, scheduler: str) -> None:
    """The script runs to its command, which is a recording `python`."""
    prefix = tmp_path / "it's $(touch x) `touch x`;&"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/activate").write_text(f"PATH={str(tmp_path / 'bin')!r}:$PATH\n")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@" "$TORCH_HOME" >recorded\n')
    python.chmod(0o755)
    job = replace(STRANGE, modules=(), environment=Environment(prefix, "venv"))
    script = tmp_path / "script"
    script.write_text(SCRIPTS[scheduler](job))
    env = environment(PBS_O_WORKDIR=str(tmp_path), SLURM_SUBMIT_DIR=str(tmp_path))
    subprocess.run(["bash", str(script)], cwd=tmp_path, env=env, check=True, capture_output=True)
    recorded = (tmp_path / "recorded").read_text().splitlines()
    assert recorded == ["-m", "deep_cnn", *STRANGE.command, HOSTILE]
    assert not list(tmp_path.rglob("x"))


def test_the_names_of_jobs_are_legal() -> None:
    assert "-N j1_2-a" in directives(pbs_script(replace(SWEEP, name="1=2-a")), "PBS")
    assert "-N a_very_long_nam" in directives(
        pbs_script(replace(SWEEP, name="a_very_long_name")), "PBS"
    )


def test_the_environment_is_found_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    found = find_environment(tmp_path, {"CONDA_EXE": "/opt/conda/bin/conda"})
    assert (found.kind, found.base) == ("conda", Path("/opt/conda"))
    script = pbs_script(replace(SWEEP, environment=found))
    assert f"source /opt/conda/bin/activate {tmp_path} || exit 2" in script
    (tmp_path / "conda-meta").rmdir()
    assert find_environment(tmp_path, {}).kind == "system"
    assert f'export PATH={tmp_path}/bin:"$PATH"' in pbs_script(
        replace(SWEEP, environment=find_environment(tmp_path, {}))
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/activate").touch()
    (tmp_path / "pyvenv.cfg").touch()
    assert find_environment(tmp_path, {}).kind == "venv"


def test_only_named_variables_are_passed_on() -> None:
    given = {**SECRETS, "WB_PROJECT": "p", "OTHER": "x", "TORCH_HOME": "/t",
             "WANDB_BASE_URL": "https://me:password@host"}  # fmt: skip
    assert passed_variables(given) == {"TORCH_HOME": "/t", "WB_PROJECT": "p"}
    assert passed_variables({"XDG_CACHE_HOME": "/c"})["TORCH_HOME"] == "/c/torch"


def test_a_folder_of_one_machine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_folder(Path("/tmp/outputs")) == "it is in /tmp"
    assert local_folder(Path("/dev/shm/x")) == "it is in /dev/shm"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert local_folder(tmp_path / "a") is not None
    assert local_folder(Path("/usr/outputs")) is None


def test_a_dry_run_prints_the_script_and_leaves_nothing(tmp_path: Path, deep_cnn: Command) -> None:
    write_sweep(tmp_path)
    for scheduler in SCRIPTS:
        done = deep_cnn(
            "submit", "s.yaml", f"--scheduler={scheduler}", "--jobs=4", "--retries=3", "--refit",
            "--", "--batch_size=8", "--repeats=3", "--dry_run", **SECRETS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (
            "sweep s.yaml --pilot --refit=True --repeats=3 --retries=3 --batch_size=8"
            in done.stdout
        )
        assert done.stdout.startswith("#!/bin/bash -l\n")
        assert done.stderr.count("where other machines do not see it") == 1
        assert not any(value in done.stdout + done.stderr for value in SECRETS.values())
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("words", [("-h",), ("s.yaml", "--scheduler=pbs", "--dry_run")])
def test_the_help_and_a_dry_run_import_no_torch(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_sweep(tmp_path)
    code = (
        "import sys; from deep_cnn.cli import main; status = main(['submit', *sys.argv[1:]]);"
        " assert not {'torch', 'pandas', 'wandb'} & set(sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_script_for_one_run(deep_cnn: Command) -> None:
    done = deep_cnn("submit", "--scheduler=pbs", "--dry_run", "--", "--epochs=50", "--run_name=a")
    assert done.returncode == 0, done.stderr
    assert "set -- --epochs=50 --run_name=a\n" in done.stdout
    assert 'exec python -m deep_cnn "$@"\n' in done.stdout
    assert "DEEP_CNN_SUBMITTED" not in done.stdout


def test_the_script_for_a_login_node(tmp_path: Path, deep_cnn: Command) -> None:
    write_sweep(tmp_path)
    text = (tmp_path / "s.yaml").read_text()
    models = "parameters:\n  model: {values: [resnet18, resnet50]}\n"
    (tmp_path / "s.yaml").write_text(text.replace("parameters:\n", models))
    done = deep_cnn("submit", "s.yaml", "--environment", "--module=python/3.11")
    assert done.returncode == 0, done.stderr
    for part in ("module load python/3.11", "python3 -m venv .venv", "pip install -e",
                 "fetch --model=resnet18,resnet50", "fetch --data=places365"):  # fmt: skip
        assert part in done.stdout
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s.yaml",), "submit needs --scheduler=pbs or --scheduler=slurm"),
        (("s.yaml", "--scheduler=lsf"), "--scheduler=lsf is unknown"),
        (("s.yaml", "--scheduler=pbs", "--walltime=1h"), "--walltime=1h is not HH:MM:SS"),
        (("s.yaml", "--scheduler=pbs", "--walltime=00:00:00"), "is not HH:MM:SS"),
        (("s.yaml", "--scheduler=pbs", "--mem=24"), "--mem=24 is not a whole number with a unit"),
        (("s.yaml", "--scheduler=pbs", "--jobs=0"), "--jobs=0 is not a number of jobs"),
        (("s.yaml", "--scheduler=pbs", "--queue=a b"), "--queue=a b is no name"),
        (("s.yaml", "--scheduler=pbs", "--module=a;rm"), "--module=a;rm is no name"),
        (("s.yaml", "--scheduler=pbs", "--gpu_type=x"), "--gpu_type needs --gpus=1"),
        (("missing.yaml", "--scheduler=pbs"), "missing.yaml cannot be read"),
        (("s.yaml", "t.yaml", "--scheduler=pbs"), "submit takes one sweep, not 2"),
        (("--scheduler=pbs",), "submit takes one sweep, not 0"),
        (("s.yaml", "--scheduler=pbs", "--walltim=1"), "did you mean walltime?"),
        (("--scheduler=pbs", "--jobs=2", "--", "--epochs=1"), "one run is one job"),
        (("--scheduler=pbs", "--", "--epoch=1"), "did you mean epochs?"),
        (("--scheduler=pbs", "--seed=1", "--", "--epochs=1"), "--seed belongs after --"),
        (("s.yaml", "--scheduler=pbs", "--engine=wandb", "--refit"), "does not apply"),
        (("s.yaml", "--scheduler=pbs", "--engine=wandb"), "--engine=wandb needs W&B"),
        (("--scheduler=pbs", "--", "--resume=no.pt"), "--resume=no.pt is no file"),
        (("--scheduler=pbs", "--", "--task=digits", "--weights=no.pt"), "--weights=no.pt is no"),
        (("--status",), "as in --status=STATUS"),
        (("--status", "other"), "has no jobs of 'other'"),
        (("--cancel", "other"), "has no jobs of 'other'"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, here: Command, words: tuple[str, ...], message: str
) -> None:
    write_sweep(tmp_path)
    done = here("submit", *words, HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_secret_on_the_command_line_is_refused(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    key = SECRETS["WB_KEY"]
    done = submit(tmp_path, "s.yaml", "--scheduler=pbs", f"--queue={key}", WB_KEY=key)
    assert done.returncode == 2
    assert "the script would hold the value of WB_KEY" in done.stderr
    assert key not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_machine_without_the_scheduler_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    done = submit(tmp_path, "s.yaml", "--scheduler=pbs", PATH="/nowhere")
    assert done.returncode == 2
    assert "qsub is not on this machine" in done.stderr
    (tmp_path / "outputs/sweeps/s/submitted.csv").write_text(
        "scheduler,job,jobs,retries\npbs,7.server,2,1\n,,\npbs,8.server\nlsf,9,1,1\n"
    )
    shown = submit(tmp_path, "--status", "s", PATH="/nowhere")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0] == "pbs 7.server, 2 jobs:"
    assert "qstat is not on this machine" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "s: 0 trials"

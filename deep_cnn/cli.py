"""Run the command line: verbs, help, one-line errors and exit statuses."""

import argparse
import inspect
import os
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from itertools import groupby
from pathlib import Path

from deep_cnn import __version__
from deep_cnn.argv import is_arguments, parse_run
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError, DeepCnnError, choose_from
from deep_cnn.home import ensure_home
from deep_cnn.names import MODELS, TASKS
from deep_cnn.options import Option
from deep_cnn.resolve import resolve
from deep_cnn.results import RunResult, SweepTrial, assigned_trial
from deep_cnn.streams import protect_streams, required_stdout
from deep_cnn.text import first_line, printable
from deep_cnn.training.stop import Signals

_USAGE = """usage: python -m deep_cnn [--option=value ...]

Fine-tune a pretrained network to predict how people perceive pictures.

  python -m deep_cnn --epochs=1                            train on the bundled sample
  python -m deep_cnn --data_dir=FOLDER --run_name=first    train on your pictures
  python -m deep_cnn --data_dir=FOLDER --dry_run           describe the data without training
  python -m deep_cnn --resume=outputs/models/first.pt      resume a run
  python -m deep_cnn --test_net=outputs/models/first.pt    evaluate a finished run on the test split
  python -m deep_cnn predict outputs/models/first.best.pt FOLDER --out=scores.csv
                                                           predict the scores of new pictures
  python -m deep_cnn check sweeps/lr.yaml                  report every error in a W&B sweep file
  python -m deep_cnn sample sweeps/lr.yaml -n 50           draw configurations without training
  python -m deep_cnn sweep sweeps/lr.yaml --workers=2      run a sweep; the same again resumes it
  python -m deep_cnn agent ENTITY/PROJECT/SWEEP_ID         run trials of a sweep on wandb.ai
  python -m deep_cnn submit sweeps/lr.yaml --jobs=4 ...    run a sweep on a PBS or Slurm cluster
  python -m deep_cnn report outputs                        list the runs, best first
  python -m deep_cnn upload outputs                        send to W&B what it lacks of the runs
  python -m deep_cnn fetch --model=resnet50                download weights to use offline
"""
# The function of each verb is in this module, and has the verb's name.
_VERBS = {
    **dict.fromkeys(("check", "sample", "sweep", "agent"), "deep_cnn.sweep.verbs"),
    "report": "deep_cnn.report.verb",
    "fetch": "deep_cnn.fetch",
    "submit": "deep_cnn.cluster.verb",
    "upload": "deep_cnn.upload",
    **dict.fromkeys(("predict", "export"), "deep_cnn.inference.verbs"),
}
# What these print is their result.
_PRINTING = ("check", "sample", "report", "upload", "predict", "export")
_POSITIONALS = {
    "agent": "ENTITY/PROJECT/SWEEP_ID",
    "report": "[PATH ...]",
    "fetch": "",
    "submit": "[FILE]",
    "upload": "[PATH|RUN ...]",
    "predict": "CHECKPOINT [CHECKPOINT ...] PICTURES",
    "export": "CHECKPOINT",
}
_WIDTH, _INDENT = 100, 22
# The options that the tutorial explains, in its order.
_FIRST = (
    "epochs", "batch_size", "model", "pre", "root_dir", "lr", "run_name", "data_dir", "wandb",
)  # fmt: skip
_METAVARS = {int: "N", float: "X", bool: "True|False", str: "TEXT"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    protect_streams()
    ensure_home()
    try:
        return _dispatch(argv)
    except DeepCnnError as error:
        print(f"deep_cnn: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("deep_cnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # Whoever reads our output, `head` say, has enough.
        return 1
    except Exception as error:
        if os.environ.get("DEEP_CNN_DEBUG"):
            raise
        text = printable(f"{type(error).__name__}: {first_line(error) if str(error) else ''}")
        way = "internal error, please report it (set DEEP_CNN_DEBUG=1 for the traceback)"
        print(f"deep_cnn: {text} - {way}", file=sys.stderr)
        return 1


def _dispatch(argv: list[str]) -> int:
    first = argv[0] if argv else "-"
    verb = None if first.startswith("-") or is_arguments(first) else first
    if assigned_trial() and verb not in _VERBS:
        verb = None  # Whatever W&B's agent makes of the sweep, its server must learn how it ends.
    if verb is not None and verb not in _VERBS:
        raise ConfigError(
            f"{verb!r} is an unknown verb; {choose_from(verb, _VERBS)}; without a verb, options"
            " such as --epochs=3 train a network"
        )
    is_version = verb is None and "--version" in argv
    has_help = bool({"-h", "--help"} & set(argv))
    with required_stdout() if is_version or has_help or verb in _PRINTING else nullcontext():
        if is_version:
            print(f"deep_cnn {__version__}")
        elif has_help:
            print(_verb_help(verb) if verb else _run_help())
        elif verb is not None:
            status: int = getattr(import_module(_VERBS[verb]), verb)(argv[1:])
            return status
        else:
            return _train(argv)
    return 0


def _train(argv: list[str]) -> int:
    """Train, resume or test, depending on the options."""
    sweep = assigned_trial()
    if sweep:
        return _end(_train_assigned(argv, sweep))
    options = parse_run(argv)
    if "resume" in options and "test_net" in options:
        raise ConfigError("--resume and --test_net are two commands; give one of them")
    if "test_net" in options:
        return _test(options)
    config = None if "resume" in options else resolve(TrainConfig.parse(options))
    with Signals() as signals:
        # torch takes seconds to import: check options first, and let Ctrl-C not break the import.
        from deep_cnn.progress import log_on
        from deep_cnn.tracking import open_tracker
        from deep_cnn.training.checkpoint import resumed_config
        from deep_cnn.training.fit import fit

        config = config or resumed_config(Path(options["resume"]), options)
        if config.dry_run:
            return _describe(config)
        with log_on(sys.stderr):
            return _end(fit(config, open_tracker(config), stop=signals))


def _train_assigned(argv: list[str], sweep: SweepTrial) -> RunResult:
    """Run what W&B's agent asks for, and report a failure to W&B's server."""
    from deep_cnn.progress import log_on  # Its library is not needed for -h.

    with Signals() as signals, log_on(sys.stderr):
        from deep_cnn.sweep.wandb_agent import wandb_trial

        options = {"words": shlex.join(argv)}
        try:
            options = parse_run(argv, from_agent=True)
            config = resolve(TrainConfig.parse(options))
        except DeepCnnError as error:
            wandb_trial.report_failure(options, sweep, str(error))
            raise
        return wandb_trial.run_assigned(config, sweep, signals)


def _test(options: Mapping[str, str]) -> int:
    """Evaluate a checkpoint on the test split, once."""
    from deep_cnn.progress import log_on
    from deep_cnn.training.checkpoint import resumed_config
    from deep_cnn.training.evaluate import format_intervals, look_at_test

    config = resumed_config(Path(options["test_net"]), options)
    if config.dry_run:
        return _describe(config)
    with log_on(sys.stderr):
        number, look = look_at_test(config)
    print("Test " + " ".join(f"{name}={value:.6g}" for name, value in look.metrics.items()))
    if (accuracy := look.metrics.get("accuracy_test")) is not None:
        right = round(accuracy * look.pictures)
        print(f"Test accuracy: {accuracy:.4f} ({right} of {look.pictures} pictures)")
    if number == 1:
        print(f"95 % intervals (bootstrap over {look.pictures} pictures):")
        print("\n".join(f"  {text}" for text in format_intervals(look)))
    else:
        print(f"This is look {number} at the test split by this run: {look.file}")
    return 0


def _describe(config: TrainConfig) -> int:
    """Describe the data without training."""
    from deep_cnn.progress import log_on
    from deep_cnn.training.dry_run import dry_run

    with required_stdout(), log_on(sys.stdout):
        for line in dry_run(config):
            print(printable(line))
    return 0


def _end(result: RunResult) -> int:
    """Print how the run ended, and return its exit status."""
    if result.signal is None:
        best = result.best
        text = f", best {best.metric}={best.value:.6g} at epoch {best.epoch}" if best else ""
        print(f"{result.run_name} {result.state}{text}")
    return result.exit_status


def _run_help() -> str:
    """Return the help of a run: the tutorial's options, the other groups, the list of models."""
    options = TrainConfig.table()
    first = [options[name] for name in _FIRST]
    text = [_USAGE, _section("the first options", first)]
    others = (option for option in options.values() if option not in first)
    text += [_section(group, each) for group, each in groupby(others, lambda each: each.group)]
    for name, task in TASKS.items():
        text.append(_section(f"task {name}: {task.summary}", task.table().values()))
    models = textwrap.fill(", ".join(MODELS), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*text, f"models:\n{models}"])


def _verb_help(verb: str) -> str:
    module = import_module(_VERBS[verb])
    usage = f"{_POSITIONALS.get(verb, 'FILE')} [--option=value ...]".strip()
    text = f"usage: python -m deep_cnn {verb} {usage}\n\n{inspect.getdoc(getattr(module, verb))}\n"
    return f"{text}\n{_section('options', module.OPTIONS[verb].table().values())}"


def _section(title: str, options: Iterable[Option]) -> str:
    formatter = argparse.HelpFormatter("", max_help_position=_INDENT, width=_WIDTH)
    formatter.start_section(title)
    for option in options:
        flags = [f"-{option.name}"] if len(option.name) == 1 else []
        flags.append(f"--{option.name}")
        text = f"{option.help} {_default(option)}".replace("%", "%%")
        action = argparse.Action(flags, option.name, help=text, metavar=_metavar(option))
        formatter.add_argument(action)
    formatter.end_section()
    return formatter.format_help()


def _metavar(option: Option) -> str:
    if option.choices and option.name != "model":
        return f"{{{','.join(option.choices)}}}"
    kind = "NAME" if option.name == "model" else _METAVARS[option.kind]
    return "|".join((kind, *option.sentinels))


def _default(option: Option) -> str:
    defaults = [str(option.default)]
    if option.group:
        for name, task in TASKS.items():
            if option.name in task.defaults:
                defaults.append(f"{name}: {task.defaults[option.name]}")
    return f"(default: {'; '.join(defaults)})"

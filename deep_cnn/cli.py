"""The command line: verbs, help, one-line errors and exit statuses."""

import io
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TextIO

from deep_cnn import __version__
from deep_cnn.argv import is_arguments, parse_run
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError, DeepCnnError, choose_from
from deep_cnn.help import run_help, verb_help
from deep_cnn.resolve import resolve
from deep_cnn.results import RunResult, SweepTrial, assigned_trial
from deep_cnn.training.stop import Signals

_LOGGER = logging.getLogger("deep_cnn")
_USAGE = """usage: python -m deep_cnn [--option=value ...]

Fine-tune a pretrained network to predict how people perceive pictures.

  python -m deep_cnn --epochs=1                            train on the bundled sample
  python -m deep_cnn --data_dir=FOLDER --run_name=first    train on your pictures
  python -m deep_cnn --data_dir=FOLDER --dry_run           describe the data without training
  python -m deep_cnn --resume=outputs/models/first.pt      resume a run
  python -m deep_cnn --test_net=outputs/models/first.pt    evaluate a finished run on the test split
  python -m deep_cnn check sweeps/lr.yaml                  report every error in a W&B sweep file
  python -m deep_cnn sample sweeps/lr.yaml -n 50           draw configurations without training
  python -m deep_cnn sweep sweeps/lr.yaml --workers=2      run a sweep here; repeat it to resume
  python -m deep_cnn agent ENTITY/PROJECT/SWEEP_ID         run trials of a sweep on W&B
  python -m deep_cnn report outputs                        list the runs, best first
  python -m deep_cnn fetch --model=resnet50                download weights to use offline
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # A name may hold what the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(argv)
    except DeepCnnError as error:
        print(f"deep_cnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deep_cnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # Whoever reads our output, `head` say, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("DEEP_CNN_DEBUG"):
            raise
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        way = "internal error, please report it (set DEEP_CNN_DEBUG=1 for the traceback)"
        print(f"deep_cnn: {text} - {way}", file=sys.stderr)
        return 1


def _dispatch(argv: list[str]) -> int:
    first = argv[0] if argv else "-"
    verb = None if first.startswith("-") or is_arguments(first) else first
    if assigned_trial() and verb not in VERBS:
        verb = None  # Whatever W&B's agent makes of the sweep, its server must learn how it ends.
    if verb is not None and verb not in VERBS:
        raise ConfigError(
            f"{verb!r} is an unknown verb; {choose_from(verb, VERBS)}; without a verb, options such"
            " as --epochs=3 train a network"
        )
    if verb is None and "--version" in argv:
        print(f"deep_cnn {__version__}")
        return 0
    if {"-h", "--help"} & set(argv):
        print(help_of(verb) if verb else run_help(_USAGE))
        return 0
    if verb is not None:
        module, function = VERBS[verb].split(":")
        status: int = getattr(import_module(module), function)(argv[1:])
        return status
    return _train(argv)


VERBS: Mapping[str, str] = {
    "check": "deep_cnn.sweep.verbs:check",
    "sample": "deep_cnn.sweep.verbs:sample",
    "sweep": "deep_cnn.sweep.verbs:sweep",
    "agent": "deep_cnn.sweep.verbs:agent",
    "report": "deep_cnn.report.verb:report",
    "fetch": "deep_cnn.fetch:fetch",
}
_POSITIONALS = {"agent": "ENTITY/PROJECT/SWEEP_ID", "report": "[PATH ...]", "fetch": ""}


def help_of(verb: str) -> str:
    """Return what `VERB -h` prints."""
    module = import_module(VERBS[verb].split(":")[0])
    usage = f"{_POSITIONALS.get(verb, 'FILE')} [--option=value ...]".strip()
    text = f"usage: python -m deep_cnn {verb} {usage}\n\n{getattr(module, verb).__doc__}\n"
    return verb_help(text, module.OPTIONS[verb].table())


def _train(argv: list[str]) -> int:
    """Train, resume or test, as the options say."""
    sweep = assigned_trial()
    if sweep:
        return _end(_train_assigned(argv, sweep))
    given = parse_run(argv)
    if "resume" in given and "test_net" in given:
        raise ConfigError("--resume and --test_net are two commands; give one of them")
    if "test_net" in given:
        return _test(given)
    config = None if "resume" in given else resolve(TrainConfig.parse(given))
    with Signals() as signals:
        # torch takes seconds, which a wrong option should not cost, and Ctrl-C should not tear.
        from deep_cnn.tracking import open_tracker
        from deep_cnn.training.checkpoint import resumed_config
        from deep_cnn.training.fit import fit

        config = config or resumed_config(Path(given["resume"]), given)
        if config.dry_run:
            return _describe(config)
        with _log_on(sys.stderr):
            return _end(fit(config, open_tracker(config), stop=signals))


def _train_assigned(argv: list[str], sweep: SweepTrial) -> RunResult:
    """Run what W&B's agent asks for; a failure is reported to its server, too."""
    with Signals() as signals:
        from deep_cnn.sweep.wandb_agent import wandb_trial

        with _log_on(sys.stderr):
            given: Mapping[str, str] = {"words": shlex.join(argv)}
            try:
                given = parse_run(argv, from_agent=True)
                config = resolve(TrainConfig.parse(given))
            except DeepCnnError as error:
                wandb_trial.report_failure(given, sweep, str(error))
                raise
            return wandb_trial.run_assigned(config, sweep, signals)


def _describe(config: TrainConfig) -> int:
    """Print what the data are, and train nothing."""
    from deep_cnn.tasks.describe_data import describe_data

    with _log_on(sys.stdout):
        for line in describe_data(config):
            print(line)
    return 0


def _end(result: RunResult) -> int:
    """Say how the run ended; its exit status."""
    if result.signal is not None:
        return result.exit_status
    best = result.best
    text = f", best {best.metric}={best.value:.6g} at epoch {best.epoch}" if best else ""
    print(f"{result.run_name} {result.state}{text}")
    return result.exit_status


def _test(given: Mapping[str, str]) -> int:
    """Evaluate a checkpoint on the test split, once."""
    from deep_cnn.training.checkpoint import resumed_config
    from deep_cnn.training.evaluate import test

    config = resumed_config(Path(given["test_net"]), given)
    if config.dry_run:
        return _describe(config)
    with _log_on(sys.stderr):
        metrics = test(config)
    print("Test " + " ".join(f"{name}={value:.6g}" for name, value in metrics.items()))
    return 0


@contextmanager
def _log_on(stream: TextIO) -> Iterator[None]:
    handler = logging.StreamHandler(stream)
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)

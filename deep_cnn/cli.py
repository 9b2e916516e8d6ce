"""The command line: verbs, help, one-line errors and exit statuses."""

import io
import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TextIO

from deep_cnn import names
from deep_cnn.config import TrainConfig, config_from, flags
from deep_cnn.errors import ConfigError, DeepCnnError, choose_from
from deep_cnn.flag import Flag
from deep_cnn.runs import RunResult, served_sweep
from deep_cnn.signals import Signals, exit_status
from deep_cnn.words import is_arguments, split_argv

_LOGGER = logging.getLogger("deep_cnn")
_CHOICES_BESIDE = 20
_USAGE = """usage: python -m deep_cnn [--flag=value ...]

Fine-tune a pretrained network to predict how people perceive pictures.

  python -m deep_cnn --epochs=1                            the bundled sample, the bundled weights
  python -m deep_cnn --data_dir=FOLDER --run_name=first    your pictures
  python -m deep_cnn --data_dir=FOLDER --dry_run           what is in it; trains nothing
  python -m deep_cnn --resume=outputs/models/first.pt      go on where it stopped
  python -m deep_cnn --test_net=outputs/models/first.pt    the one look at the test split
  python -m deep_cnn check sweeps/lr.yaml                  every fault of a W&B sweep file
  python -m deep_cnn sample sweeps/lr.yaml -n 50           configurations without training
  python -m deep_cnn sweep sweeps/lr.yaml --workers=2      the sweep, here; again = go on
  python -m deep_cnn agent ENTITY/PROJECT/SWEEP_ID         a sweep of W&B, in a warm process
  python -m deep_cnn report outputs                        the runs, best first
  python -m deep_cnn fetch --model=resnet50                weights, for nodes without a network
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # A name may hold what the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(words)
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
        where = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(
            f"deep_cnn: {where} - a fault of deep_cnn; DEEP_CNN_DEBUG=1 shows where, please report",
            file=sys.stderr,
        )
        return 1


def _dispatch(words: list[str]) -> int:
    first = words[0] if words else "-"
    verb = None if first.startswith("-") or is_arguments(first) else first
    if served_sweep() and verb not in VERBS:
        verb = None  # Whatever W&B's agent makes of the sweep, its server must learn how it ends.
    if verb is not None and verb not in VERBS:
        raise ConfigError(
            f"{verb!r} is neither a verb nor a flag; {choose_from(verb, VERBS)}; without one, flags"
            " such as --epochs=3 train"
        )
    if {"-h", "--help"} & set(words):
        print(verb_help(verb) if verb else help_text())
        return 0
    if verb is not None:
        module, function = VERBS[verb].split(":")
        status: int = getattr(import_module(module), function)(words[1:])
        return status
    return _train(words)


VERBS: Mapping[str, str] = {
    "check": "deep_cnn.sweep.command:check",
    "sample": "deep_cnn.sweep.command:sample",
    "sweep": "deep_cnn.sweep.command:sweep",
    "agent": "deep_cnn.sweep.command:agent",
    "report": "deep_cnn.report:report",
    "fetch": "deep_cnn.fetch:fetch",
}


def verb_help(verb: str) -> str:
    """What `VERB -h` prints."""
    module = import_module(VERBS[verb].split(":")[0])
    known = {"agent": "ENTITY/PROJECT/SWEEP_ID", "report": "[PATH ...]", "fetch": ""}
    what = f"{known.get(verb, 'FILE')} [--flag=value ...]".strip()
    lines = [f"usage: python -m deep_cnn {verb} {what}", ""]
    lines += [str(getattr(module, verb).__doc__), ""]
    return "\n".join(lines + [_help_line(flag) for flag in module.FLAGS[verb].values()])


def _train(words: list[str]) -> int:
    """Train, resume or test, as the flags say."""
    sweep = served_sweep()
    if sweep:
        return _end(_train_served(words, sweep))
    given = split_argv(words, flags())
    if "resume" in given and "test_net" in given:
        raise ConfigError("--resume and --test_net are two commands; give one of them")
    if "test_net" in given:
        return _test(given)
    config = None if "resume" in given else config_from(given)
    with Signals() as signals:
        # torch takes seconds, which a wrong flag should not cost, and Ctrl-C should not tear.
        from deep_cnn import resuming, training
        from deep_cnn.tracking import open_tracker

        config = config or resuming.resumed_config(Path(given["resume"]), given)
        if config.dry_run:
            return _describe(config)
        with _log_on(sys.stderr):
            return _end(training.fit(config, open_tracker(config), signalled=signals))


def _train_served(words: list[str], sweep: Mapping[str, str]) -> RunResult:
    """Run what W&B's agent asks for; what fails is told to its server, too."""
    with Signals() as signals:
        from deep_cnn.sweep import served

        with _log_on(sys.stderr):
            given: Mapping[str, str] = {"words": shlex.join(words)}
            try:
                given = split_argv(words, flags(), sweep=True)
                config = config_from(given)
            except DeepCnnError as error:
                served.report_failure(given, sweep, str(error))
                raise
            return served.run_served(config, sweep, signals)


def _describe(config: TrainConfig) -> int:
    """Print what the data are, and train nothing."""
    from deep_cnn.summary import describe

    with _log_on(sys.stdout):
        for line in describe(config):
            print(line)
    return 0


def _end(result: RunResult) -> int:
    """Say how the run ended; its exit status."""
    if result.signal is not None:
        return exit_status(result.signal)
    best = result.best
    text = f", best {best.metric}={best.value:.6g} at epoch {best.epoch}" if best else ""
    print(f"{result.run_name} {result.state}{text}")
    return 1 if result.state == "failed" else 0


def _test(given: Mapping[str, str]) -> int:
    """The one look at the test split."""
    from deep_cnn import resuming, testing

    config = resuming.resumed_config(Path(given["test_net"]), given)
    if config.dry_run:
        return _describe(config)
    with _log_on(sys.stderr):
        metrics = testing.test(config)
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


def help_text() -> str:
    """What -h prints: every flag in its group, with its default and its legal values."""
    lines = [_USAGE]
    groups: dict[str, dict[str, Flag]] = {}
    for task in names.TASKS:
        for flag in flags(task).values():
            groups.setdefault(flag.group, {})[flag.name] = flag
    for group, members in groups.items():
        title = f"task {group}: {names.TASKS[group].summary}" if group in names.TASKS else group
        lines.append(f"{title}:")
        lines += [_help_line(flag) for flag in members.values()]
        lines.append("")
    return "\n".join(lines)


def _help_line(flag: Flag) -> str:
    defaults = [str(flag.default)]
    defaults += [
        f"{task}: {known.defaults[flag.name]}"
        for task, known in names.TASKS.items()
        if flag.group and flag.name in known.defaults
    ]
    choices = f" {{{','.join(flag.choices)}}}" if flag.choices else ""
    text = f"  --{flag.name:<16}{flag.help}"
    default = f" (default: {'; '.join(defaults)})"
    if len(flag.choices) <= _CHOICES_BESIDE:
        return f"{text}{choices}{default}"
    listed = textwrap.indent(textwrap.fill(", ".join(flag.choices), 80), " " * 20)
    return f"{text}{default}, one of\n{listed}"

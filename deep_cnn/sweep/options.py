"""Declare and parse the options of the verbs check, sample, sweep and agent."""

from collections.abc import Mapping
from typing import TypeVar

from deep_cnn.argv import parse_sweep_verb
from deep_cnn.config import TrainConfig
from deep_cnn.errors import ConfigError
from deep_cnn.options import OptionModel, option
from deep_cnn.sweep.spec.deep_cnn_rules import NOT_SEARCHED


class CheckOptions(OptionModel):
    """Options of the verb check."""

    probe: bool = option(
        False, "run a few steps of the largest configuration to measure its time and memory"
    )


class SampleOptions(OptionModel):
    """Options of the verb sample."""

    n: int = option(10, "number of configurations", low=1)
    seed: int = option(0, "seed of the search", low=0)
    format: str = option("csv", "output format", choices=("csv", "commands", "json"))


class SharedSweepOptions(OptionModel):
    """Options of the verbs sweep and submit."""

    workers: int | None = option(
        None,
        "number of trials to run in parallel; None: chosen from the GPUs, cores and memory",
        low=1,
        high=1024,
    )
    seed: int = option(0, "seed of the search", low=0)
    retries: int = option(1, "number of times that a failed trial is tried again", low=0)
    count: int | None = option(
        None, "maximum number of trials; run_cap in the file also applies", low=1
    )
    repeats: int | None = option(
        None, "train the best configurations again with this many new seeds", low=2
    )
    seed_parameter: str | None = option(
        None, "parameter that is the seed of another program than deep_cnn; None: seed"
    )
    top: int = option(3, "number of best configurations that --repeats trains again", low=1)
    refit: bool = option(
        False, "train the best configuration on the training and validation pictures together"
    )
    out_dir: str | None = option(None, "folder for results; None: as in the sweep file")
    metric_file: str | None = option(
        None, "table in CSV that other programs write, such as 'log/$WANDB_RUN_ID.csv'"
    )
    keep: str = option("all", "checkpoints of finished trials to keep: all, none or best:N")


class SweepOptions(SharedSweepOptions):
    """Options of the verb sweep."""

    pilot: bool = option(
        False, "join a sweep that other processes run, without trying its failed trials again"
    )
    dry_run: bool = option(
        False, "print the first command lines and the environment of other programs than deep_cnn"
    )


class AgentOptions(OptionModel):
    """Options of the verb agent."""

    workers: int = option(1, "number of runs in parallel", low=1, high=1024)
    count: int | None = option(None, "maximum number of runs of this agent; None: no limit", low=1)


OPTIONS: Mapping[str, type[OptionModel]] = {
    "check": CheckOptions,
    "sample": SampleOptions,
    "sweep": SweepOptions,
    "agent": AgentOptions,
}


def checkpoints_to_keep(text: str) -> int | None:
    """Return how many of the best trials keep their checkpoint, or None for all."""
    if text == "all":
        return None
    number = "0" if text == "none" else text.removeprefix("best:")
    if number == text or not number.isdecimal() or (number == "0" and text != "none"):
        raise ConfigError(
            f"--keep={text} is not valid; choose from all, none, best:N (as in best:10)"
        )
    return int(number)


_Options = TypeVar("_Options", bound=OptionModel)


def parse_sweep_options(
    verb: str, model: type[_Options], argv: list[str]
) -> tuple[str, _Options, Mapping[str, str]]:
    """Return the sweep that a verb requires, its options, and options for every run."""
    options, sweeps, constants = parse_sweep_verb(model, argv)
    if len(sweeps) != 1:
        example = "ENTITY/PROJECT/SWEEP_ID" if verb == "agent" else "sweeps/lr.yaml"
        raise ConfigError(f"{verb} takes one sweep, not {len(sweeps)}: {verb} {example}")
    illegal = {**NOT_SEARCHED, "run_name": "names one run, and a sweep names its own; remove it"}
    for name in constants.keys() & illegal.keys():
        raise ConfigError(f"--{name} {illegal[name]}")
    TrainConfig.parse(constants)  # What is wrong in them is not a fault of the file.
    return sweeps[0], options, constants

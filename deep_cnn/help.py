"""Write what `-h` prints, from the table of options."""

import argparse
import textwrap
from collections.abc import Iterable, Mapping

from deep_cnn.config import TrainConfig
from deep_cnn.names import MODELS, TASKS
from deep_cnn.options import Option

_WIDTH, _INDENT = 100, 22
# What the tutorial explains, in its order.
_FIRST = (
    "epochs", "batch_size", "model", "pre", "root_dir", "lr", "run_name", "data_dir", "wandb",
)  # fmt: skip
_METAVARS = {int: "N", float: "X", bool: "True|False", str: "TEXT"}


def run_help(usage: str) -> str:
    """Return the help of a run: the tutorial's options, then groups, the list of models last."""
    options = TrainConfig.table()
    first = [options[name] for name in _FIRST]
    text = [usage, _section("the first options", first)]
    groups: dict[str, list[Option]] = {}
    for option in options.values():
        if option not in first:
            groups.setdefault(option.group, []).append(option)
    text += [_section(group, members) for group, members in groups.items()]
    for name, task in TASKS.items():
        text.append(_section(f"task {name}: {task.summary}", task.options.table().values()))
    models = textwrap.fill(", ".join(MODELS), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*text, f"models:\n{models}"])


def verb_help(usage: str, options: Mapping[str, Option]) -> str:
    """Return the help of a verb."""
    return "\n".join([usage, _section("options", options.values())])


def _section(title: str, options: Iterable[Option]) -> str:
    formatter = argparse.HelpFormatter("", max_help_position=_INDENT, width=_WIDTH)
    formatter.start_section(title)
    for option in options:
        names = [f"-{option.name}"] if len(option.name) == 1 else []
        text = f"{option.help} {_default(option)}".replace("%", "%%")
        formatter.add_argument(
            argparse.Action(
                [*names, f"--{option.name}"], option.name, help=text, metavar=_metavar(option)
            )
        )
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
        defaults += [
            f"{name}: {task.defaults[option.name]}"
            for name, task in TASKS.items()
            if option.name in task.defaults
        ]
    return f"(default: {'; '.join(defaults)})"

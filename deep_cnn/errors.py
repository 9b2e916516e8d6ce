"""Say what a user can mend: each error is one line with where, what and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class DeepCnnError(ValueError):
    """Something that the user can mend; the command line prints it and exits with status 2."""


class ConfigError(DeepCnnError):
    """A flag or a value that is not legal."""


class SpecError(DeepCnnError):
    """A sweep file with faults, a line each; or one that does not fit the sweep on disk."""


class DataError(DeepCnnError):
    """Pictures or labels that cannot be learned from."""


class WeightsError(DeepCnnError):
    """Pretrained weights that cannot be had or do not fit."""


class CheckpointError(DeepCnnError):
    """A checkpoint that cannot be read or does not fit."""


class OutputError(DeepCnnError):
    """A file that cannot be written: no permission, no space, no such folder."""


def choose_from(value: object, legal: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest legal one, then all of them."""
    names = sorted(legal)
    near = get_close_matches(str(value), names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}choose from {', '.join(names)}"


def nearest(name: object, legal: Iterable[str]) -> str:
    """As `choose_from`, but of many names the nearest one alone, where one is near."""
    said = choose_from(name, legal)
    return f"{said.partition('?')[0]}?" if said.startswith("did you mean") else said

"""Define the errors that a user can fix; each message is one line that says what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class DeepCnnError(ValueError):
    """An error that the user can fix; the command line prints it and exits with status 2.

    Attributes:
        option: The option that is wrong, if the error is about an option.
        exit_status: The exit status of a command that ends with the error.
    """

    exit_status = 2

    def __init__(self, text: str, *, option: str | None = None) -> None:
        super().__init__(text)
        self.option = option


class ConfigError(DeepCnnError):
    """An option or a value that is not legal."""


class SpecError(DeepCnnError):
    """A sweep file with errors, one line each, or one that does not fit the sweep on disk."""


class DataError(DeepCnnError):
    """Pictures or labels that cannot be learned from."""


class LoadingError(DeepCnnError):
    """Pictures that cannot be loaded for lack of memory or files, and may be loaded later."""

    exit_status = 1


class WeightsError(DeepCnnError):
    """Pretrained weights that are not available or do not fit."""


class CheckpointError(DeepCnnError):
    """A checkpoint that cannot be read or does not fit."""


class OutputError(DeepCnnError):
    """A file that cannot be written: no permission, no space, no such folder."""


def choose_from(value: object, legal: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest legal name, then all names."""
    names = sorted(legal)
    near = get_close_matches(str(value), names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}choose from {', '.join(names)}"


def nearest(name: object, legal: Iterable[str]) -> str:
    """Return the nearest legal name as a question, or all names if none is near."""
    text = choose_from(name, legal)
    return f"{text.partition('?')[0]}?" if text.startswith("did you mean") else text

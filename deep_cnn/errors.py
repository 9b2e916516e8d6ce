"""Define the errors that a user can fix; each message is one line that says what to do."""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

from deep_cnn.synonyms import SYNONYMS
from deep_cnn.text import printable


class DeepCnnError(ValueError):
    """An error that the user can fix; the command line prints it and exits with status 2.

    Attributes:
        option: The option that is wrong, if the error is about an option.
        exit_status: The exit status of a command that ends with the error.
    """

    exit_status = 2

    def __init__(self, *lines: str, option: str | None = None) -> None:
        # What a file or a command line holds reaches messages, with all of its characters.
        super().__init__("\n".join(map(printable, lines)))
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


# A longer list of names is no help.
_MOST_NAMES = 10
# Names below this similarity are not the same word, misspelled. Few mistype the first letter.
# Names with the same first word, such as loss_val and loss_train, may differ more.
_SIMILAR, _SIMILAR_INSIDE, _SIMILAR_START = 0.72, 0.85, 0.65
# The shortest part of a name that is recognised.
_SHORTEST_PART = 3


def choose_from(value: object, legal: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: a guess, and at most ten legal names.

    If there are more names, the most similar ones are listed.
    """
    names = sorted(legal)
    guess = _guess(str(value), names)
    question = f"did you mean {guess}? " if guess else ""
    listed = names if len(names) <= _MOST_NAMES else _most_similar(str(value), names)
    others = len(names) - len(listed)
    rest = f" or {others} others" if others else ""
    return f"{question}choose from {', '.join(listed)}{rest}"


def nearest(name: object, legal: Iterable[str]) -> str:
    """Return a guess as a question, or at most ten legal names if there is none."""
    text = choose_from(name, legal)
    return f"{text.partition('?')[0]}?" if text.startswith("did you mean") else text


def _guess(value: str, legal: Sequence[str]) -> str | None:
    """Return the legal name that is meant, or None if this is not clear."""
    plain, words = _plain(value), sorted(re.findall("[a-z0-9]+", value.lower()))
    by_plain = {_plain(name): name for name in legal}
    if plain in by_plain:  # As ResNet-18 for resnet18.
        return by_plain[plain]
    for name in legal:  # As val_loss for loss_val.
        if len(words) > 1 and sorted(name.split("_")) == words:
            return name
    for name in SYNONYMS.get(plain, ()):
        if name in legal:
            return name
    starts = [name for key, name in by_plain.items() if key.startswith(plain)]
    parts = starts or [name for key, name in by_plain.items() if plain in key]
    if len(plain) >= _SHORTEST_PART and len(parts) == 1:
        return parts[0]
    if len(starts) > 1:  # Several are meant, unless only one letter is missing.
        longer = [name for name in starts if len(_plain(name)) == len(plain) + 1]
        return longer[0] if len(longer) == 1 else None
    for similar in get_close_matches(plain, by_plain, n=_MOST_NAMES, cutoff=_SIMILAR):
        ratio = SequenceMatcher(None, plain, similar).ratio()
        if similar[0] == plain[0] or ratio >= _SIMILAR_INSIDE:
            return by_plain[similar]
    first = value.lower().partition("_")[0]
    similar_start = get_close_matches(
        value.lower(), [name for name in legal if name.startswith(f"{first}_")], 1, _SIMILAR_START
    )
    return similar_start[0] if similar_start else None


def _most_similar(value: str, names: Sequence[str]) -> list[str]:
    plain = _plain(value)
    parts = [name for name in names if plain and plain in _plain(name)]
    similar = get_close_matches(plain, names, n=_MOST_NAMES, cutoff=0)
    return sorted(list(dict.fromkeys([*parts, *similar]))[:_MOST_NAMES])


def _plain(name: str) -> str:
    """Return a name in lower case, without separators."""
    return "".join(char for char in name.lower() if char.isalnum())

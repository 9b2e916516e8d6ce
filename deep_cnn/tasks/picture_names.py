"""Find the files that the names in a table mean, whatever other programs did to the names."""

import html
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from deep_cnn.data.listing import list_pictures, names_in
from deep_cnn.errors import DataError
from deep_cnn.layout import SUFFIXES

_MOST_COMPARED = 20_000
# What word processors and spreadsheets make of quotes, dashes and spaces.
_TYPOGRAPHY = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212", "''\"\"------"
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_ROUNDED = re.compile(r"\d[.,]\d+E\+\d+", re.IGNORECASE)
_DATE = re.compile(r"\d{1,2}[-. /]+[^\W\d_]{3,9}\.?|[^\W\d_]{3,9}[-. ]\d{2,4}|(\d+[-./]){2}\d+")


def _slashes(text: str) -> str:
    return re.sub(r"/(\./)*/*", "/", text.replace("\\", "/")).removeprefix("./")


def _decoded(text: str) -> str:
    text = unquote(html.unescape(text)).removeprefix("file://")
    return re.sub(r"(\.\w{3,5})[?#].*$", r"\1", text)


def _repaired(text: str) -> str:
    """Return a text whose UTF-8 was read as Windows-1252, as ZÃ¼rich, as it was."""
    try:
        return unicodedata.normalize("NFC", text.encode("cp1252").decode("utf-8"))
    except UnicodeError:
        return text


def _without_suffix(text: str) -> str:
    return text[: text.rfind(".")] if text.lower().endswith(SUFFIXES) else text


def _plain_numbers(text: str) -> str:
    parts = []
    for part in text.split("/"):
        part = re.sub(r"^(\d+)[.,]0{1,2}$", r"\1", part)
        if re.fullmatch(r"\d(\.\d+)?e\+?\d{1,2}", part) and float(part).is_integer():
            part = str(int(float(part)))
        parts.append(re.sub(r"(?<![\d.])0+(?=\d)", "", part))
    return "/".join(parts)


# Each rule is applied to the names in the table and to those of the files, after those before it.
_RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("spaces or quotes", lambda t: " ".join(_INVISIBLE.sub("", t).strip("\"'` \t").split())),
    ("slashes", _slashes),
    ("URL encoding", _decoded),
    ("the Unicode form", lambda t: unicodedata.normalize("NFC", t).translate(_TYPOGRAPHY)),
    ("a damaged encoding", _repaired),
    ("upper and lower case", str.casefold),
    ("the suffix", _without_suffix),
    ("leading zeros or decimals", _plain_numbers),
    ("spaces and special characters", lambda t: re.sub(r'[\s_<>:"|?*]+', "_", t)),
)


@dataclass(slots=True)
class Matches:
    """The files of the names in a table.

    Attributes:
        files: The path from the data folder for each name; a name without a picture keeps its own.
        missing: The names without a picture, each with the likely reason.
        rules: How many names were found by each rule.
        example: One of these names, and its file.
    """

    files: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rules: Counter[str] = field(default_factory=Counter)
    example: tuple[str, str] = ("", "")

    @property
    def note(self) -> str:
        """One line on the names that differ from those of their files, or ""."""
        rules = ", ".join(f"{count} by {rule}" for rule, count in self.rules.most_common())
        name, file = self.example
        text = f"{self.rules.total()} names differ from those of the pictures, and are matched"
        return f"{text}: {rules}; for example, {name!r} is {file}" if rules else ""


def match_pictures(
    texts: Iterable[str], root: Path, *, shared: bool = False, exact: bool = False
) -> Matches:
    """Return the files under `root` that the names in a table mean.

    A name that is not that of a file is compared with all pictures, by looser and looser rules,
    until it is that of one picture or of several. Each picture is used for one name or, with
    `shared`, for all spellings of its name. With `exact`, names are not compared.
    """
    files: dict[str, str] = {}
    missing, folders = [], dict[str, Collection[str]]()
    for text in dict.fromkeys(texts):
        name = own_name(text)
        if name and _exists(root, name, folders):
            files[text] = name
        else:
            missing.append(text)
    if exact or not missing:
        return Matches(files)
    taken = frozenset(files.values())
    found = _match(tuple(missing), tuple(pictures_in(root)), taken, shared=shared)
    return replace(found, files=files | found.files)


@lru_cache(1)  # Every trial of a sweep has the same names, and many names take seconds.
def _match(
    texts: tuple[str, ...], names: tuple[str, ...], taken: frozenset[str], *, shared: bool
) -> Matches:
    matches = Matches(missing=dict.fromkeys(texts, ""))
    keys = dict(zip(names, names, strict=True))
    left = dict(zip(texts, texts, strict=True))
    rules: dict[str, str] = {}
    for rule, change in _RULES:
        keys = {name: change(key) for name, key in keys.items()}
        left = {text: change(key) for text, key in left.items()}
        _apply(rule, keys, left, matches, rules)
        if not left:
            break
    _explain(left, keys, matches)
    texts_of = defaultdict[str, list[str]](list)
    for text, name in matches.files.items():
        texts_of[name].append(text)
    for name, same in texts_of.items():
        if name not in taken and len(same) == 1:
            continue
        for text in same:  # Which one is meant is a guess.
            if not (shared and _is_spelling(text, name)):
                del matches.files[text]
                other = next((each for each in same if each != text), "")
                matches.missing[text] = (
                    f"{name} fits, but is that of another row"
                    if name in taken
                    else f"{name} fits, and fits {other}, too"
                )
    matches.rules = Counter(rules[text] for text in matches.files)
    matches.example = next(iter(matches.files.items()), ("", ""))
    return matches


def _is_spelling(text: str, name: str) -> bool:
    """Return whether a text has neither another suffix nor other folders than a file."""
    for rule, change in _RULES:
        if rule != "the suffix":
            text, name = change(text), change(name)
        elif text == change(text):
            name = change(name)
    return f"/{name}".endswith(f"/{text}")


def own_name(text: str) -> str:
    """Return the normalised path in a table, or "" if it leads out of the folder."""
    parts = text.split("/")
    if ".." in parts or text.startswith("/"):
        return ""
    return str(PurePosixPath(text)) if "" in parts or "." in parts else text


def _exists(root: Path, name: str, folders: dict[str, Collection[str]]) -> bool:
    folder, _, file = name.rpartition("/")
    if folder not in folders:  # One look at each folder is faster than one at each file.
        folders[folder] = ()
        with suppress(OSError, ValueError):
            folders[folder] = frozenset(os.listdir(root / folder))  # noqa: PTH208
    # A folder may have the name of a picture without its suffix.
    is_picture = file.lower().endswith(SUFFIXES)
    return file in folders[folder] and (is_picture or os.path.isfile(root / name))  # noqa: PTH113


def pictures_in(root: Path) -> list[str]:
    """Return the paths of all pictures from a folder; none if it cannot be read."""
    try:
        return [*names_in(list_pictures(root, None))]
    except DataError:  # A folder that cannot be read; the names may not need it.
        return []


def _apply(
    rule: str,
    keys: Mapping[str, str],
    left: dict[str, str],
    matches: Matches,
    rules: dict[str, str],
) -> None:
    """Move the names in `left` that fit a picture by their keys to the files of `matches`.

    Adds the rule by which each is found to `rules`.
    """
    by_end: dict[str, list[str]] = defaultdict(list)
    for name, key in keys.items():
        by_end[key.rpartition("/")[2]].append(name)
    for text, key in list(left.items()):
        near = by_end.get(key.rpartition("/")[2], ())
        fits, by = [name for name in near if keys[name] == key], rule
        if not fits:
            ends = ((name, f"/{keys[name]}") for name in near)
            fits = [n for n, end in ends if f"/{key}".endswith(end) or end.endswith(f"/{key}")]
            by = "the folder" if rule == _RULES[0][0] else f"the folder and {rule}"
        if not fits:
            continue
        del left[text]
        if len(fits) > 1:
            matches.missing[text] = f"{len(fits)} pictures fit, {fits[0]} and {fits[1]}"
        else:
            del matches.missing[text]
            matches.files[text] = fits[0]
            rules[text] = by


def _explain(left: Mapping[str, str], keys: Mapping[str, str], matches: Matches) -> None:
    """Set the likely reason for the first name without a picture, and a short one for others."""
    ends = {key.rpartition("/")[2]: name for name, key in keys.items()}
    for text, key in left.items():
        end = key.rpartition("/")[2]
        reason = ""
        if not keys:
            reason = "the folder has no pictures; --data_dir is where the names start"
        elif _ROUNDED.search(text):
            reason = "a spreadsheet has rounded the number; export the column as text"
        elif _DATE.fullmatch(_without_suffix(text)):
            reason = "a spreadsheet has taken the name for a date; export the column as text"
        elif end in ends:
            reason = f"{ends[end]} is in another folder"
        elif text == next(iter(left)) and len(ends) <= _MOST_COMPARED:
            near = get_close_matches(end, ends, n=1)
            reason = f"the most similar picture is {ends[near[0]]}" if near else ""
        matches.missing[text] = reason or "no picture has a similar name"

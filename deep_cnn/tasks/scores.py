"""Read a table of scores: one row for each picture, or for each rating of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deep_cnn.data.splits import SPLITS, Examples, Files
from deep_cnn.errors import DataError
from deep_cnn.layout import SPLIT_NAMES
from deep_cnn.tasks import ratings, tables
from deep_cnn.tasks.picture_names import Matches, match_pictures, own_name, pictures_in

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_GROUPS = ("city", "group")
_NOT_SCORES = ("split", "weight", *_GROUPS)


class Columns(NamedTuple):
    """Which columns of a table are read.

    Attributes:
        score: The column with the scores.
        image: The column with the pictures.
        rater: The column with the raters, if there is one row for each rating.
        grouped: Whether the column city or group has the keys of the pictures.
        votes: Whether a picture is weighted by the number of its ratings.
        option: The option that names the column with the scores, for messages.
    """

    score: str
    image: str = "image"
    rater: str | None = None
    grouped: bool = False
    votes: bool = False
    option: str = "--study"


@dataclass(frozen=True, slots=True)
class Scores:
    """The content of a table.

    Attributes:
        examples: The pictures with their scores.
        marks: The split that the table marks for each picture, if any.
        notes: Lines on what was left out, and on what was not taken as it is written.
        agreement: The agreement of the raters, if the table has their ratings.
        unscored: The number of rows without a score.
        named: The files of all pictures that the table names, with a score or without.
    """

    examples: Examples
    marks: list[str | None]
    notes: Sequence[str] = ()
    agreement: ratings.Agreement | None = None
    unscored: int = 0
    named: frozenset[str] = frozenset()


def read_scores(path: Path, columns: Columns, root: Path | None = None) -> Scores:
    """Return the pictures and scores in a table; names of pictures are paths from `root`.

    By default, `root` is the folder of the table. Raises DataError with all invalid numbers,
    duplicates, and paths outside of the folder, each with its line.
    """
    root = root or path.parent
    table, unscored, others, record = _read(path, columns, root)
    reading = tables.Reading(path, [*record.faults])
    notes = [f"{path.name}: read with {', '.join(record.notes)}"] if record.notes else []
    if len(unscored):
        notes.append(f"{path.name}: {len(unscored)} rows without a score are left out")
    named = [text for text in (*table["image"], *unscored) if text]
    matches = match_pictures(named, root, shared=bool(columns.rater))
    if matches.note:
        notes.append(f"{path.name}: {matches.note}")
    _refuse_other_pictures(table["image"], others, matches, root, reading)
    table, note = _with_pictures(table, matches, reading)
    notes += [f"{path.name}: {note}"] if note else []
    measure = None
    if columns.rater:
        _refuse_different(table, reading)
        reading.raise_faults()
        table, repeats = ratings.one_rating_each(table)
        if repeats:
            text = "repeat one of the same rater and picture; their mean counts as one rating"
            notes.append(f"{path.name}: {repeats} ratings {text}")
        there = table[table["found"]]
        if len(there):
            measure = ratings.agreement(there["image"], there["score"])
        table = ratings.mean_ratings(table)
    else:
        _refuse_repeated(table[table["image"] != ""], reading)
    reading.raise_faults()
    if len(table) < 3:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise DataError(f"{path} has {len(table)} rows with pictures; 3 at least are needed{said}")
    weights = table["weight"].to_numpy() * (table["votes"].to_numpy() if columns.votes else 1.0)
    names, keys = tuple(table["image"]), tuple(table["key"]) if columns.grouped else ()
    files = Files(root, names)
    examples = Examples(names, files, table["score"].to_numpy(), weights, keys)
    marks = [mark or None for mark in table["split"]]
    files_named = frozenset(matches.files.values())
    return Scores(examples, marks, notes, measure, len(unscored), files_named)


@tables.read_once
def _read(
    path: Path, columns: Columns, root: Path
) -> "tuple[DataFrame, Series[str], DataFrame, tables.Reading]":
    """Return the rows with a score, the pictures of the other rows, and the faults and notes.

    The columns are image, score, weight, split, key and rater. Before the faults are the other
    columns of the rows with a score.
    """
    asked = [name for name in (columns.score, columns.image, columns.rater) if name]

    def names() -> list[str]:
        return [*asked, *pictures_in(root)]

    header = tables.read_columns(path, names=names)
    score, image, rater = _find_columns(path, header, columns)
    group = next((name for name in _GROUPS if name in header), None)
    if columns.grouped and group is None:
        raise tables.no_columns(path, [("city", "add one, or use --group=none")], header)
    reading = tables.Reading(path)
    cells = tables.read_table(path, reading=reading, names=names).map(str.strip)
    is_empty = tables.is_missing(cells[score])
    unscored, cells = cells.loc[is_empty, image], cells[~is_empty]
    table = cells[[image]].set_axis(["image"], axis=1).assign(weight=1.0)
    table["score"] = reading.numbers(cells[score], cells)
    table["split"] = cells["split"].str.lower().replace(SPLIT_NAMES) if "split" in header else ""
    table["key"] = cells[group] if columns.grouped else ""
    table["rater"] = cells[rater] if rater else ""
    if "weight" in header:
        table["weight"] = weights = reading.numbers(cells["weight"], cells)
        text = "is negative; use 0 or more"
        reading.refuse(cells["weight"], weights < 0, text, show=str)
    wrong = ~table["split"].isin(("", *SPLITS))
    reading.refuse(table["split"], wrong, "is unknown; use train, val, test or nothing")
    required = [("image", f"no picture is named; fill the column {image}")]
    if columns.grouped:
        required += [("key", f"no {group} is named; fill the column, or use --group=none")]
    if rater:
        required += [("rater", f"no rater is named; fill the column {rater}")]
    for column, text in required:
        reading.faults += [(int(line), text) for line in table.index[table[column] == ""]]
    others = cells.drop(columns=[image, score, *([rater] if rater else [])])
    return table, unscored, others, reading


def _find_columns(path: Path, header: list[str], columns: Columns) -> tuple[str, str, str | None]:
    """Return the columns with the scores, the pictures and the raters; raise DataError."""
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        raise DataError(f"{path} line 1: two columns have one name ({','.join(header)})")
    image, score = find_column(header, columns.image), find_column(header, columns.score)
    rater = find_column(header, columns.rater) if columns.rater else None
    others = [name for name in named if name not in (image, rater, *_NOT_SCORES)]
    if image is None or score is None or (columns.rater and rater is None):
        missing = []
        if image is None:
            missing.append((columns.image, "name it so, or name yours with --image_column"))
        if score is None:
            way = f"choose one with {columns.option}: {', '.join(others)}" if others else "add one"
            missing.append((columns.score, way))
        if columns.rater and rater is None:
            missing.append((columns.rater, "correct --rater_column"))
        raise tables.no_columns(path, missing, header)
    if rater and rater in (image, score):
        what = "pictures" if rater == image else "scores"
        raise DataError(f"--rater_column={rater} is the column of the {what}; name another")
    if score not in others:
        choice = f"choose from {', '.join(others)}" if others else "the table needs another column"
        raise DataError(f"{columns.option}={score} is not a score; {choice}")
    return score, image, rater


def find_column(header: Sequence[str], name: str) -> str | None:
    """Return the column `name`, or else the only one that differs by upper and lower case."""
    if name in header:
        return name
    similar = [column for column in header if column.casefold() == name.casefold()]
    return similar[0] if len(similar) == 1 else None


def _with_pictures(
    table: "DataFrame", matches: Matches, reading: tables.Reading
) -> "tuple[DataFrame, str]":
    """Return the table with the paths of the pictures, and a note on rows without a picture.

    These rows stay, as pictures that cannot be decoded. `found` says whether a row has a picture,
    and `name` is what the table calls it. Adds a fault if no row has a picture.
    """
    texts = table["image"]
    outside = texts.isin([text for text in matches.missing if not own_name(text)])
    way = "leads out of the data folder; paths start there and stay inside"
    reading.faults += [(int(k), f"{text} {way}") for k, text in texts[outside].items()]
    files = {text: own_name(text) or text for text in matches.missing} | matches.files
    found = texts.isin(matches.files)
    table = table.assign(image=[files.get(text, "") for text in texts], name=texts, found=found)
    missing = texts[texts.isin(matches.missing) & ~outside]
    is_joined = missing.str.contains("\n", regex=False).astype(bool)
    for line, text in missing[is_joined].items():
        first = int(line) - text.count("\n")
        joined = f"quotation marks join the lines from {first} on to one name"
        reading.faults.append((int(line), f"{joined}; remove or double them"))
    missing = missing[~is_joined]
    if missing.empty:
        return table, ""
    text = missing.iloc[0]
    note = f"{text!r} has no picture ({matches.missing[text]})"
    count = f"{len(missing)} of {len(table)} rows do not find their picture"
    if reading.faults or not found.any():
        reading.faults.append((int(missing.index[0]), f"{note}; {count}"))
    return table, f"{count}; line {missing.index[0]}: {note}"


def _refuse_other_pictures(
    texts: "Series[str]",
    others: "DataFrame",
    matches: Matches,
    root: Path,
    reading: tables.Reading,
) -> None:
    """Add a fault if another column has the exact names of other pictures in the same rows.

    Only names that are not those of files may be in the wrong column, such as numbers.
    """
    found = texts.map(matches.files)
    loose = texts[found.notna() & (texts.map(own_name) != found)]
    if len(loose) * 2 <= len(texts):
        return
    for name in others:
        cells = others.loc[loose.index, name]
        exact = match_pictures(cells[cells != ""], root, exact=True).files
        files = cells.map(exact)
        differ = files.notna() & (files != found[loose.index])
        if files.notna().sum() * 2 > len(cells) and differ.any():
            line, text = next(loose[differ].items())
            reading.faults.append(
                (
                    int(line),
                    f"picture {text!r} would be {found[line]}, but {name} names {files[line]};"
                    f" use --image_column={name}, or remove that column",
                )
            )
            return


def _refuse_repeated(table: "DataFrame", reading: tables.Reading) -> None:
    repeated = table["image"].duplicated()
    if repeated.any():
        line, image = next(table.loc[repeated, "image"].items())
        same = table[table["image"] == image]
        if same["name"].nunique() > 1:
            one, other = same["name"].unique()[:2]
            way = f"remove one, as {one!r} and {other!r} are the same file"
        else:
            count = table["image"][repeated].nunique()
            way = (
                "remove one, or if the rows are ratings, name the column of the raters with"
                f" --rater_column ({count} pictures have several rows)"
            )
        text = f"{image} is there already, in line {same.index[0]}; {way}"
        reading.faults.append((int(line), text))


def _refuse_different(table: "DataFrame", reading: tables.Reading) -> None:
    """Add a fault for each row with another split or group than the first row of its picture."""
    for column, name in (("split", "split"), ("key", "group")):
        first: Any = table.groupby("image", sort=False)[column].transform("first")
        for line in table.index[table[column] != first]:
            text = f"{name} {table[column][line]!r} differs from that of other rows of the picture"
            reading.faults.append((int(line), f"{text}; make them agree"))

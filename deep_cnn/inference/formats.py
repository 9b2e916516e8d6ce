"""Write predictions as CSV, Parquet or GeoJSON."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from deep_cnn.errors import ConfigError, DataError
from deep_cnn.inference.pictures import Pictures
from deep_cnn.inference.unfinished import Row

_ROWS_OF_A_GROUP = 50_000
_PLACE = ("lat", "lon")


class Table:
    """The predictions as a table.

    Attributes:
        columns: The names of the columns: image, those of the table of pictures, lat and lon unless
            that table has them, and those of the predictions. If a column of the table has the name
            of another one, it is called `table.<name>`.

    Args:
        pictures: The pictures.
        predicted: The columns of the predictions.
        has_places: Whether any picture has coordinates.
    """

    def __init__(self, pictures: Pictures, predicted: Sequence[str], *, has_places: bool) -> None:
        self.pictures = pictures
        # Coordinates of a table are among the columns that are carried through.
        self._places = _PLACE if has_places and pictures.places is None else ()
        taken = {"image", *self._places, *predicted}
        carried = []
        for name in pictures.carried:
            while name in taken:
                name = f"table.{name}"
            taken.add(name)
            carried.append(name)
        self._predicted = predicted
        self.columns = ["image", *carried, *self._places, *predicted]
        texts = dict.fromkeys(
            ["image", *carried, *(p for p in predicted if _is_class(p))], "string"
        )
        self.types = {name: texts.get(name, "float64") for name in self.columns}

    def cells(self, index: int, row: Row) -> list[Any]:
        """Return the cells of a picture; None is an empty cell."""
        carried = (column[index] for column in self.pictures.carried.values())
        place = (row.place or (None, None)) if self._places else ()
        empty = [None] * len(self._predicted)
        return [self.pictures.names[index], *carried, *place, *(row.values or empty)]


def _is_class(column: str) -> bool:
    return column == "class" or column.startswith("class_")


def write_csv(file: TextIO, table: Table, rows: Iterable[Row]) -> None:
    """Write a table as CSV, with floats as repr."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.cells(i, row) for i, row in enumerate(rows))


def _csv(path: Path, table: Table, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write_csv(file, table, rows)


def _parquet(path: Path, table: Table, rows: Iterable[Row]) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    schema = arrow.schema([(_text(n), getattr(arrow, kind)()) for n, kind in table.types.items()])
    cells = ([*map(_text, table.cells(i, row))] for i, row in enumerate(rows))
    with parquet.ParquetWriter(path, schema) as writer:
        while group := [*islice(cells, _ROWS_OF_A_GROUP)]:
            columns = zip(*group, strict=True)
            arrays = [arrow.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _geojson(path: Path, table: Table, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for i, feature in enumerate(_features(table, rows)):
            file.write(",\n" if i else "\n")
            file.write(json.dumps(feature, allow_nan=False))
        file.write("\n]}\n")


def _features(table: Table, rows: Iterable[Row]) -> Iterator[Mapping[str, Any]]:
    for i, row in enumerate(rows):
        properties = dict(zip(table.columns, map(_json, table.cells(i, row)), strict=True))
        geometry = None
        if row.place:  # RFC 7946: longitude first.
            latitude, longitude = row.place
            geometry = {"type": "Point", "coordinates": [longitude, latitude]}
        names = {_text(name): value for name, value in properties.items()}
        yield {"type": "Feature", "geometry": geometry, "properties": names}


def _json(value: Any) -> Any:
    """Return a value for JSON, which has no number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else _text(value)


def _text(value: Any) -> Any:
    """Return a text without bytes that are not UTF-8, which names of files may have."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", errors="backslashreplace").decode()


Write = Callable[[Path, Table, Iterable[Row]], None]
FORMATS: Mapping[str, Write] = {".csv": _csv, ".parquet": _parquet, ".geojson": _geojson}


def choose_format(path: Path) -> Write:
    """Return the function that writes a file with this suffix; raise ConfigError."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"--out={path} must end with {', '.join(FORMATS)}", option="out")
    if suffix == ".parquet":
        require("pyarrow", "parquet", f"--out={path}")
    return FORMATS[suffix]


def require(package: str, extra: str, what: str) -> None:
    """Raise ConfigError if an optional package is missing."""
    if find_spec(package) is None:
        raise ConfigError(
            f'{what} needs {package}, which is not installed: pip install "deep_cnn[{extra}]"'
        )


def refuse_no_places(path: Path, part: Path) -> DataError:
    """Return the error for a GeoJSON file of pictures without coordinates."""
    other = part.with_name(part.name.replace(path.suffix, ".csv"))
    return DataError(
        f"--out={path}: no picture has coordinates, neither lat and lon in a table nor in its name"
        f" or EXIF data; for CSV, rename {part} to {other.name} and use --out="
        f"{path.with_suffix('.csv')}"
    )

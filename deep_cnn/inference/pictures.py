"""Find the pictures to predict for: those of a folder, a table or a list, with coordinates."""

import hashlib
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from deep_cnn.data.listing import list_pictures, names_in
from deep_cnn.errors import DataError
from deep_cnn.layout import SUFFIXES
from deep_cnn.tasks import tables
from deep_cnn.tasks.picture_names import match_pictures, own_name
from deep_cnn.tasks.scores import find_column

if TYPE_CHECKING:
    from pandas import DataFrame

_LOGGER = logging.getLogger("deep_cnn")
Place = tuple[float, float]
# Columns with latitudes and longitudes, as people name them.
_LATITUDES, _LONGITUDES = ("lat", "latitude"), ("lon", "lng", "long", "longitude")
# The latitude, longitude and location id at the start of a name of Place Pulse.
_PLACE_PULSE = re.compile(r"(-?\d+(?:\.\d+)?)_(-?\d+(?:\.\d+)?)_[0-9a-f]{24}(?![0-9a-f])", re.I)


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures to predict for.

    Attributes:
        root: The folder that `files` start from.
        names: What they are called in the column image.
        files: The path of each picture from `root`, or "" if there is none.
        missing: Why a picture of a table has no file, by its name there.
        carried: The other columns of the table, by name.
        places: Latitudes and longitudes of the table, (N, 2), nan where it has none.
    """

    root: Path
    names: Sequence[str]
    files: Sequence[str]
    missing: Mapping[str, str] = field(default_factory=dict)
    carried: Mapping[str, Sequence[str]] = field(default_factory=dict)
    places: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path | None:
        """Return the file of a picture, or None if a table names one that is not there."""
        return self.root / self.files[index] if self.files[index] else None

    def place(self, index: int, image: Image.Image | None = None) -> Place | None:
        """Return latitude and longitude: of the table, the name, or the EXIF data of the image."""
        if self.places is not None and not np.isnan(self.places[index]).any():
            return float(self.places[index, 0]), float(self.places[index, 1])
        named = _PLACE_PULSE.match(self.files[index].rpartition("/")[2])
        if named and (place := _valid(float(named[1]), float(named[2]))):
            return place
        return exif_place(image) if image is not None else None

    def digest(self) -> str:
        """Return a hash of the pictures, their order, and the columns of the table."""
        digest = hashlib.sha256(str(self.root.resolve()).encode(errors="surrogatepass"))
        for name, texts in (("", self.names), ("", self.files), *self.carried.items()):
            digest.update(f"\0{name}\0".encode(errors="surrogatepass"))
            for text in texts:
                digest.update(text.encode(errors="surrogatepass") + b"\0")
        return digest.hexdigest()


def find_pictures(path: Path, image_column: str = "image") -> Pictures:
    """Return the pictures of a folder, searched recursively, of a table, or one picture.

    Raises DataError if there is none.
    """
    if path.is_dir():
        names = tuple(names_in(list_pictures(path, None)))
        if not names:
            raise DataError(f"{path} has no pictures; name a folder, a picture or a table")
        return Pictures(path, names, names)
    if not path.is_file():
        what = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; name a folder, a picture or a table")
    if path.suffix.lower() in SUFFIXES:
        return listed([path])
    return _read_table(path, image_column)


def listed(paths: Iterable[str | Path]) -> Pictures:
    """Return these pictures, by the names that they have here."""
    names = tuple(map(str, paths))
    return Pictures(Path(), names, names)


def _read_table(path: Path, image_column: str) -> Pictures:
    header = tables.read_columns(path)
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        raise DataError(f"{path} line 1: two columns have one name ({','.join(header)})")
    image = find_column(header, image_column)
    if image is None:
        way = "name it so, or name yours with --image_column"
        raise tables.no_columns(path, [(image_column, way)], header)
    reading = tables.Reading(path)
    table = tables.read_table(path, reading=reading)
    reading.raise_faults()
    if table.empty:
        raise DataError(f"{path} has no rows; name a table with pictures")
    texts = table[image].map(str.strip)
    matches = match_pictures([text for text in texts if text], path.parent)
    notes = [f"read with {', '.join(reading.notes)}"] if reading.notes else []
    for note in [*notes, *([matches.note] if matches.note else [])]:
        _LOGGER.warning("%s: %s", path.name, note)
    outside = "leads out of the folder of the table"
    missing = {
        text: reason if own_name(text) else outside for text, reason in matches.missing.items()
    }
    files = [matches.files.get(text, "") for text in texts]
    names = texts.tolist()
    carried = {name: table[name].tolist() for name in header if name != image}
    return Pictures(path.parent, names, files, missing, carried, _places_of(table, reading))


def _places_of(table: "DataFrame", reading: tables.Reading) -> NDArray[np.float64] | None:
    """Return the coordinates in a table, (N, 2), or None if it has none; warn of faults."""
    header = list(table.columns)
    found = [
        next((column for name in names if (column := find_column(header, name))), None)
        for names in (_LATITUDES, _LONGITUDES)
    ]
    if None in found:
        return None
    places = np.full((len(table), 2), np.nan)
    for i, name in enumerate(found):
        column = table[name].map(str.strip)
        there = ~tables.is_missing(column).to_numpy(dtype=bool)
        places[there, i] = reading.numbers(column[there])
    wrong = ~np.isnan(places).any(1) & ((abs(places) > (90, 180)).any(1))
    places[wrong] = np.nan
    reading.faults += [(int(k), "the coordinates are no place") for k in table.index[wrong]]
    if reading.faults:
        line, text = min(reading.faults)
        _LOGGER.warning(
            "%s: %d coordinates are not usable; line %d: %s",
            reading.path.name, len(reading.faults), line, text,
        )  # fmt: skip
    return places


def exif_place(image: Image.Image) -> Place | None:
    """Return the latitude and longitude in the EXIF data of a picture, or None."""
    try:
        gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        latitude, longitude = _degrees(gps[2]), _degrees(gps[4])
        south, west = (str(gps[key]).strip("\0 ").upper()[:1] for key in (1, 3))
    except Exception:  # EXIF data are damaged in many ways.
        return None
    return _valid(-latitude if south == "S" else latitude, -longitude if west == "W" else longitude)


def _degrees(parts: Sequence[float]) -> float:
    """Return degrees, minutes and seconds as degrees."""
    degrees, minutes, seconds = (*map(float, parts), 0.0, 0.0)[:3]
    return degrees + minutes / 60 + seconds / 3600


def _valid(latitude: float, longitude: float) -> Place | None:
    valid = math.isfinite(latitude + longitude) and abs(latitude) <= 90 and abs(longitude) <= 180
    return (latitude, longitude) if valid else None

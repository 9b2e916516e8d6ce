"""Decode pictures of any format, colour mode, depth and size."""

import errno
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from threading import Lock

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from deep_cnn.layout import FORMATS
from deep_cnn.text import first_line

Picture = Path | NDArray[np.uint8]
# Pillow warns of large pictures and odd EXIF. Set once: a filter for a block is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Errors that are not caused by the picture, which may be readable later.
_TRANSIENT = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOMEM)
_LARGEST_ASPECT = 100  # A longer side than this many shorter ones is a damaged file.
# Twice Pillow's limit: from here on, Pillow refuses a picture.
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
_MOST_MEMORY = 2**30
_large_picture = Lock()
_UINT32 = 2.0**32 - 1
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # Tags of TIFF.
# How much Pillow scales the pixels of a PNG file, by its name of their form.
_SCALED = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}
# The largest values of the ranges of floats that are read, how far a range may go beyond them, and
# the part of white that the brightest pixel must have.
_WHITE, _ROUNDING, _DARKEST = (1.0, 255.0, 65535.0), 1e-3, 16


def decode(picture: Picture, crop_bottom: int = 0) -> Image.Image:
    """Return the picture upright and as RGB, for any colour mode and depth of the file.

    Transparent pixels become white; a picture without any others is refused. The lowest
    `crop_bottom` rows are cut off. An array, (H, W) uint8, stays grey. A JPEG file with more pixels
    than Pillow allows is decoded at a reduced size. Raises ValueError, with the reason, if it
    cannot be decoded.
    """
    image, scale = _decoded(picture)
    if not crop_bottom:
        return image
    width, height = image.width, image.height - math.ceil(crop_bottom / scale)
    if width > _LARGEST_ASPECT * height:
        raise ValueError(f"{width} x {image.height} pixels, too few for --crop_bottom")
    return image.crop((0, 0, width, height))


def _decoded(picture: Picture) -> tuple[Image.Image, int]:
    """Return the picture, and how many pixels of the file one of its pixels stands for."""
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture), 1
    try:
        if picture.stat().st_size == 0:
            raise ValueError("empty file")
        try:
            with Image.open(picture, formats=tuple(FORMATS)) as image:
                return _upright(image), 1
        except Image.DecompressionBombError:
            with _one_large_picture():
                return _reduced(picture)
    except FileNotFoundError:
        raise ValueError("missing") from None
    except Exception as error:  # Pillow's many readers raise many kinds on damaged files.
        reason = getattr(error, "strerror", None) or first_line(error)
        reason = reason.replace(repr(str(picture)), "").strip() or type(error).__name__
        if isinstance(error, UnidentifiedImageError) and picture.suffix.lower() in FORMATS["TIFF"]:
            reason += "; Pillow reads no TIFF file of 64-bit numbers or of coloured floats"
        raise ValueError(reason) from error


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    if max(image.size) > _LARGEST_ASPECT * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels is a line, not a picture")
    if math.prod(image.size) > _MOST_PIXELS:  # While another thread has lifted Pillow's limit.
        raise Image.DecompressionBombError
    key = image.info.get("transparency")
    if image.format == "PNG" and key is not None:
        # Pillow scales the pixels of some files to 8 bits, but not the colour that is transparent.
        scale = _SCALED.get(str(image.tile[0].args), 1)
        if isinstance(key, tuple):
            image.info["transparency"] = tuple(int(part * scale) for part in key)
        elif isinstance(key, int):
            image.info["transparency"] = int(key * scale)
    ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def _reduced(picture: Path) -> tuple[Image.Image, int]:
    """Return a JPEG file with too many pixels at 1/2, 1/4 or 1/8 of its size, and the divisor."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        image = Image.open(picture, formats=tuple(FORMATS))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with image:
        width, height = image.size
        text = f"{width} x {height} pixels of {image.format} do not fit into 1 GiB of memory"
        if image.format not in ("JPEG", "MPO"):
            text += ", and only JPEG files can be decoded at a smaller size"
        for scale in (2, 4, 8) if image.format in ("JPEG", "MPO") else ():
            if _memory(image, scale) <= _MOST_MEMORY:
                image.draft(None, (width // scale, height // scale))
                return _upright(image), scale
        raise ValueError(text)


def _memory(image: Image.Image, scale: int) -> float:
    """Return the bytes that decoding a JPEG file needs at 1/scale of its size."""
    pixels = math.prod(image.size)
    # The picture, its upright copy and its copy as RGB take 4 bytes a pixel each.
    needed = 12 * pixels / scale**2
    if "progressive" in image.info:  # All coefficients are kept, 2 bytes each.
        factors = [(h, v) for _, h, v, _ in image.layer]  # type: ignore[attr-defined]
        most = max(h for h, _ in factors) * max(v for _, v in factors)
        needed += 2 * pixels * sum(h * v for h, v in factors) / most
    return needed


@contextmanager
def _one_large_picture() -> Iterator[None]:
    """Wait until no other thread or process of this user on this host decodes a large picture."""
    name = f"deep_cnn-large-picture-{os.getuid() if hasattr(os, 'getuid') else 'user'}.lock"
    with _large_picture, ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # Then only the threads wait.
            stack.enter_context(FileLock(Path(gettempdir()) / name))
        yield


def is_transient(error: ValueError) -> bool:
    """Return whether `decode` failed for a reason that is not the picture, such as no memory."""
    cause = error.__cause__
    return isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _TRANSIENT


def _to_rgb(image: Image.Image) -> Image.Image:
    tags, key = getattr(image, "tag_v2", {}), image.info.get("transparency")  # The tags of a TIFF.
    is_signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    if image.mode in ("F", "I") or image.mode.startswith("I;") or (image.mode == "L" and is_signed):
        # By the bit depth; Pillow stretches a PGM file with more than 8 bits to 16.
        white = float(2 ** (tags.get(_BITS, (16,))[0] - is_signed) - 1)
        grey = _grey(image, white if image.mode != "F" else None)
        if tags.get(_PHOTOMETRIC) == 0:  # White is zero, which Pillow inverts only in 8 bits.
            grey = 255 - grey
        if isinstance(key, int):
            grey[np.asarray(image) == key] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or key is not None:
        image = image.convert("RGBA")
        if not image.getchannel("A").getbbox():
            raise ValueError("every pixel is transparent")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, white: float | None) -> NDArray[np.uint8]:
    """Return a deep picture in 8 bits; `white` is the value of white, or None for floats."""
    values = np.asarray(image)
    values = (values.view(np.int8) if image.mode == "L" else values).astype(np.float64)
    if white == _UINT32:  # Pillow reads them as signed.
        values = values % (_UINT32 + 1)
    if white and values.min() < 0:
        raise ValueError(f"integers down to {values.min():g}; save them as 0 to {white:g}")
    white = white or _white_of_floats(values)
    grey = (values / white * 255).clip(0, 255).astype(np.uint8)
    if white > _WHITE[-1] and values.any() and not grey.any():
        text = f"32-bit integers up to {values.max():g} are black; save them with 8 or 16 bits"
        raise ValueError(text)
    return grey


def _white_of_floats(values: NDArray[np.float64]) -> float:
    """Return the value of white, 1, 255 or 65535; raise ValueError for another range."""
    if not np.isfinite(values).all():
        raise ValueError("pixels that are no numbers")
    low, high = values.min(), values.max()
    white = next((white for white in _WHITE if high <= white * (1 + _ROUNDING)), math.inf)
    # A range such as [0, 1.7] would become black if it were taken for [0, 255].
    if low < -_ROUNDING * white or high < white / _DARKEST:
        raise ValueError(
            f"floating-point pixels from {low:g} to {high:g}; only the ranges [0, 1], [0, 255] and"
            f" [0, 65535] are read, and the brightest pixel must reach 1/{_DARKEST} of the range"
        )
    return white

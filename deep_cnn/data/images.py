"""Decode a picture, whatever is in the file, and shape it as `--pre` says."""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deep_cnn.names import InputFormat
from deep_cnn.vision import torchvision

Picture = Path | NDArray[np.uint8]
# Large pictures and odd EXIF are no news; set once, because decoding runs in many threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
_LONGEST = 100
_THUMBNAIL = 256
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(picture: Picture, crop_bottom: int = 0) -> Image.Image:
    """The picture upright, as RGB: grey, palette, CMYK, transparent (on white) and 16-bit alike.

    Its lowest `crop_bottom` rows are cut off. An array, (H, W) uint8, stays grey. ValueError, with
    the reason, for what cannot be decoded.
    """
    image = _decoded(picture)
    if not crop_bottom:
        return image
    width, height = image.width, image.height - crop_bottom
    if width > _LONGEST * height:
        raise ValueError(f"{width} x {image.height} pixels, too few for --crop_bottom")
    return image.crop((0, 0, width, height))


def _decoded(picture: Picture) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    try:
        if picture.stat().st_size == 0:
            raise ValueError("empty file")
        with Image.open(picture) as image:
            if max(image.size) > _LONGEST * min(image.size):
                raise ValueError(f"{image.width} x {image.height} pixels is a line, not a picture")
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ValueError("missing") from None
    except Exception as error:  # Pillow's many readers raise many kinds on damaged files.
        text = str(error).splitlines()[0] if str(error) else ""
        reason = text.replace(repr(str(picture)), "").strip() or type(error).__name__
        raise ValueError(reason) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are no numbers")
        top = 1.0 if image.mode == "F" and values.max() <= 1 else 255.0
        top = 65535.0 if values.max() > 255 or image.mode.startswith("I;") else top
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def random_state(seed: int, epoch: int, name: str) -> np.random.Generator:
    """The generator that belongs to this picture in this epoch, whatever else is in the batch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode(errors="surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def centre(image: Image.Image, form: InputFormat) -> Image.Image:
    """Shorter side to form.resize, then the middle form.crop x form.crop, as torchvision does."""
    width, height = image.size
    short, long = min(width, height), int(form.resize * max(width, height) / min(width, height))
    size = (form.resize, long) if width == short else (long, form.resize)
    image = image.resize(size, _FILTERS[form.interpolation])
    left, top = (round((side - form.crop) / 2) for side in size)
    return image.crop((left, top, left + form.crop, top + form.crop))


def squash(image: Image.Image, form: InputFormat) -> Image.Image:
    """The whole scene in form.crop x form.crop: nothing that people judged is cut off."""
    return image.resize((form.crop, form.crop), _FILTERS[form.interpolation])


def random_crop(image: Image.Image, form: InputFormat, random: np.random.Generator) -> Image.Image:
    """A random part of 25 to 100 % of the area, 3:4 to 4:3, resized; flipped half of the time.

    The random resized crop of Szegedy et al. 2015, with more of the scene kept than for objects.
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.25, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
    box = (left, top, left + w, top + h)
    image = image.resize((form.crop, form.crop), _FILTERS[form.interpolation], box=box)
    flip = random.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


# torchvision's transforms, made of its module, which is imported when the first one is used.
_CHANGES: Mapping[str, Callable[[Any], Callable[[Image.Image], Image.Image]]] = {
    "trivial": lambda t: t.TrivialAugmentWide(interpolation=t.InterpolationMode.BILINEAR),
    "randaug": lambda t: t.RandAugment(interpolation=t.InterpolationMode.BILINEAR),
    "colour": lambda t: t.ColorJitter(0.4, 0.4, 0.4, 0.1),
}


@cache
def _change_called(name: str) -> Callable[[Image.Image], Image.Image]:
    return _CHANGES[name](torchvision().transforms)


def _change(
    name: str, image: Image.Image, form: InputFormat, random: np.random.Generator
) -> Image.Image:
    """One of torchvision's random changes of a picture, which is flipped half of the time."""
    # torchvision draws from torch's global generator, which is the dropout's.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        image = _change_called(name)(image)
    flip = random.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


Shape = Callable[[Image.Image, InputFormat], Image.Image]
Augment = Callable[[Image.Image, InputFormat, np.random.Generator], Image.Image]
# What each --pre does to every picture, and what to a picture that is trained on.
SHAPES: dict[str, Shape] = {
    "default": centre,
    "resnet": centre,
    "squash": squash,
    "augment": centre,
    "trivial": centre,
    "randaug": centre,
    "colour": centre,
}
AUGMENTS: dict[str, Augment] = {
    "augment": random_crop,
    **{name: partial(_change, name) for name in _CHANGES},
}
# These take the whole picture, which is decoded each time; the others one that has its shape.
UNSHAPED = ("augment",)


def thumbnail(picture: Picture, crop_bottom: int = 0) -> Image.Image:
    """The picture for a person to see, 256 pixels at most."""
    image = decode(picture, crop_bottom)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return image


def to_image(array: NDArray[np.uint8]) -> Image.Image:
    """What `to_array` made an array of."""
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def to_array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """(channels, H, W) uint8."""
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))

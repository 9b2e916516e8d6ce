"""Turn pictures into the input that a network expects: resize, crop and augment."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deep_cnn.data.decoding import Picture, decode
from deep_cnn.names import PREPROCESSING, InputSpec
from deep_cnn.vision import torchvision

_THUMBNAIL = 256
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def random_state(seed: int, epoch: int, name: str) -> np.random.Generator:
    """Return the random generator of a picture in an epoch; it does not depend on the batch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode(errors="surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def centre(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Resize the shorter side to spec.resize and crop the middle, as torchvision does."""
    width, height = image.size
    long = int(spec.resize * max(width, height) / min(width, height))
    size = (spec.resize, long) if width <= height else (long, spec.resize)
    image = image.resize(size, _FILTERS[spec.interpolation])
    left, top = (round((side - spec.crop) / 2) for side in size)
    return image.crop((left, top, left + spec.crop, top + spec.crop))


def squash(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Resize the whole scene to spec.crop x spec.crop, without cutting anything off."""
    return image.resize((spec.crop, spec.crop), _FILTERS[spec.interpolation])


def random_crop(image: Image.Image, spec: InputSpec, random: np.random.Generator) -> Image.Image:
    """Crop 25 to 100 % of the area at random, 3:4 to 4:3, resize, and flip half of the time.

    This is the random resized crop of Szegedy et al. 2015, which keeps more of the scene than is
    usual for objects.
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
    image = image.resize((spec.crop, spec.crop), _FILTERS[spec.interpolation], box=box)
    flip = random.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


# Transforms of torchvision, which is imported when the first one is used.
_TRANSFORMS: Mapping[str, Callable[[Any], Callable[[Image.Image], Image.Image]]] = {
    "trivial": lambda t: t.TrivialAugmentWide(interpolation=t.InterpolationMode.BILINEAR),
    "randaug": lambda t: t.RandAugment(interpolation=t.InterpolationMode.BILINEAR),
    "colour": lambda t: t.ColorJitter(0.4, 0.4, 0.4, 0.1),
}


@cache
def _transform(name: str) -> Callable[[Image.Image], Image.Image]:
    return _TRANSFORMS[name](torchvision().transforms)


def _augment(
    name: str, image: Image.Image, spec: InputSpec, random: np.random.Generator
) -> Image.Image:
    """Apply a random transform of torchvision, and flip half of the time."""
    # torchvision draws from torch's global generator, which is the dropout's.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(random.integers(2**63)))
        image = _transform(name)(image)
    flip = random.random() < 0.5
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


Shape = Callable[[Image.Image, InputSpec], Image.Image]
Augment = Callable[[Image.Image, InputSpec, np.random.Generator], Image.Image]
# The function of each --pre for all pictures, and the one for training pictures.
SHAPES: dict[str, Shape] = {**dict.fromkeys(PREPROCESSING, centre), "squash": squash}
AUGMENTS: dict[str, Augment] = {
    "augment": random_crop,
    **{name: partial(_augment, name) for name in _TRANSFORMS},
}
# These receive the whole picture, which is decoded each time; the others a shaped one.
FROM_WHOLE_PICTURE = ("augment",)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    Attributes:
        name: The --pre of the run.
        spec: What the network expects.
        crop_bottom: Rows of pixels that are cut off below.
    """

    name: str
    spec: InputSpec
    crop_bottom: int = 0

    @property
    def augments(self) -> bool:
        """Whether training pictures are changed at random."""
        return self.name in AUGMENTS

    @property
    def augments_whole_picture(self) -> bool:
        """Whether augmentation changes the whole picture instead of the shaped one."""
        return self.name in FROM_WHOLE_PICTURE

    @property
    def key(self) -> list[Any]:
        """The values that the shaped pictures depend on, for a fingerprint."""
        return [SHAPES[self.name].__name__, asdict(self.spec), self.crop_bottom]

    def shape(self, picture: Picture) -> NDArray[np.uint8]:
        """Return the picture as (C, H, W) uint8, without augmentation; raise ValueError."""
        return self.shape_image(decode(picture, self.crop_bottom))

    def shape_image(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return a picture that is decoded already as (C, H, W) uint8."""
        return to_array(SHAPES[self.name](image, self.spec), self.spec.channels)

    def augment(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Return the picture with a random augmentation."""
        return AUGMENTS[self.name](image, self.spec, random)


def thumbnail(picture: Picture, crop_bottom: int = 0) -> Image.Image:
    """Return a picture for display, at most 256 pixels wide and high."""
    image = decode(picture, crop_bottom)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return image


def to_image(array: NDArray[np.uint8]) -> Image.Image:
    """Return the picture in an array, (C, H, W) uint8; the inverse of `to_array`."""
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def to_array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """Return the picture as (channels, H, W) uint8."""
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))

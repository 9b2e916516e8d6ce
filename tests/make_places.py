"""Draw the sample data: street scenes whose scores are a known function of what was drawn.

    python tests/make_places.py [FOLDER]

Every scene is a handful of numbers in [0, 1]: light (of the sky), green (trees), height
(buildings), decay (dark windows, litter), road (its share of the picture). The classes are corners
of that space. The scores, on a scale of 0 to 10:

    safety = 5 + 1.4 light + 0.9 green - 0.8 height - 1.5 decay - 0.5 road + noise
    beauty = 5 + 0.7 light + 1.8 green - 0.5 height - 1.1 decay - 1.0 road + noise

where each number counts from its middle (x - 0.5) * 2 and noise is normal with sd 0.25. `score`,
the column that --study takes by default, repeats safety.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 256
COUNTS = {"train": 16, "val": 4}
# The middle of each class: light, green, height, decay, road.
CLASSES = {
    "alley": (0.30, 0.15, 0.75, 0.75, 0.35),
    "highway": (0.65, 0.30, 0.25, 0.40, 0.85),
    "park": (0.75, 0.85, 0.15, 0.15, 0.20),
    "plaza": (0.80, 0.40, 0.50, 0.20, 0.50),
    "suburb": (0.60, 0.65, 0.35, 0.35, 0.45),
}
SAFETY = (1.4, 0.9, -0.8, -1.5, -0.5)
BEAUTY = (0.7, 1.8, -0.5, -1.1, -1.0)
NOISE = 0.25


def draw(scene: np.ndarray, random: np.random.Generator) -> Image.Image:
    """The picture of a scene, 256 x 256."""
    light, green, height, decay, road = scene
    horizon = int(SIZE * random.uniform(0.5, 0.6))
    image = Image.new("RGB", (SIZE, SIZE))
    pen = ImageDraw.Draw(image)
    for y in range(horizon):
        fade = 0.35 + 0.65 * y / horizon
        blue = (90 + 110 * light * fade, 120 + 100 * light * fade, 130 + 120 * light)
        pen.line((0, y, SIZE, y), fill=tuple(int(v * (0.35 + 0.65 * light)) for v in blue))
    ground = np.array([120, 115, 105]) * (1 - green) + np.array([85, 140, 60]) * green
    pen.rectangle((0, horizon, SIZE, SIZE), fill=shade(ground, light))
    buildings(pen, random, horizon, light, height, decay)
    half = SIZE * (0.1 + 0.45 * road)
    middle = SIZE / 2 + random.uniform(-25, 25)
    tarmac = [
        (middle - 8, horizon),
        (middle + 8, horizon),
        (middle + half, SIZE),
        (middle - half, SIZE),
    ]
    pen.polygon(tarmac, fill=shade(np.array([85, 85, 90]) * (1 - 0.3 * decay), light))
    for i in range(4):
        top = horizon + (SIZE - horizon) * (i + 0.2) / 4.5
        pen.line(
            (middle, top, middle, top + 5 + 4 * i), fill=shade(np.full(3, 210), light), width=2 + i
        )
    trees(pen, random, horizon, light, green)
    for _ in range(int(30 * decay)):
        x, y = random.uniform(0, SIZE), random.uniform(horizon + 10, SIZE - 4)
        pen.rectangle(
            (x, y, x + random.uniform(2, 7), y + 3), fill=shade(random.uniform(40, 150, 3), light)
        )
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), dtype=float)
    pixels += random.normal(0, 3, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shade(colour: np.ndarray, light: float) -> tuple[int, ...]:
    """`colour` as it looks in this light."""
    return tuple(int(v) for v in np.clip(np.asarray(colour) * (0.4 + 0.6 * light), 0, 255))


def buildings(pen, random, horizon, light, height, decay) -> None:
    """A row of houses along the horizon, taller with `height`, with dark windows with `decay`."""
    x = -10.0
    while x < SIZE:
        width = random.uniform(25, 55)
        tall = SIZE * (0.06 + 0.42 * height) * random.uniform(0.7, 1.2)
        wall = random.uniform([120, 95, 80], [200, 175, 150]) * (1 - 0.45 * decay)
        pen.rectangle((x, horizon - tall, x + width, horizon + 12), fill=shade(wall, light))
        for wx in np.arange(x + 4, x + width - 6, 9):
            for wy in np.arange(horizon - tall + 5, horizon + 2, 12):
                dark = random.random() < 0.2 + 0.75 * decay
                pen.rectangle(
                    (wx, wy, wx + 4, wy + 6), fill=(25, 25, 30) if dark else (235, 220, 150)
                )
        x += width + random.uniform(0, 12 * (1 - height))


def trees(pen, random, horizon, light, green) -> None:
    """More and larger trees with `green`."""
    for _ in range(int(1 + 13 * green)):
        x, foot = random.uniform(0, SIZE), horizon + random.uniform(0, 45)
        size = random.uniform(9, 16) + 16 * green * random.random()
        pen.rectangle((x - 2, foot - size, x + 2, foot), fill=shade(np.array([90, 65, 45]), light))
        leaves = random.uniform([35, 95, 30], [80, 150, 60])
        pen.ellipse(
            (x - size, foot - 2.6 * size, x + size, foot - 0.7 * size), fill=shade(leaves, light)
        )


def score(scene: np.ndarray, weights: tuple[float, ...], random: np.random.Generator) -> float:
    """The score that people would give: see the top of this file."""
    value = 5 + np.dot(weights, (scene - 0.5) * 2) + random.normal(0, NOISE)
    return round(float(np.clip(value, 0, 10)), 3)


def main(folder: Path) -> None:
    """Write the pictures and scores.csv."""
    random = np.random.default_rng(2026)
    rows = []
    for split, count in COUNTS.items():
        for name, middle in CLASSES.items():
            for i in range(count):
                scene = (np.array(middle) + random.normal(0, 0.13, 5)).clip(0, 1)
                path = Path(split) / name / f"{i + 1:08d}.jpg"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                draw(scene, random).save(folder / path, quality=80)
                safety, beauty = (score(scene, w, random) for w in (SAFETY, BEAUTY))
                rows.append(
                    (path, safety, safety, beauty, {"train": "train", "val": "test"}[split])
                )
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "score", "safety", "beauty", "split"))
        writer.writerows((p.as_posix(), *rest) for p, *rest in rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "places_test_input")

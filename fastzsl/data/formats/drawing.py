"""Images of `shapes`: one object of a class and distractors, drawn on clutter with Pillow and numpy.

Every attribute is visible on its own (outline, colour, texture), so a class never seen is recognisable from
its attributes, but only by a model that binds the three to one place of the picture: the distractors carry
other combinations of the same attributes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "crescent", "arrow")
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan", "orange", "white")
TEXTURES = ("solid", "stripes", "dots", "checker")

_RGB = {
    "red": (215, 35, 35),
    "green": (40, 165, 60),
    "blue": (45, 75, 215),
    "yellow": (240, 220, 50),
    "magenta": (205, 50, 190),
    "cyan": (60, 205, 215),
    "orange": (245, 135, 30),
    "white": (245, 245, 245),
}
_SUPERSAMPLE = 4
SIZE = 224

Combination = tuple[int, int, int]
"""Indices into SHAPES, COLOURS and TEXTURES."""


def draw_image(
    objects: Sequence[Combination], rng: np.random.Generator, size: int = SIZE
) -> tuple[Image.Image, np.ndarray]:
    """Draw one image.

    Args:
        objects: the combinations to draw; the first is the object of the image's class.
        rng: decides background, places, sizes and rotations.
        size: side of the square image, in pixels.

    Returns:
        The RGB image (size × size) and the bool mask (size, size) of the first object.
    """
    canvas = _clutter(_octaves(rng), size)
    mask = np.zeros((size, size), dtype=bool)
    for i, (place, colour, alpha) in enumerate(_drawn(objects, rng, size)):
        window = canvas[place]
        window += alpha[..., None] * (colour - window)
        if i == 0:
            mask[place] = alpha > 0.5
    canvas += rng.normal(0.0, 6.0, canvas.shape).astype(np.float32)
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)), mask


def draw_mask(objects: Sequence[Combination], rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """The mask of `draw_image`, in a tenth of its time."""
    _octaves(rng)
    mask = np.zeros((size, size), dtype=bool)
    place, _, alpha = next(_drawn(objects, rng, size))
    mask[place] = alpha > 0.5
    return mask


def _drawn(
    objects: Sequence[Combination], rng: np.random.Generator, size: int
) -> Iterator[tuple[tuple[slice, slice], np.ndarray, np.ndarray]]:
    """Where each object lies, its colour and its coverage."""
    for (x, y, radius), combination in zip(_places(len(objects), rng, size), objects):
        colour, alpha = _object(combination, radius, rng)
        side = alpha.shape[0]
        top, left = round(y - side / 2), round(x - side / 2)
        yield (slice(top, top + side), slice(left, left + side)), colour, alpha


def _octaves(rng: np.random.Generator) -> list[np.ndarray]:
    """Random colours, uint8 (cells, cells, 3), of 3, 7 and 14 cells."""
    return [rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8) for cells in (3, 7, 14)]


def _clutter(octaves: Sequence[np.ndarray], size: int) -> np.ndarray:
    """The octaves, smooth and added, float32 (size, size, 3)."""
    canvas = np.zeros((size, size, 3), dtype=np.float32)
    for cells, weight in zip(octaves, (0.6, 0.3, 0.1)):
        smooth = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
        canvas += weight * np.asarray(smooth, dtype=np.float32)
    return 0.75 * canvas + 16.0


def _places(count: int, rng: np.random.Generator, size: int) -> list[tuple[float, float, float]]:
    """Centres and radii (x, y, radius) of `count` circles inside the image that do not overlap.

    Radii are drawn first and shrink a little whenever the circles cannot be placed, so that any number of
    distractors ends with an image.
    """
    radii = rng.uniform(0.13, 0.20, count) * size
    while True:
        placed: list[tuple[float, float, float]] = []
        for radius in radii:
            for _ in range(60):
                x, y = rng.uniform(radius + 3, size - radius - 3, 2)
                if all(math.hypot(x - u, y - v) > radius + r + 2 for u, v, r in placed):
                    placed.append((x, y, radius))
                    break
            else:
                break
        if len(placed) == count:
            return placed
        radii = radii * 0.95


def _object(
    combination: Combination, radius: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (side, side, 3) and coverage (side, side) of one object, side the even number above 2·radius."""
    shape, colour, texture = (
        names[i] for names, i in zip((SHAPES, COLOURS, TEXTURES), combination, strict=True)
    )
    side = 2 * math.ceil(radius)
    angle = rng.uniform(0, 2 * math.pi)
    alpha = _outline(shape, side, radius, angle)
    ink = np.array(_RGB[colour], dtype=np.float32) * rng.uniform(0.88, 1.04)
    grid = np.arange(side, dtype=np.float32) - (side - 1) / 2
    turn = angle + rng.uniform(0, math.pi)
    u = math.cos(turn) * grid[None, :] + math.sin(turn) * grid[:, None]
    v = math.cos(turn) * grid[:, None] - math.sin(turn) * grid[None, :]
    period = max(9.0, radius * rng.uniform(0.36, 0.46))
    return _paint(texture, ink, u / period, v / period, period), alpha


def _paint(texture: str, ink: np.ndarray, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    """The ink, or the ink with a near-black second one in a pattern; u, v in periods of the pattern."""
    if texture == "solid":
        return np.broadcast_to(ink, (*u.shape, 3))
    if texture == "stripes":
        wave = np.sin(2 * math.pi * u)
    elif texture == "checker":
        wave = np.sin(math.pi * u) * np.sin(math.pi * v) * 2
    else:
        wave = 0.62 - 2 * np.hypot((u % 1) - 0.5, (v % 1) - 0.5)
    share = np.clip(0.5 + wave * period / 5, 0, 1)[..., None]
    return ink + share * (0.12 * ink - ink)


def _outline(shape: str, side: int, radius: float, angle: float) -> np.ndarray:
    """Antialiased coverage in [0, 1], float32 (side, side)."""
    fine = side * _SUPERSAMPLE
    image = Image.new("L", (fine, fine), 0)
    pen = ImageDraw.Draw(image)
    centre, scale = fine / 2, radius * _SUPERSAMPLE * 0.97
    cos, sin = math.cos(angle), math.sin(angle)

    def at(x: float, y: float) -> tuple[float, float]:
        return centre + scale * (cos * x - sin * y), centre + scale * (sin * x + cos * y)

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        (cx, cy), r = at(x, y), r * scale
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    def polygon(points: Sequence[tuple[float, float]]) -> None:
        pen.polygon([at(x, y) for x, y in points], fill=255)

    if shape == "circle":
        disc(0, 0, 0.92)
    elif shape == "crescent":
        disc(0, 0, 0.95)
        disc(0.48, 0, 0.72, fill=0)
    elif shape == "heart":
        disc(-0.42, -0.28, 0.48)
        disc(0.42, -0.28, 0.48)
        polygon([(-0.84, -0.05), (-0.4, -0.3), (0, -0.25), (0.4, -0.3), (0.84, -0.05), (0, 0.95)])
    else:
        polygon(_POLYGONS[shape])
    return np.asarray(image.reduce(_SUPERSAMPLE), dtype=np.float32) / 255


def _star(points: int = 5, inner: float = 0.42) -> list[tuple[float, float]]:
    turns = [math.pi * (i / points - 0.5) for i in range(2 * points)]
    return [((1, inner)[i % 2] * math.cos(t), (1, inner)[i % 2] * math.sin(t)) for i, t in enumerate(turns)]


_POLYGONS = {
    "square": [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "triangle": [(0, -0.98), (0.85, 0.5), (-0.85, 0.5)],
    "star": _star(),
    "cross": [
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ],
    "arrow": [(0, -0.97), (0.78, -0.1), (0.3, -0.1), (0.3, 0.92), (-0.3, 0.92), (-0.3, -0.1), (-0.78, -0.1)],
}  # fmt: skip

"""Draws one anti-aliased shape on a plain ground, in whole numbers: the same bytes on every machine."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UNIT = 1 << 16  # the side of a picture

SAMPLES = 8  # points a side in which a pixel is looked at

TURN = 1 << 14  # the 1 of sines and cosines

Points = NDArray[np.int64]

Colour = tuple[int, int, int]  # 0 .. 255


class Look(NamedTuple):
    """A picture: lengths in units of 1 / 65536 of its side, x to the right and y down, degrees."""

    shape: str
    x: int
    y: int
    radius: int  # of the circle around the shape
    degrees: int
    colour: Colour
    background: Colour


def _square(u: Points, v: Points, r: int) -> NDArray[np.bool_]:
    half = r * 46341 >> 16  # r / sqrt(2)
    return (abs(u) <= half) & (abs(v) <= half)


def _triangle(u: Points, v: Points, r: int) -> NDArray[np.bool_]:
    """Equilateral, a corner up: 28378 / 16384 is the root of 3."""
    return (2 * v <= r) & (28378 * abs(u) - 16384 * v <= 16384 * r)


def _ellipse(u: Points, v: Points, r: int) -> NDArray[np.bool_]:
    """Twice as wide as it is high."""
    return u * u + 4 * v * v <= r * r


def _cross(u: Points, v: Points, r: int) -> NDArray[np.bool_]:
    """Two bars, a third as wide as they are long."""
    long, short = r * 15 >> 4, r * 5 >> 4
    lying = (abs(u) <= long) & (abs(v) <= short)
    return lying | ((abs(v) <= long) & (abs(u) <= short))


SHAPES: dict[str, Callable[[Points, Points, int], NDArray[np.bool_]]] = {
    "square": _square,
    "triangle": _triangle,
    "ellipse": _ellipse,
    "cross": _cross,
}


def drawn(look: Look, size: int) -> NDArray[np.uint8]:
    """The picture as (size, size, 3) uint8.

    A pixel is mixed of both colours by the share of its 64 points that lie in the shape, rounded.
    """
    first_row, last_row = _covered(look.y, look.radius, size)
    first_column, last_column = _covered(look.x, look.radius, size)
    y = _points(first_row, last_row, size) - look.y
    x = _points(first_column, last_column, size) - look.x
    cosine, sine = (round(f(math.radians(look.degrees)) * TURN) for f in (math.cos, math.sin))
    u = (x[None] * cosine + y[:, None] * sine) >> 14
    v = (y[:, None] * cosine - x[None] * sine) >> 14
    inside = SHAPES[look.shape](u, v, look.radius)
    rows, columns = last_row - first_row, last_column - first_column
    share = inside.reshape(rows, SAMPLES, columns, SAMPLES).sum((1, 3))[..., None]
    ground, colour = np.array(look.background), np.array(look.colour)
    whole = SAMPLES**2
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = ground
    picture[first_row:last_row, first_column:last_column] = (
        ground * (whole - share) + colour * share + whole // 2
    ) // whole
    return picture


def _covered(centre: int, radius: int, size: int) -> tuple[int, int]:
    """First pixel, and the one after the last, that a circle may touch."""
    first, last = (centre - radius) * size // UNIT, (centre + radius) * size // UNIT + 1
    return min(max(first, 0), size - 1), min(max(last, 1), size)


def _points(first: int, last: int, size: int) -> Points:
    """Places of the points of these pixels."""
    numbers = np.arange(first * SAMPLES, last * SAMPLES, dtype=np.int64)
    return (2 * numbers + 1) * UNIT // (2 * size * SAMPLES)

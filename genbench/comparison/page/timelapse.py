"""Grids of fixed latents over a training, all methods under one slider. Imports no torch."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST_BYTES = 2_000_000  # of pictures on a page, which writes 4 characters for 3 bytes
MOST_FRAMES = 10  # of a method
ROWS = 8  # of a whole grid


@dataclass(frozen=True)
class Frame:
    """A grid after so many images, as an address that a page may use."""

    images: int
    address: str


@dataclass(frozen=True)
class Timelapse:
    """Frames by method, and all numbers of images at which one has a frame, in order."""

    films: Mapping[str, Sequence[Frame]]
    places: Sequence[int]
    latents: int  # of the 64 that are shown


def timelapse(where: Mapping[str, Sequence[Path]], room: int = MOST_BYTES) -> Timelapse | None:
    """The films of every method's first seed; None where none has two frames.

    Where all files are larger than `room`, only the upper rows of each grid are shown.
    """
    grids = {label: _thinned(_grids(own[0])) for label, own in where.items() if own}
    found = {label: own for label, own in grids.items() if len(own) > 1}
    if not found:
        return None
    size = sum(path.stat().st_size for own in found.values() for path in own.values())
    rows = max(1, min(ROWS, int(ROWS * room / max(1, size))))
    films = {
        label: [Frame(images, _address(path, rows)) for images, path in own.items()]
        for label, own in found.items()
    }
    places = sorted({images for own in found.values() for images in own})
    return Timelapse(films, places, 8 * rows)


def _grids(run: Path) -> dict[int, Path]:
    """The sample grids of a run by the images (steps x batch) after which they were drawn."""
    return {
        int(path.stem.partition("-")[2]): path
        for path in sorted((run / "samples").glob("samples-[0-9]*.png"))
        if path.stem.partition("-")[2].isdigit()
    }


def _thinned(grids: Mapping[int, Path]) -> dict[int, Path]:
    """At most so many, evenly, with the first and the last."""
    places = sorted(grids)
    if len(places) > MOST_FRAMES:
        step = (len(places) - 1) / (MOST_FRAMES - 1)
        places = [places[round(step * number)] for number in range(MOST_FRAMES)]
    return {images: grids[images] for images in places}


def _address(path: Path, rows: int) -> str:
    content = path.read_bytes()
    if rows < ROWS:
        with Image.open(path) as grid:
            width, height = grid.size
            side = (width - 2) // 8  # an image and the line beside it
            buffer = io.BytesIO()
            grid.crop((0, 0, width, min(height, rows * side + 2))).save(buffer, "PNG")
            content = buffer.getvalue()
    return "data:image/png;base64," + base64.b64encode(content).decode()

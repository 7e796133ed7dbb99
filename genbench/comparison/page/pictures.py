"""Grids of several methods, a PNG each, as a page shows them. Imports nothing heavy."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A grid of one method, a PNG; `note` has the scores that belong to it.

    `texts` belong to its single pictures, `columns` of which are in a row.
    """

    label: str
    path: Path
    note: str = ""
    texts: Sequence[str] = ()
    columns: int = 8

    @property
    def address(self) -> str:
        """The picture itself, as an address that a page may use."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        with Image.open(self.path) as picture:
            return picture.size


@dataclass(frozen=True)
class Gallery:
    """One kind of picture of several methods; `absent` names those that cannot draw it."""

    kind: str
    caption: str
    pictures: Sequence[Picture]
    absent: Sequence[str]

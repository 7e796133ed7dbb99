"""The only clock of a run: images shown to the decoder."""

import re

from genbench.errors import UserMistake

_SUFFIX = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def parse_images(text: str | int) -> int:
    """Read `2_000_000`, `500k` or `1.5M` as a number of images."""
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kMG]?)", str(text).strip())
    if not match:
        raise UserMistake(
            f"budget.images={text!r} is not a number of images: write 2_000_000, 500k or 1.5M"
        )
    return round(float(match[1].replace("_", "")) * _SUFFIX[match[2]])

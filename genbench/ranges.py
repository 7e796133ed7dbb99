"""Which values a setting takes: rules for constructors, answered by a sentence before anything is trained."""

import math
from typing import Any

from genbench.errors import UserMistake


def whole(name: str, value: Any, least: int | None = 1, most: int | None = None) -> None:
    """Refuse what is no whole number from `least` to `most` (None: without bound). Raises UserMistake."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not _within(value, least, most):
        raise UserMistake(f"{name}={value}: give a whole number{_bounds(least, most)}")


def number(
    name: str, value: Any, least: float | None = 0, most: float | None = None, above: bool = False
) -> None:
    """Refuse what is no finite number from `least` to `most`; with `above`, `least` itself too.

    Raises UserMistake.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if (
        not is_number
        or not math.isfinite(value)
        or not _within(value, least, most)
        or (above and value == least)
    ):
        bounds = f" above {least:g}" if above and least is not None else _bounds(least, most)
        raise UserMistake(f"{name}={value}: give a number{bounds}")


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if most is not None:
        return f" from {least:g} to {most:g}" if least is not None else f" up to {most:g}"
    return "" if least is None else f" from {least:g} on"

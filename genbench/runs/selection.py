"""Selections like `model=gan status=failed`. Imports no torch."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.budget import parse_images

_ABSENT = object()
S = TypeVar("S")
T = TypeVar("T")


def parse_selections(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Part references to runs from selections like `model=gan`, as (key, values)."""
    references, selections = [], []
    for argument in arguments:
        key, equals, wanted = argument.partition("=")
        if equals and not Path(argument).exists():
            selections.append((key, wanted))
        else:
            references.append(argument)
    return references, selections


def unless_damaged(read: Callable[[S], T], run: S) -> T | None:
    """`read(run)`, or None where a file of the run is damaged, which is said on stderr.

    For what looks at many runs: one damaged file must not hide the others.
    """
    try:
        return read(run)
    except GenbenchError as error:
        print(f"genbench: left out: {error}", file=sys.stderr)
        return None


def fits(config: Mapping[str, Any], key: str, wanted: str) -> bool:
    """Does a config have one of the values of the comma list `wanted`?

    `key` is one of `choices` or a dotted path. Numbers are compared as numbers.
    """
    value = (config.get("choices") or {}).get(key, _ABSENT)
    if value is _ABSENT:
        value = _select(config, key)
    if value is _ABSENT:  # a VAE's beta selects VAEs
        return False
    values = value if isinstance(value, list) else [value]
    return any(_equal(key, v, text) for v in values for text in wanted.split(","))


def _equal(key: str, value: Any, text: str) -> bool:
    """Does a setting have the value that was typed? A number may be typed in any way."""
    read = parse_images if key == "budget.images" else float
    if key == "budget.images" or (isinstance(value, int | float) and not isinstance(value, bool)):
        with suppress(ValueError, UserMistake):
            return bool(read(text) == read(value))
    return _plain(value) == text


def _select(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _plain(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)

"""Selections of runs such as `model=gan status=failed`. Imports no torch."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.budget import parse_images
from genbench.runs.dataset_name import dataset_name

_ABSENT = object()
S = TypeVar("S")
T = TypeVar("T")


def parse_selections(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split arguments into references to runs and selections like `model=gan`, as (key, values)."""
    references, selections = [], []
    for argument in arguments:
        key, equals, wanted = argument.partition("=")
        if equals and not Path(argument).exists():
            selections.append((key, wanted))
        else:
            references.append(argument)
    return references, selections


def unless_damaged(read: Callable[[S], T], run: S) -> T | None:
    """`read(run)`, or None with a line on stderr if it raises GenbenchError.

    For commands on many runs, which one damaged file must not stop.
    """
    try:
        return read(run)
    except GenbenchError as error:
        print(f"genbench: left out: {error}", file=sys.stderr)
        return None


def fits(config: Mapping[str, Any], key: str, wanted: str) -> bool:
    """Whether the value of `key` in a config is one of the comma-separated values in `wanted`.

    `key` is a config group (a key of `choices`) or a dotted path; `dataset` is also the name that tables
    give it. Numbers are compared as numbers.
    False if the config has no such key: `model.beta=1` selects only models that have a beta.
    """
    value = (config.get("choices") or {}).get(key, _ABSENT)
    if value is _ABSENT:
        value = _select(config, key)
    if value is _ABSENT:
        return False
    values = value if isinstance(value, list) else [value]
    if key == "dataset":
        values = [*values, dataset_name(config)]
    return any(_equal(key, v, text) for v in values for text in wanted.split(","))


def _equal(key: str, value: Any, text: str) -> bool:
    """Whether a setting has the value `text`; numbers may be written in any way, as 1e-3 and 0.001."""
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

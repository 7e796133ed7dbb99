"""Faults in config files of the user's own, found again by file and line where an error names neither."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from genbench.runs.files import first_line
from genbench.runs.paths import user_config_directories


def own_files(overrides: Sequence[str]) -> list[Path]:
    """The YAML files of the user's config folders, those that `overrides` add (hydra.searchpath) first."""
    added = re.findall(r"file://([^,\]]+)", " ".join(overrides))  # by --config-dir or searchpath
    folders = [*map(Path, added), *user_config_directories()]
    return [path for folder in folders for path in sorted(folder.rglob("*.yaml"))]


def not_mappings(overrides: Sequence[str]) -> list[Path]:
    """Those that hold something else than a mapping."""
    found = []
    for path in own_files(overrides):
        with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if content is not None and not isinstance(content, dict):
                found.append(path)
    return found


def unreadable(error: Exception, overrides: Sequence[str]) -> str | None:
    """The file, the line and the fault of a UnicodeDecodeError or an interpolation's error; else None."""
    places: dict[str, str] = {}
    for path in own_files(overrides):
        with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
            find = _not_text if isinstance(error, UnicodeDecodeError) else _no_interpolation
            for line, reason, problem in find(path):
                places.setdefault(reason, f"{path}, line {line}, {problem}")
    same = [place for reason, place in places.items() if reason in f"{error} {error.__cause__}"]
    return next(iter([*same, *places.values()]), None)


def _not_text(path: Path) -> Iterator[tuple[int, str, str]]:
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield line, str(error), f"is not UTF-8 text ({error.reason}): save the file as UTF-8"


def _no_interpolation(path: Path) -> Iterator[tuple[int, str, str]]:
    for line, value in _texts(yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)):
        try:
            OmegaConf.create({"value": value})
        except GrammarParseError as error:
            reason = first_line(error)
            yield (
                line,
                reason,
                f"has an interpolation that cannot be read, {value!r} ({reason}): write "
                "${group.key}, or \\${ for the letters themselves",
            )


def _texts(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """(line, text) of every scalar with an interpolation."""
    if isinstance(node, yaml.ScalarNode) and "${" in node.value:
        yield node.start_mark.line + 1, node.value
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _texts(child)
    elif isinstance(node, yaml.MappingNode):
        for _, child in node.value:
            yield from _texts(child)

"""`genbench list`: the options of a config group, and where each comes from."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from genbench.errors import DONE, UserMistake
from genbench.launch.hydra_internals import options_of_groups
from genbench.launch.mistakes import explained
from genbench.launch.settings import close_matches
from genbench.runs.paths import config_root, user_config_directories
from genbench.runs.plugins import plugins

OWN = "genbench"


def main(argv: Sequence[str]) -> int:
    """Print a line per option; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench list",
        description="Print the options of a group with their origin: genbench, your own folder, or an "
        "installed plug-in. The first that has a name is taken: yours, genbench's, a plug-in's.",
        epilog="examples: genbench list models · genbench list datasets · genbench list experiments",
    )
    parser.add_argument("group", help="models, networks, datasets, evaluations, ...")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(list(argv))
    with explained([]):
        groups = {n: o for n, o in options_of_groups("train").items() if _is_shown(n)}
        group = _group(options.group, list(groups))
    rows = [_row(group, option) for option in groups[group]]
    if options.format == "json":
        names = (group, "origin", "file", "class", "about")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
        return DONE
    table = Table(group, "origin", "class", "", box=None, pad_edge=False)
    for name, origin, _, target, about in rows:
        table.add_row(name, origin, target.rpartition(".")[2], about)
    Console().print(table, markup=False)
    return DONE


def _is_shown(group: str) -> bool:
    return not group.startswith("hydra") and "/_" not in group and group != ""


def _group(asked: str, groups: Sequence[str]) -> str:
    """The group that is meant by its name or its plural. UserMistake."""
    for name in (asked, asked.removesuffix("s"), re.sub("ies$", "y", asked)):
        if name in groups:
            return name
    near = close_matches(asked.removesuffix("s"), groups, cutoff=0.5)
    question = f"did you mean {near[0]}? There" if near else "there"
    raise UserMistake(f"there is no group {asked}: {question} are {', '.join(groups)}")


def _row(group: str, option: str) -> tuple[str, str, str, str, str]:
    for origin, folder in _folders():
        path = folder / group / f"{option}.yaml"
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            target = re.search(r"^_target_: *(\S+)", text, flags=re.MULTILINE)
            about = re.match(r"# *(.+)", text)
            return option, origin, str(path), target[1] if target else "", about[1] if about else ""
    return option, "?", "", "", ""


def _folders() -> list[tuple[str, Path]]:
    """(origin, folder) in the order in which Hydra looks."""
    own = [(str(folder), folder) for folder in user_config_directories()]
    brought = [(f"plug-in {p.name}", p.folder) for p in plugins() if p.folder is not None]
    return [*own, (OWN, config_root()), *brought]

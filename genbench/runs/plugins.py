"""Installed packages that bring models, networks, datasets and more: entry points `genbench.configs`.

A package says so in its pyproject.toml: `[project.entry-points."genbench.configs"]`, with a line
`my-rows = "my_rows"`. Its folder `configs` is then searched as one of genbench's own, and its classes may be
named by any run. Nothing here imports a package. No torch.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from genbench.errors import Notice

GROUP = "genbench.configs"


@dataclass(frozen=True)
class Plugin:
    """An installed package with configs: its entry point's name, its import path, and their folder."""

    name: str
    package: str
    folder: Path | None  # None if there is none: `problem` says why
    problem: str = ""


@cache
def plugins() -> tuple[Plugin, ...]:
    """The installed plug-ins, by name."""
    found = {(entry.name, entry.value) for entry in entry_points(group=GROUP)}
    return tuple(_plugin(name, value) for name, value in sorted(found))


def plugin_packages() -> list[str]:
    """Import paths of the packages that installed plug-ins declare."""
    return [plugin.package for plugin in plugins()]


def config_folders() -> list[Path]:
    """The folders of configs that plug-ins bring; a warning for one that has none."""
    for plugin in plugins():
        if plugin.folder is None:
            warnings.warn(
                f"the plug-in {plugin.name} is left out: {plugin.problem}", Notice, stacklevel=2
            )
    return [plugin.folder for plugin in plugins() if plugin.folder is not None]


def _plugin(name: str, package: str) -> Plugin:
    """Find the folder of a plug-in without running its code: of `a.b`, `a` is not imported either."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        return Plugin(name, package, None, f"{top} cannot be found ({error}): install it again")
    if spec is None or not spec.submodule_search_locations:
        return Plugin(name, package, None, f"{top} is no installed package: install it again")
    roots = [Path(place, *rest) for place in spec.submodule_search_locations]
    folder = next((root / "configs" for root in roots if (root / "configs").is_dir()), None)
    problem = (
        "" if folder else f"{package} has no folder `configs`: reinstall it, or tell its authors"
    )
    return Plugin(name, package, folder, problem)

"""Puts the user's own configs before genbench's; other Hydra applications are left alone."""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class GenbenchConfigs(SearchPathPlugin):
    """Prepends `./genbench_configs` or the folders of `$GENBENCH_CONFIG_PATH`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Act only when it is genbench that composes: every Hydra application loads this class."""
        paths = sys.modules.get("genbench.runs.paths")
        if paths is None:
            return
        there = [entry.path for entry in search_path.get_path() if entry.provider == "main"]
        if str(paths.config_root()) not in [path.removeprefix("file://") for path in there]:
            return
        for directory in reversed(paths.user_config_directories()):
            search_path.prepend(provider="user", path=f"file://{directory}")

"""Puts the user's own configs before genbench's and plug-ins' after, and names datasets.

Other applications are left alone.
"""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf


class GenbenchConfigs(SearchPathPlugin):
    """Prepends `./genbench_configs` or `$GENBENCH_CONFIG_PATH`, appends the folders of plug-ins."""

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
        from genbench.runs.plugins import config_folders

        for folder in config_folders():  # last: a plug-in does not replace what genbench ships
            search_path.append(provider="plug-in", path=f"file://{folder}")


def _own_name(root: str | None) -> str:
    """`${genbench.own_name:PATH}`: what a folder or zip of pictures is called."""
    from genbench.runs.dataset_name import own_name

    return own_name(root)


OmegaConf.register_new_resolver("genbench.own_name", _own_name, replace=True)

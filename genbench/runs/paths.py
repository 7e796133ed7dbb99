"""Where things are: runs, caches, configs. Imports no torch."""

import os
from pathlib import Path

from genbench.errors import UserMistake


def cache_folder() -> Path:
    """Where genbench keeps what it can make again."""
    return Path(os.environ.get("GENBENCH_CACHE") or "~/.cache/genbench").expanduser()


def config_root() -> Path:
    """Absolute path of genbench's configs: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def user_config_directories() -> list[Path]:
    """Folders whose configs come before genbench's, first one first; missing ones raise."""
    named = os.environ.get("GENBENCH_CONFIG_PATH")
    if not named:
        here = Path("genbench_configs").resolve()
        return [here] if here.is_dir() else []
    directories = [Path(part).expanduser().resolve() for part in named.split(os.pathsep) if part]
    for directory in directories:
        if not directory.is_dir():
            raise UserMistake(
                f"GENBENCH_CONFIG_PATH names {directory}, which is not a directory: "
                "correct it or unset it"
            )
    return directories


# --- making one ---------------------------------------------------------------------------------
def default_outputs() -> Path:
    """Where runs are kept when nobody says otherwise."""
    return Path(os.environ.get("GENBENCH_OUTPUTS", "outputs")).expanduser()

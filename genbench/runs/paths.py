"""Paths of the folders for runs, cache and configs. Imports no torch."""

import os
from pathlib import Path

from genbench.errors import UserMistake


def cache_folder() -> Path:
    """Folder for features, decoded datasets, extractors' weights and indexes; deleting it loses no run."""
    return Path(os.environ.get("GENBENCH_CACHE") or "~/.cache/genbench").expanduser()


def state_folder() -> Path:
    """Folder of what genbench remembers about this user: $GENBENCH_STATE, else the system's for state.

    Keep it to yourself: what it records as trusted is run as code. RuntimeError without a home directory.
    """
    own = os.environ.get("GENBENCH_STATE")
    if own:
        return Path(own).expanduser()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "genbench"


def config_root() -> Path:
    """Absolute path of genbench's configs: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def reproduce_root() -> Path:
    """Absolute path of the rows of `genbench reproduce`: in the wheel, or beside the package."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "reproduce"
    return shipped if shipped.is_dir() else package.parent / "reproduce"


def user_config_directories() -> list[Path]:
    """Folders whose configs take precedence over genbench's, in that order.

    Those of $GENBENCH_CONFIG_PATH, or `./genbench_configs` if it exists. UserMistake if one named there
    does not exist.
    """
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


def default_outputs() -> Path:
    """Folder of the runs unless `paths.outputs` or `--outputs` is given."""
    return Path(os.environ.get("GENBENCH_OUTPUTS", "outputs")).expanduser()

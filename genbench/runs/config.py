"""`config.yaml`, the resolved config of a run. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from genbench.errors import GenbenchError, UserMistake
from genbench.runs.files import first_line, write_text
from genbench.runs.moved import renamed

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(run: Path) -> dict[str, Any]:
    """Read the resolved config of a run as plain types, with the present names of moved classes.

    Raises UserMistake if there is none, GenbenchError if it cannot be read.
    """
    try:
        return read_yaml(run / "config.yaml")
    except FileNotFoundError:
        raise UserMistake(f"{run} is not a run: it has no config.yaml") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, as `read_config` does.

    Raises FileNotFoundError, and GenbenchError if it cannot be read.
    """
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GenbenchError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(config, dict):
        raise GenbenchError(f"{path} cannot be read: it is not a mapping")
    return renamed(config)


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved config of a run atomically."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    write_text(run / "config.yaml", text)

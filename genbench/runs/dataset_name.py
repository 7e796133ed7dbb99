"""The name by which tables and dashboards call a run's dataset. Imports no torch."""

import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from genbench.runs.paths import config_root

OWN_PICTURES = "image-folder"  # the option for them, and once the name of all of them


def own_name(root: str | None) -> str:
    """The name of a user's own pictures: that of their folder or zip, without its ending.

    Letters, digits, dots, dashes and underscores are kept. A folder called like a shipped dataset must
    not be taken for it: `image-folder-mnist`. Without a root, or without a name, `image-folder`.
    """
    if root is None:
        return OWN_PICTURES
    name = os.path.basename(os.path.abspath(os.path.expanduser(str(root))))
    name = re.sub(r"\.zip$", "", name, flags=re.IGNORECASE)
    name = plain(name).strip("-.") or OWN_PICTURES
    return f"{OWN_PICTURES}-{name}" if name in _shipped() - {OWN_PICTURES} else name


def plain(name: str) -> str:
    """A name without what file names and links do not bear."""
    return re.sub(r"[^\w.-]+", "-", name)


def dataset_name(config: Mapping[str, Any], otherwise: str = "?") -> str:
    """What tables call the dataset of a run: `dataset.name` if the option is one of genbench's.

    A config file of a user's own is called by its file name: it may have inherited the other. `otherwise`
    is for configs that name no option.
    """
    option = str((config.get("choices") or {}).get("dataset") or otherwise)
    name = (config.get("dataset") or {}).get("name")
    return str(name) if name and option in _shipped() else option


def as_named_before(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config with the name that all image folders had once; None if it was named by the user."""
    dataset = config["dataset"]
    if (config.get("choices") or {}).get("dataset") != OWN_PICTURES:
        return None
    if dataset.get("name") != own_name(dataset.get("root")):
        return None
    return {**config, "dataset": {**dataset, "name": OWN_PICTURES}}


def same_pictures(config: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether two configs have roots of the same name."""
    roots = [dict(c["dataset"]).get("root") for c in (config, before)]
    return own_name(roots[0]) == own_name(roots[1])


def other_pictures(config: Mapping[str, Any], before: Mapping[str, Any]) -> str | None:
    """The root of the earlier config if it has other pictures than this one's; None if not, or if not known.

    Known they are where both roots are there: a folder that was moved, or is on another machine, is not.
    """
    mine, other = (_own_root(c) for c in (config, before))
    if not mine or not other or not (os.path.exists(mine) and os.path.exists(other)):
        return None
    if os.path.realpath(mine) == os.path.realpath(other) or _sizes(mine) == _sizes(other):
        return None
    return str(other)


def _own_root(config: Mapping[str, Any]) -> str | None:
    """Where a user's own pictures are; None for data sets that are known by their name."""
    dataset = dict(config["dataset"])
    own = str((dataset.get("source") or {}).get("_target_", "")).endswith(".folders.Folder")
    return str(dataset["root"]) if own and dataset.get("root") else None


def _sizes(root: str) -> list[tuple[str, int]]:
    """Names and sizes of the files below a folder, or the size of a zip."""
    if not os.path.isdir(root):
        return [("", os.path.getsize(root))]
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            size = os.path.getsize(path) if os.path.exists(path) else -1  # a link to nowhere
            found.append((os.path.relpath(path, root), size))
    return sorted(found)


@cache
def _shipped() -> frozenset[str]:
    """Options of genbench's own for the dataset."""
    return frozenset(path.stem for path in (config_root() / "dataset").glob("*.yaml"))

"""Looks at what a run's config names before anything of it is called; see `runs.trust`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from genbench.errors import UserMistake
from genbench.runs import trust
from genbench.runs.config import read_config
from genbench.runs.plugins import plugin_packages


def check(run: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config of a run, all of whose targets may be called; UserMistake names the one that may not.

    A name may belong to genbench and what it names not: `genbench.device.subprocess.Popen` would be found. So
    it is looked up as Hydra will do it, which calls nothing, and must be a class that is defined in these
    packages, of torch a module, an optimizer or a schedule.
    """
    config = read_config(run) if config is None else config
    trust.check(run, config)
    for part in trust.parts(config):
        if part.is_class and not (trust.is_recorded(part) or _is_admissible(part)):
            raise UserMistake(trust.refusal(run, part))
    return dict(config)


def _is_admissible(part: trust.Part) -> bool:
    if not isinstance(part.content["_target_"], str):
        return False
    if part.what in trust.FUNCTIONS:
        return True
    try:
        found = get_object(part.what)
    except Exception:  # a plug-in may raise anything when it is imported
        return True  # building it will raise the same, before anything is called
    if not isinstance(found, type):
        return False
    if not part.what.startswith("torch."):
        return any(_in(found.__module__, own) for own in (*trust.SHELVES, *plugin_packages()))
    in_torch = any(_in(found.__module__, own) for own in trust.TORCH)
    return in_torch and issubclass(found, nn.Module | Optimizer | LRScheduler)


def _in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")

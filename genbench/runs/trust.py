"""Which parts of a run's config may be built: a run from elsewhere is data, never code. No torch.

A config names classes by `_target_`, and building it calls them. When a run that exists is built again (to
be sampled, scored, resumed or loaded), only these are called: classes of genbench's own shelves, modules of
torch.nn, optimizers of torch.optim, classes of installed plug-ins (entry point `genbench.configs`), and what
this machine has trained before. The last is a record outside of every run: a file for each such part, named
by the sha256 of the part with all its arguments. It is written when a run is made here, and by `--trust`.

What is found here is found by name. `training.targets` also imports what passes, and looks at it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.config import read_config
from genbench.runs.files import explain_os_error
from genbench.runs.moved import first_named
from genbench.runs.paths import state_folder
from genbench.runs.plugins import plugin_packages

# packages of genbench whose classes a config names; the launcher's and the commands' are not among them
SHELVES = (
    "genbench.models",
    "genbench.networks",
    "genbench.losses",
    "genbench.data",
    "genbench.metrics",
    "genbench.training",
    "genbench.priors",
    "genbench.runs.budget",
)
TORCH = ("torch.nn", "torch.optim")
FUNCTIONS = ("genbench.priors.truncated.curve",)  # the only ones: each makes objects of a shelf
A_CLASS = (
    r"(?:[a-z_][a-z0-9_]*\.)+[A-Z]\w*"  # lower-case modules, then a class: no method, no function
)
A_CHOICE = (r"[\w@/-]+", r"[\w./+-]*")  # a config group, and the name of one of its options
FLAG = "--trust"


@dataclass(frozen=True)
class Part:
    """A part of a config: where it is (`model.decoder`), what it would call or read, and all of it."""

    where: str
    what: str
    content: Any
    is_class: bool = True  # else it is an interpolation or a choice

    def key(self) -> str:
        """The sha256 of the content, in which moved classes have their first names."""
        text = json.dumps(_first_named(self.content), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _first_named(content: Any) -> Any:
    """With the first names of moved classes, and with texts as keys, as JSON has them."""
    if isinstance(content, Mapping):
        named = first_named(dict(content))
        return {str(key): _first_named(value) for key, value in named.items()}
    return [_first_named(value) for value in content] if isinstance(content, list) else content


def parts(config: Any, where: str = "") -> Iterator[Part]:
    """Every mapping with a `_target_`, at any depth, and every text that OmegaConf would interpolate."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield Part(where or "the config", str(config["_target_"]), config)
        for key, value in config.items():
            yield from parts(value, f"{where}.{key}" if where else str(key))
    elif isinstance(config, list | tuple):
        for place, value in enumerate(config):
            yield from parts(value, f"{where}[{place}]")
    elif isinstance(config, str) and "${" in config:
        yield Part(where, config, config, is_class=False)


def unknown_parts(config: Mapping[str, Any]) -> list[Part]:
    """The parts that are neither known by name nor recorded on this machine."""
    return [part for part in _unnamed(config) if not is_recorded(part)]


def _unnamed(config: Mapping[str, Any]) -> Iterator[Part]:
    """The parts whose names say nothing of where their code comes from."""
    for part in parts(config):
        if not (part.is_class and is_known(part.what)):
            yield part
    # Hydra composes the defaults of a run's choices when it is scored or resumed
    choices = config.get("choices") or {}
    for group, option in choices.items() if isinstance(choices, Mapping) else [(choices, "")]:
        for pattern, text in zip(A_CHOICE, (group, option), strict=True):
            if option is not None and not re.fullmatch(pattern, str(text)):
                yield Part(f"choices.{group}", str(text), [group, str(option)], is_class=False)


def is_known(target: str) -> bool:
    """Whether a target is by its name a class of genbench, torch.nn, torch.optim or a plug-in."""
    if target in FUNCTIONS:
        return True
    if not re.fullmatch(A_CLASS, target):
        return False
    if any(_below(target, package) for package in (*SHELVES, *TORCH)):
        return True
    return any(_below(target, package) for package in plugin_packages())


def _below(target: str, package: str) -> bool:
    return target.startswith(f"{package}.")


def is_recorded(part: Part) -> bool:
    """Whether this machine has made, or was told to trust, this part with these arguments."""
    with suppress(OSError, RuntimeError):
        return (_folder() / part.key()).exists()
    return False


def check(run: Path, config: Mapping[str, Any] | None = None) -> None:
    """Refuse a run that names what is not known by name. UserMistake; nothing is imported or called."""
    config = read_config(run) if config is None else config
    for part in unknown_parts(config):
        raise UserMistake(refusal(run, part))


def refusal(run: Path, part: Part) -> str:
    """The sentence that names what is refused, and the way out."""
    name = run.resolve().name
    if not part.is_class:
        return (
            f"{name} has {part.what!r} as its {part.where}, which could read settings of this machine, and "
            f"no run was made with it here: if you know where this run is from, add {FLAG}"
        )
    return (
        f"{name} names {part.what} as its {part.where}, which is no class of genbench, torch.nn, torch.optim "
        "or an installed plug-in, and no run was made with it here: it could be any code; if you "
        f"know where this run is from, add {FLAG}"
    )


def remember(run: Path) -> None:
    """Record what a run that this machine makes names beyond the known; without effect if that fails."""
    with suppress(OSError, RuntimeError):
        for part in _unnamed(read_config(run)):
            _record(part)


def trust(run: Path) -> None:
    """Record every part of a run, as `--trust` asks. UserMistake if the record cannot be written."""
    config = read_config(run)
    try:
        for part in [*parts(config), *_unnamed(config)]:
            _record(part)
    except (OSError, RuntimeError) as error:
        why = explain_os_error(error) if isinstance(error, OSError) else str(error)
        raise UserMistake(
            f"{FLAG} cannot write its record to {_folder()}: {why}; set GENBENCH_STATE to a folder of yours"
        ) from None


def admitted(run: Path, flag: bool) -> dict[str, Any]:
    """The config of a run that may be built, after recording it if it is trusted. UserMistake."""
    if flag:
        trust(run)
    config = read_config(run)
    check(run, config)
    return config


def split_flag(argv: list[str]) -> tuple[bool, list[str]]:
    """Whether `--trust` is among the arguments of a command, and the others."""
    return FLAG in argv, [argument for argument in argv if argument != FLAG]


def _record(part: Part) -> None:
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / part.key()).write_text(f"{part.what}\n", encoding="utf-8")


def _folder() -> Path:
    return state_folder() / "trusted"

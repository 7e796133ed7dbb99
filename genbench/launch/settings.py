"""Groups, options and keys of genbench's configs, and checks of the values that a user gives."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench.errors import UserMistake
from genbench.launch.hydra_internals import options_of_groups
from genbench.runs.budget import parse_images
from genbench.runs.paths import config_root

NUMBERS_OF_IMAGES = ("budget.images", "arena.images", "schedule.warmup")  # accept 500k or 1.5M too
OPTIONAL_GROUPS = ("logger", "experiment")
HINTS = {"trainer.devices": "; CUDA_VISIBLE_DEVICES=1,3 before the command says which GPUs"}


@contextmanager
def composing() -> Iterator[None]:
    """Context in which Hydra's compose API reads genbench's configs."""
    with initialize_config_dir(config_dir=str(config_root()), version_base="1.3"):
        yield


@dataclass
class Settings:
    """Groups with their options, and the keys and defaults of one composition.

    Use inside `composing` or a Hydra job. `overrides` are the user's and may be wrong. `cache` holds
    groups and compositions; the jobs of one command share it.
    """

    overrides: Sequence[str]
    config_name: str = "train"
    cache: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Options of every group that is not Hydra's own."""
        paths = [o for o in self.overrides if o.startswith("hydra.searchpath=")]
        key = (self.config_name, *paths)
        if key not in self.cache:
            self.cache[key] = self._read_groups(paths)
        return self.cache[key]  # type: ignore[no-any-return]

    def _read_groups(self, paths: list[str]) -> dict[str, list[str]]:
        groups = options_of_groups(self.config_name, paths)
        return {name: options for name, options in groups.items() if name != "hydra"}

    @cached_property
    def defaults(self) -> DictConfig:
        """The composition of the groups that the user chose, with every value at its default."""
        return self._composition()

    def _composition(self, **instead: str) -> DictConfig:
        """The composition of the first option of each group that is swept, or of the one in `instead`."""
        chosen = {}
        for override in self.overrides:
            key, _, value = override.partition("=")
            option = instead.get(key, value.split(",")[0].strip())
            if option in self.groups.get(key, []):
                chosen[key] = f"{key}={option}"
            elif key == "hydra.searchpath":
                chosen[key] = override
        composition = (self.config_name, "composed", *chosen.values())
        if composition not in self.cache:
            self.cache[composition] = self._compose(list(chosen.values()))
        return self.cache[composition]  # type: ignore[no-any-return]

    def _compose(self, chosen: list[str]) -> DictConfig:
        try:
            return compose(self.config_name, overrides=chosen)
        except (HydraException, OmegaConfBaseException):  # a wrong choice: use the plain defaults
            return compose("train")

    @cached_property
    def keys(self) -> list[str]:
        """Every dotted key of the composition: mappings, and the keys inside them."""
        keys = _keys(OmegaConf.to_container(self.defaults, resolve=False))
        # `choices` is filled in when groups are chosen
        return [key for key in keys if not key.startswith("choices.")]

    def options_without(self, key: str) -> list[str]:
        """The swept options, as `model=vae`, that lack a key which others of the same sweep have."""
        missing: list[str] = []
        swept = (o.partition("=") for o in self.overrides if "," in o)
        for group, options in ((g, v.split(",")) for g, _, v in swept if g in self.groups):
            lacks = [
                o.strip() for o in options if not _has(self._composition(**{group: o.strip()}), key)
            ]
            if 0 < len(lacks) < len(options):
                missing += [f"{group}={option}" for option in lacks]
        return missing

    def default(self, key: str) -> Any:
        """Default value of a key; None if it has none or cannot be resolved."""
        try:
            return OmegaConf.select(self.defaults, key)
        except OmegaConfBaseException:
            return None

    def nearest(self, key: str) -> list[str]:
        """At most three keys of which `key` may be a misspelling, most likely first."""
        tails = [k for k in self.keys if k.endswith(f".{key}")]
        if tails:
            return tails[:3]
        first, last = key.split(".")[0], key.split(".")[-1]
        deeper = [k for k in self.keys if k.startswith(f"{first}.") and k.endswith(f".{last}")]
        if deeper:
            return deeper[:3]
        near = close_matches(key, [*self.groups, *self.keys])
        if near:
            return near[:1]
        lasts = {k.split(".")[-1]: k for k in reversed(self.keys)}
        return [lasts[name] for name in close_matches(last, list(lasts))[:1]]


def _has(composition: DictConfig, key: str) -> bool:
    return key in _keys(OmegaConf.to_container(composition, resolve=False))


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")


def close_matches(word: str, words: Sequence[str], cutoff: float = 0.7) -> list[str]:
    """Up to three of `words` that are nearest to `word`, ignoring case and `_` against `-`.

    `cutoff` in [0, 1] is the lowest similarity that counts, as in difflib.
    """
    by_plain = {w.replace("_", "-").lower(): w for w in words}
    plain = difflib.get_close_matches(word.replace("_", "-").lower(), by_plain, n=3, cutoff=cutoff)
    return [by_plain[p] for p in plain]


# --- values -------------------------------------------------------------------------------------
def check_values(
    overrides: Sequence[str], config_name: str = "train", cache: dict[Any, Any] | None = None
) -> None:
    """UserMistake for values of another type than the default, and for added settings that nothing reads.

    Call inside `composing` or a Hydra job; `cache` is as in `Settings`.
    """
    settings = Settings(overrides, config_name, {} if cache is None else cache)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if override.is_delete():
            check_deleted(key)
        else:
            _check_emptied(override, settings)
        if key in settings.groups or override.is_delete() or override.package is not None:
            continue
        if override.is_add() or override.is_force_add():
            _check_added(key, settings)
        else:
            _check_kind(override, settings)


def check_deleted(key: str) -> None:
    """Refuse to delete what a run needs. Raises UserMistake."""
    if "." not in key and key not in OPTIONAL_GROUPS:
        raise UserMistake(f"~{key} leaves the run without {key}: choose another one with {key}=...")


def _check_emptied(override: Override, settings: Settings) -> None:
    key = override.key_or_group
    if override.value() != {}:
        return
    default = settings.default(key)
    if not OmegaConf.is_dict(default) or not default:
        return
    names = ", ".join(map(str, default))
    remedy = (
        f"leave out what you do not want, as in ~{key}.{next(iter(default))} (there are {names})"
    )
    if key in settings.groups:
        remedy = f"choose another one with {key}=... (there are {', '.join(settings.groups[key])})"
    raise UserMistake(
        f"{key}={{}} removes nothing, because a mapping is merged with the default: {remedy}"
    )


def _check_added(key: str, settings: Settings) -> None:
    if "." not in key and "/" not in key and key not in settings.keys:
        near = settings.nearest(key)
        question = f"did you mean {' or '.join(near)}?" if near else "leave it out"
        raise UserMistake(f"+{key} adds a setting that nothing reads: {question}")


def _check_kind(override: Override, settings: Settings) -> None:
    key, value = override.key_or_group, override.value()
    written = str(override.input_line).partition("=")[2]
    if value is None or (isinstance(value, str) and "${" in value):
        return
    if key in NUMBERS_OF_IMAGES:
        try:
            parse_images(value)  # type: ignore[arg-type]
        except UserMistake:
            raise UserMistake(
                f"{key}={written} is not a number of images: write 2_000_000, 500k or 1.5M"
            ) from None
        return
    default = settings.default(key)
    kind = _kind(default)
    if kind is not None and _kind(value) != kind:
        shown = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
        example = {"a list": f"write {key}=[{written}]"}.get(
            kind,
            f"write a value like {str(shown).lower() if kind != 'a mapping' else '{key: value}'}",
        )
        raise UserMistake(f"{key}={written} is not {kind}: {example}{HINTS.get(key, '')}")


def _kind(value: Any) -> str | None:
    """The type that a value must have if its default is `value`; None if any type may follow."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if OmegaConf.is_list(value) or isinstance(value, list):
        return "a list"
    if OmegaConf.is_dict(value) or isinstance(value, dict):
        return "a mapping"
    return None

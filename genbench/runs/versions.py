"""Fixes that change the numbers of some runs: such runs and older ones are not seeds of each other.

Imports no torch. A run's config.yaml lists under `versions` the fixes that concern it, and they are
part of its method (and so of its fingerprint). A run of before a fix has no such line, which means
version 1: its fingerprint stays. To mend something that changes numbers, give its class a new
argument where the old behaviour is a choice that one can still make (`position_bias` of the
convolutional decoder); else add a line here, and name the runs whose numbers change: no others.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

THEN = ", then "  # joins what a run was begun with and what it was resumed with


class Fix(NamedTuple):
    """The present version of something, 2 after the first fix, and the configs that it concerns."""

    version: int
    concerns: Callable[[Mapping[str, Any]], bool]


def _binarised_dynamically(config: Mapping[str, Any]) -> bool:
    return bool(config["dataset"].get("binarize") == "dynamic")


def _bounds_codes_under_batch_norm(config: Mapping[str, Any]) -> bool:
    model = config["model"] or {}
    quantised = str(model.get("_target_")).rpartition(".")[2] in ("VQVAE", "FSQ")
    return quantised and (model.get("decoder") or {}).get("norm") == "batch"


FIXES = {
    # 2: no two seeds share their draws; before, seed 1 had those of seed 0 one position later
    "dynamic-binarisation": Fix(2, _binarised_dynamically),
    # 2: ELBO, distortion and bits are of the decoder under the statistics of images' codes, as their card
    # has it; before, under those of draws from the prior
    "bound-of-codes": Fix(2, _bounds_codes_under_batch_norm),
}


def versions(config: Mapping[str, Any]) -> dict[str, int]:
    """Present versions of what concerns a resolved config; empty for most."""
    return {name: fix.version for name, fix in FIXES.items() if fix.concerns(config)}


def with_versions(config: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with these versions; without the key if there are none."""
    rest = {key: value for key, value in config.items() if key != "versions"}
    return {**rest, "versions": dict(found)} if found else rest


def after_resume(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Versions of a run begun with `before` and resumed with `now`: `1, then 2` where they differ.

    Such a run is of a method of its own, as one that changed its precision is.
    """
    joined: dict[str, Any] = {}
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name, 1), now.get(name, 1)
        joined[name] = old if str(old).split(THEN)[-1] == str(new) else f"{old}{THEN}{new}"
    return joined

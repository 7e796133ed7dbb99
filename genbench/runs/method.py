"""The method of a run, what is equal in runs that differ in their seed only, and its hash. No torch."""

from collections.abc import Mapping
from typing import Any

from genbench.runs.budget import CLOCK, parse_images
from genbench.runs.moved import first_named
from genbench.runs.score import digest

# settings of a dataset that say where it is and how it is read, and do not change its pixels
NOT_THE_DATA = ("root", "download", "cache", "cache_gb", "workers", "device_resident")


def method(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that defines the method: model, dataset, budget, precision, schedule.

    Not in it are seed, study, paths, devices, workers, loggers and evaluation. Classes have the names
    under which they were first published (`moved`), so that moving a class changes no fingerprint.
    """
    data = {k: v for k, v in config["dataset"].items() if k not in NOT_THE_DATA}
    source = {k: v for k, v in (data.get("source") or {}).items() if k != "root"}
    defined = {
        "model": config["model"],
        "dataset": data | ({"source": source} if source else {}),
        "budget": _budget(config),
        "precision": config["trainer"]["precision"],
    } | _later_settings(config)
    return first_named(defined)


def _budget(config: Mapping[str, Any]) -> dict[str, Any]:
    """The budget, with what epochs count only where it matters, so that older configs without it are equal."""
    budget = dict(config["budget"])
    if budget.get("images") is not None:
        budget["images"] = parse_images(budget["images"])
    model = config["model"] or {}
    several = model.get("discriminator_steps", 1) != 1
    if not str(model.get("_target_", "genbench.")).startswith("genbench."):
        several = True  # a class of a user's own need not have it in its config
    if budget.get("epochs") is None or not several or budget.get("epochs_of") == CLOCK:
        budget.pop("epochs_of", None)
    return budget


def _later_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule, clipping, TF32 and versions unless at their defaults, so that older configs without them are equal."""
    found: dict[str, Any] = {}
    schedule, clip = config.get("schedule"), config.get("gradient_clip")
    if schedule:
        warmup = parse_images(schedule["warmup"], "schedule.warmup")
        if schedule["shape"] != "constant" or warmup:
            found["schedule"] = schedule | {"warmup": warmup}
    if clip is not None:
        found["gradient_clip"] = clip
    tf32 = str(config["trainer"].get("tf32", "auto")).lower()
    if tf32 != "auto":
        found["tf32"] = tf32
    found |= _condition(config.get("arena") or {})
    if config.get("versions"):  # of fixes that change this run's numbers
        found["versions"] = config["versions"]
    return found


def _condition(arena: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is told of its images; empty for nothing."""
    if arena.get("condition", "none") == "none":
        return {}
    keys = ("condition", "label_dropout", "label_dim")
    return {"labels": {key: arena[key] for key in keys if key in arena}}


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of `method`, 12 hex digits; equal for runs that differ in their seed only."""
    return digest(method(config))

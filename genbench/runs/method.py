"""Which runs are seeds of one method. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from genbench.runs.budget import CLOCK, parse_images
from genbench.runs.moved import first_named
from genbench.runs.score import digest

# of a dataset: where it comes from and how it is read, not what it is
NOT_THE_DATA = ("root", "download", "cache", "cache_gb", "workers", "device_resident")


def method(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved config defines the method and its budget.

    Without seed, study, paths, devices, workers, loggers and evaluation: runs with one method are
    seeds of each other. Precision belongs to it. Classes have the names under which they were first
    published (`moved`), so that a class that moves changes no fingerprint.
    """
    data = {k: v for k, v in config["dataset"].items() if k not in NOT_THE_DATA}
    source = {k: v for k, v in (data.get("source") or {}).items() if k != "root"}
    defined = {
        "model": config["model"],
        "dataset": data | ({"source": source} if source else {}),
        "budget": _budget(config),
        "precision": config["trainer"]["precision"],
    } | _course(config)
    return first_named(defined)


def _budget(config: Mapping[str, Any]) -> dict[str, Any]:
    """The budget; what epochs are of only where it matters: runs of before it existed keep their method."""
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


def _course(config: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule and clipping where there are any; runs of before they existed keep their method."""
    course: dict[str, Any] = {}
    schedule, clip = config.get("schedule"), config.get("gradient_clip")
    if schedule:
        warmup = parse_images(schedule["warmup"], "schedule.warmup")
        if schedule["shape"] != "constant" or warmup:
            course["schedule"] = schedule | {"warmup": warmup}
    if clip is not None:
        course["gradient_clip"] = clip
    return course


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of `method`, 12 hex digits."""
    return digest(method(config))

"""Which runs are seeds of one method. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from genbench.runs.budget import parse_images
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
    budget = dict(config["budget"])
    if budget.get("images") is not None:
        budget["images"] = parse_images(budget["images"])
    defined = {
        "model": config["model"],
        "dataset": data | ({"source": source} if source else {}),
        "budget": budget,
        "precision": config["trainer"]["precision"],
    } | _course(config)
    return first_named(defined)


def _course(config: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule, clipping and versions where there are any, so that older runs keep their method."""
    course: dict[str, Any] = {}
    schedule, clip = config.get("schedule"), config.get("gradient_clip")
    if schedule:
        warmup = parse_images(schedule["warmup"], "schedule.warmup")
        if schedule["shape"] != "constant" or warmup:
            course["schedule"] = schedule | {"warmup": warmup}
    if clip is not None:
        course["gradient_clip"] = clip
    if config.get("versions"):  # of fixes that change this run's numbers
        course["versions"] = config["versions"]
    return course


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of `method`, 12 hex digits."""
    return digest(method(config))

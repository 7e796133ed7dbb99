"""Loggers of numbers and pictures while a run trains: history.csv, wandb, TensorBoard, Visdom.

The x-axis of everything is images, counted as steps x batch size. No logger can end a training:
one that fails warns once and is not used from then on.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from pytorch_lightning.loggers import Logger

from genbench.runs.score import Score
from genbench.training.loggers.history import History
from genbench.training.loggers.sink import Dashboard


def build(
    loggers: Mapping[str, Any], directory: Path, config: Mapping[str, Any], fingerprint: str
) -> list[Logger]:
    """Make the loggers of a run: history.csv always, the others as configured."""
    # decided by the launcher, which may ask wandb; without one, nothing goes over a network
    mode = os.environ.get("GENBENCH_LOGGER") or _unasked(loggers.get("wandb") or {})
    sinks: list[Logger] = [History(directory)]
    for name, entry in loggers.items():
        if name == "wandb" and mode == "none":
            continue
        extra = {"mode": mode, "run_config": dict(config), "group": fingerprint}
        extra = extra if name == "wandb" else {}
        # not as arguments of `instantiate`, which would make the objects that a config names
        make = instantiate(entry, _partial_=True, _convert_="all")
        sinks.append(make(directory=directory, **extra))
    return sinks


def _unasked(wandb: Mapping[str, Any]) -> str:
    return "none" if wandb.get("only_if_logged_in") else "offline"


def rewind(loggers: Iterable[Logger], images: int) -> None:
    """Drop what was logged beyond `images`: a resumed run will log it again."""
    for logger in loggers:
        if isinstance(logger, History):
            logger.rewind(images)


def stamp(loggers: Iterable[Logger], spent: Callable[[], Mapping[str, float]]) -> None:
    """Have what was `spent` until then stand in every row of history.csv."""
    for logger in loggers:
        if isinstance(logger, History):
            logger.spent = spent


def log_images(loggers: Iterable[Logger], key: str, path: Path, images: int) -> None:
    """Send a picture, a PNG file, to every logger that shows pictures."""
    for logger in loggers:
        if isinstance(logger, Dashboard):
            logger.log_picture(key, path, images)


def finish(loggers: Iterable[Logger], scores: Sequence[Score], status: str) -> None:
    """Send the final scores as `final/<name>` and close the loggers."""
    for logger in loggers:
        if isinstance(logger, Dashboard):
            logger.log_final(scores)
        logger.finalize(status)

"""New import paths of classes that configs name by `_target_` and that have moved.

Configs of older runs, users' YAML files and stored fingerprints keep the path under which a class was
first published. When a class that a shipped config names moves, add a line to `MOVED`; when it moves
again, change the value and leave the key.
"""

from collections.abc import Mapping
from typing import Any

MOVED = {
    "genbench.budget.Budget": "genbench.runs.budget.Budget",
    "genbench.callbacks.averaging.Averaging": "genbench.training.callbacks.averaging.Averaging",
    "genbench.callbacks.selection.Selection": "genbench.training.callbacks.selection.Selection",
    "genbench.engine.Engine": "genbench.training.trainer.Engine",
    "genbench.evaluate.Evaluation": "genbench.metrics.evaluation.Evaluation",
    "genbench.loggers.TensorBoard": "genbench.training.loggers.tensorboard.TensorBoard",
    "genbench.loggers.Wandb": "genbench.training.loggers.wandb.Wandb",
    "genbench.schedule.Schedule": "genbench.training.schedule.Schedule",
    "genbench.visdom.Visdom": "genbench.training.loggers.visdom.Visdom",
}

FIRST_NAMES = {new: old for old, new in MOVED.items()}


def renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `config` in which every `_target_`, at any depth, is the present path of its class."""
    return {key: _with_targets(key, value, MOVED) for key, value in config.items()}


def first_named(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `config` in which every `_target_` is the path under which it was first published.

    Fingerprints are hashes of these, so that older and newer runs of one method have the same one.
    """
    return {key: _with_targets(key, value, FIRST_NAMES) for key, value in config.items()}


def _with_targets(key: str, value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {k: _with_targets(k, v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_targets("", element, names) for element in value]
    return names.get(value, value) if key == "_target_" and isinstance(value, str) else value

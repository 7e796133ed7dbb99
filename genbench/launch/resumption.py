"""Configs of resumed runs: with another trainer, or in a job that a cluster has restarted."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genbench.errors import UserMistake
from genbench.launch.mistakes import compose_checked
from genbench.runs.config import read_config
from genbench.runs.dataset_name import as_named_before, same_pictures
from genbench.runs.method import NOT_THE_DATA, method

MAY_CHANGE = ("trainer", *(f"dataset.{name}" for name in NOT_THE_DATA))
METHOD = ("model", "dataset", "budget", "network", "likelihood", "arena", "seed", "ema", "schedule",
          "gradient_clip", "selection")  # fmt: skip


def restarted() -> bool:
    """Whether SLURM (requeue) or torchrun (--max-restarts) has restarted this command."""
    counts = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(os.environ.get(name, "0") not in ("", "0") for name in counts)


def restarted_config(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Config with which a restarted command resumes the run in `directory`.

    It is the run's own with the trainer of `config`, the command's. UserMistake if method or seed differ.
    """
    before = read_config(directory)
    once = as_named_before(config) if same_pictures(config, before) else None
    methods = [method(now) for now in (config, once) if now is not None]
    if method(before) not in methods or before["seed"] != config["seed"]:
        raise UserMistake(
            f"{directory} holds a run of another method or seed, which this command cannot resume: "
            "choose another run_id"
        )
    choices = {**before["choices"], "trainer": config["choices"]["trainer"]}
    return {**before, "trainer": config["trainer"], "choices": choices}


def with_overrides(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A run's config with `overrides`: `trainer=ddp`, `trainer.key=value`, or how the data is read.

    A trainer chosen by name replaces all values of the run's trainer. UserMistake for overrides of
    keys that are not in MAY_CHANGE.
    """
    for override in overrides:
        _check(override, config)
    settings = [f"dataset={config['choices']['dataset']}"]
    chosen = {override.split("=")[0].lstrip("+") for override in overrides}
    if "trainer" not in chosen:
        settings.append(f"trainer={config['choices']['trainer']}")
    cfg = compose_checked([*settings, *overrides], blamed=overrides)
    after = OmegaConf.create(dict(config))
    if "trainer" in chosen:
        after["trainer"] = cfg.trainer
        option = next(o for o in overrides if o.startswith("trainer=")).partition("=")[2]
        after["choices"]["trainer"] = option
    for key in chosen - {"trainer"}:
        OmegaConf.update(after, key, OmegaConf.select(cfg, key), force_add=True)
    plain = OmegaConf.to_container(after, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _check(override: str, config: Mapping[str, Any]) -> None:
    """UserMistake for a setting that a resumed run must keep. Unknown keys are refused by Hydra."""
    key = override.partition("=")[0].lstrip("+~")
    group = key.split(".")[0]
    if group == "trainer" or key in MAY_CHANGE:
        return
    if group in METHOD:
        raise UserMistake(
            f"{override} changes the method, which a resumed run must keep: train a new run, "
            f" `genbench train ... {override}`; resume takes trainer=... and trainer.key=..."
        )
    if group in config:
        remedy = "score it again with `genbench evaluate`" if group in ("evaluation", "extractor") \
            else "train a new run"  # fmt: skip
        raise UserMistake(
            f"{override} cannot change in a resumed run: {remedy}; resume takes trainer=... "
            "and trainer.key=..."
        )

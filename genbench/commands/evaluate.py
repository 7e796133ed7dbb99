"""`genbench evaluate`: score runs again under another protocol. Imports no torch."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from genbench.errors import INTERRUPTED, UserMistake
from genbench.launch import mistakes, settings
from genbench.launch.run import run_verb
from genbench.launch.task import resolve
from genbench.runs import paths
from genbench.runs.config import read_config
from genbench.runs.directory import find_run
from genbench.runs.paths import default_outputs


def evaluate(argv: Sequence[str], worker: str = "genbench.evaluate") -> int:
    """Score runs again, under the protocol that `key=value` arguments describe: worst exit code."""
    overrides = [a for a in argv if "=" in a and not Path(a).exists()]
    references = [a for a in argv if a not in overrides]
    if not references or any(r.startswith("-") for r in references):
        raise UserMistake(
            "evaluate needs a run: genbench evaluate latest evaluation.num_samples=5000"
        )
    outputs = [o.partition("=")[2] for o in overrides if o.startswith("paths.outputs=")]
    directories = [
        find_run(r, Path(outputs[-1]) if outputs else default_outputs()) for r in references
    ]
    codes = []
    for directory in directories:
        content = protocol(read_config(directory), overrides)
        with tempfile.TemporaryDirectory(prefix="genbench-evaluate-") as scratch:
            path = Path(scratch) / "config.yaml"
            path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
            codes.append(run_verb([str(directory), str(path)], "evaluate", argv, worker))
        if codes[-1] == INTERRUPTED:
            return INTERRUPTED
    return max(codes)


def protocol(run: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `evaluation` and `extractor` for a run: its own, changed by `overrides`.

    A group that is chosen anew (`evaluation=full`, `extractor=...`) comes with its own values.
    """
    for override in overrides:
        if override.split("=")[0].split(".")[0] not in ("evaluation", "extractor", "paths"):
            raise UserMistake(
                f"{override} belongs to training: evaluate takes evaluation, extractor and paths"
            )
    chosen = {override.split("=")[0] for override in overrides}
    choices = [f"{k}={v}" for k, v in run["choices"].items() if v is not None and k not in chosen]
    try:
        with settings.composing(paths.config_root()):
            cfg = compose("train", overrides=[*choices, *overrides])
            settings.check_values([*choices, *overrides])
    except Exception as error:
        raise mistakes.explain(error, overrides, paths.config_root()) from error
    OmegaConf.set_struct(cfg, False)
    for name, block in run.items():
        if name not in ("evaluation", "extractor", "paths"):
            cfg[name] = block
    for group in ("evaluation", "extractor"):
        if group not in chosen and group in run:
            cfg[group] = _kept(cfg, group, run[group], chosen)
    config = resolve(cfg)
    return {name: config[name] for name in ("evaluation", "extractor")}


def _kept(cfg: DictConfig, group: str, block: Mapping[str, Any], chosen: set[str]) -> DictConfig:
    """A run's own block with the changed values, and with its ties to extractor and paths."""
    kept = OmegaConf.create(dict(block))
    raw = OmegaConf.to_container(cfg[group], resolve=False)
    assert isinstance(raw, dict)
    for name, value in raw.items():
        if isinstance(value, str) and value.startswith(("${extractor", "${paths")):
            kept[name] = value
    for key in chosen:
        if key.startswith(f"{group}."):
            value = OmegaConf.select(cfg, key)
            OmegaConf.update(kept, key.removeprefix(f"{group}."), value, force_add=True)
    return kept

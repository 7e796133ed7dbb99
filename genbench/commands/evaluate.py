"""`genbench evaluate`: score runs again under another protocol."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genbench.commands.arguments import wants_help
from genbench.errors import DONE, INTERRUPTED, UserMistake
from genbench.launch.mistakes import compose_checked
from genbench.launch.run import run_verb
from genbench.launch.task import resolve
from genbench.runs import trust
from genbench.runs.directory import find_run
from genbench.runs.paths import default_outputs
from genbench.runs.priors import ALONE

GROUPS = ("evaluation", "extractor", "prior")  # what a run may be scored with again

USAGE = """\
usage: genbench evaluate RUN ... [key=value ...] [--device cpu|cuda] [--trust]

Scores the final weights of runs again. Settings that are not given are those of the run. The scores
are written to the run's folder evaluations/, each with its card; result.json is never changed. A run of
evaluation=none is scored as by evaluation=quick, unless another is chosen.
Scores are computed on a GPU if there is one, or where --device says.
--trust lets a run from elsewhere name code that is not genbench's; it is then remembered.

  genbench evaluate latest evaluation.num_samples=5000
  genbench evaluate 20260101 20260102 evaluation=full
  genbench evaluate latest prior=mixture    samples from a prior fitted to these weights, and these alone"""


def main(argv: Sequence[str], worker: str = "genbench.work evaluate") -> int:
    """Score runs again under the protocol given by `key=value` arguments; returns the worst exit code.

    `worker` is the module that scores one run.
    """
    if wants_help(argv):
        print(USAGE)
        return DONE
    trusted, rest = trust.split_flag(list(argv))
    device, rest = _device(rest)
    overrides = [a for a in rest if "=" in a and not Path(a).exists()]
    references = [a for a in rest if a not in overrides]
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
        content = protocol(trust.admitted(directory, trusted), overrides)
        with tempfile.TemporaryDirectory(prefix="genbench-evaluate-") as scratch:
            path = Path(scratch) / "config.yaml"
            path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
            codes.append(run_verb([str(directory), str(path), *device], "evaluate", argv, worker))
        if codes[-1] == INTERRUPTED:
            return INTERRUPTED
    return max(codes)


def _device(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off `--device X` or `--device=X`: ([`--device`, X] or nothing, the rest)."""
    rest, device = [], []
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name != "--device":
            rest.append(argument)
            continue
        value = value if equals else next(arguments, "")
        if value not in ("cpu", "cuda"):
            raise UserMistake(f"--device {value or 'without a value'}: choose cpu or cuda")
        device = ["--device", value]
    return device, rest


def protocol(run: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The run's `evaluation`, `extractor` and `prior` blocks with `overrides` applied.

    A chosen group (`evaluation=full`, `extractor=...`) replaces the whole block of the run; a chosen prior
    alone is scored. A run without an evaluation gets the default one. UserMistake for overrides of other
    groups.
    """
    for override in overrides:
        _check(override)
    chosen = {override.split("=")[0] for override in overrides}
    if not run.get("evaluation"):
        chosen.add("evaluation")
    choices = [f"{k}={v}" for k, v in run["choices"].items() if v is not None and k not in chosen]
    if run.get("prior") and "prior" not in chosen:
        choices.append(f"prior=[{','.join(run['prior'])}]")
    cfg = compose_checked([*choices, *overrides], blamed=overrides)
    OmegaConf.set_struct(cfg, False)
    for name, block in run.items():
        if name not in (*GROUPS, "paths"):
            cfg[name] = block
    for group in GROUPS:
        if group not in chosen and group in run:
            cfg[group] = _kept(cfg, group, run[group], chosen)
    config = resolve(cfg)
    alone = {ALONE: True} if "prior" in chosen and config["prior"] else {}
    return {name: config[name] for name in GROUPS if name != "prior" or config[name]} | alone


def _check(override: str) -> None:
    """UserMistake for an override that no evaluation takes."""
    if override.split("=")[0].split(".")[0] not in (*GROUPS, "paths"):
        raise UserMistake(
            f"{override} belongs to training: evaluate takes {', '.join(GROUPS)} and paths"
        )
    if override == "evaluation=none":
        raise UserMistake(
            "evaluation=none computes no scores: leave it out, or choose evaluation=quick, standard or full"
        )


def _kept(cfg: DictConfig, group: str, block: Mapping[str, Any], chosen: set[str]) -> DictConfig:
    """The run's block with the changed values. Its references to extractor and paths stay interpolations."""
    kept = OmegaConf.create(dict(block))
    raw = OmegaConf.to_container(cfg[group], resolve=False)
    assert isinstance(raw, dict)
    for name, value in raw.items():
        # a key that the block lacks is one of the dataset's own extractor
        if (
            name in block
            and isinstance(value, str)
            and value.startswith(("${extractor", "${paths"))
        ):
            kept[name] = value
    for key in chosen:
        if key.startswith(f"{group}."):
            value = OmegaConf.select(cfg, key)
            OmegaConf.update(kept, key.removeprefix(f"{group}."), value, force_add=True)
    return kept

"""`genbench check-model`: what every model must pass, tried on one."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from genbench.commands.arguments import wants_help
from genbench.errors import DONE, UserMistake
from genbench.launch.mistakes import compose_checked
from genbench.launch.run import run_verb
from genbench.launch.task import resolve
from genbench.runs.config import write_config

USAGE = """\
usage: genbench check-model NAME [key=value ...]

Makes the model of configs/model/NAME.yaml and tries what every model must pass, in a few seconds and without
training: its parts fit (parts), every player moves and each of its parameters gets a gradient (routing),
gradients lead downhill (direction), a seed decides everything (seeds), losses are means over images
(batch doubling), all that training changes is in the checkpoint (resume), and it samples without data.
Says of each what failed. NAME is yours, a plug-in's or genbench's (`genbench list models`).

  genbench check-model my-model
  genbench check-model my-model network=conv dataset=mnist

Exit code: 0 all passed, 1 something failed, 2 a mistake in the command."""


def main(argv: Sequence[str], worker: str = "genbench.work check_model") -> int:
    """Check a model; returns the exit code. `worker` is the module that does it."""
    if wants_help(argv):
        print(USAGE)
        return DONE
    if not argv or "=" in argv[0] or argv[0].startswith("-"):
        raise UserMistake("check-model needs the name of a model: genbench check-model my-model")
    settings = [f"model={argv[0]}", *argv[1:]]
    cfg = compose_checked(settings)
    OmegaConf.set_struct(cfg, False)
    cfg.choices = {"model": argv[0]}  # those of a run that Hydra has started
    config = resolve(cfg)
    with tempfile.TemporaryDirectory(prefix="genbench-check-") as scratch:
        write_config(Path(scratch), config)
        return run_verb([str(Path(scratch, "config.yaml"))], "check-model", argv, worker)

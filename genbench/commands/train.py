"""`genbench train`: train one model or a sweep of them. The work is `launch.task`'s."""

import contextlib
import io
import re
from collections.abc import Sequence

from genbench.commands.arguments import wants_help
from genbench.errors import DONE
from genbench.launch import task

USAGE = """\
usage: genbench train [key=value ...] [-m]

Trains the model that the settings describe, scores its final weights and writes everything below
outputs/<run_id>/. Without settings: a small VAE on the embedded digits.

  genbench train model=gan dataset=mnist               choose from groups
  genbench train budget.images=500k seed=1             change values
  genbench train -m model=vae,gan,vae-gan seed=0,1,2   nine runs, as many at once as fit
  genbench train -m experiment=objectives              a study that ships (docs/studies.md)
  genbench train model=gan trainer=cpu study=first     a study name groups runs for `genbench compare`

  --cfg job        print the composed settings instead of training
  --info           print where they come from
  --config-dir D   also look for configs in D (always: ./genbench_configs, $GENBENCH_CONFIG_PATH)
  --help           print all groups and settings

Ctrl-C writes a checkpoint and stops; `genbench resume latest` goes on from there.
Exit code: 0 done, 1 failed or diverged, 2 a mistake in the command, 75 interrupted."""


def main(argv: Sequence[str]) -> int:
    """Train what `argv` asks for, or print the usage with all groups and settings; returns the exit code."""
    if not wants_help(argv):
        return task.train(argv)
    print(USAGE)
    print("\nGroups and settings:\n", *_groups_and_settings(argv), sep="\n")
    return DONE


def _groups_and_settings(argv: Sequence[str]) -> list[str]:
    """Lines of Hydra's help, without groups like `dataset/_parts`, which only other configs use."""
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):  # Hydra exits after it
        task.train(argv)
    return [line for line in printed.getvalue().splitlines() if not re.match(r"\S*/_\w+: ", line)]

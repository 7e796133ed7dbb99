"""`genbench sample`: draw images from a run."""

from collections.abc import Sequence

from genbench.commands.arguments import wants_help
from genbench.errors import DONE, UserMistake
from genbench.launch.run import run_verb
from genbench.runs import trust
from genbench.runs.directory import find_run

USAGE = """\
usage: genbench sample RUN [--num N] [--out FILE] [--seed S] [--interpolate] [--reconstruct] [--walk]
                           [--prior mixture] [--label NAME] [--attributes A=1,B=0]
                           [--device cpu|cuda] [--trust]

  genbench sample latest --num 64 --out grid.png
  genbench sample latest --prior mixture    after genbench evaluate latest prior=mixture
  genbench sample latest --label cat        of a model that was told labels; without it a row for each
  genbench sample latest --attributes Smiling=1,Male=0
  genbench sample latest --interpolate --out path.png
  genbench sample latest --reconstruct --out pairs.png

--trust lets a run from elsewhere name code that is not genbench's; it is then remembered."""


def main(argv: Sequence[str], worker: str = "genbench.work sample") -> int:
    """Draw images from a run; returns the exit code.

    `argv` is the run and then the options of `genbench.sample`, which the `worker` module parses.
    """
    if wants_help(argv):
        print(USAGE)
        return DONE
    if not argv or argv[0].startswith("-"):
        raise UserMistake(
            "sample needs a run first: genbench sample latest --num 64 --out grid.png"
        )
    trusted, rest = trust.split_flag(list(argv[1:]))
    directory = find_run(argv[0])
    trust.admitted(directory, trusted)
    return run_verb([str(directory), *rest], "sample", argv, worker)

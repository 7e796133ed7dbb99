"""`genbench sample`: draw images from a run. Imports no torch."""

from collections.abc import Sequence

from genbench.errors import UserMistake
from genbench.launch.run import run_verb
from genbench.runs.directory import find_run


def sample(argv: Sequence[str], worker: str = "genbench.sample") -> int:
    """Draw images from a run: RUN and the arguments of `genbench.sample`. Returns the exit code."""
    if not argv or argv[0].startswith("-"):
        raise UserMistake(
            "sample needs a run first: genbench sample latest --num 64 --out grid.png"
        )
    directory = find_run(argv[0])
    return run_verb([str(directory), *argv[1:]], "sample", argv, worker)

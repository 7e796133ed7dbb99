"""`load`, `runs`, `train` and `evaluate`: the commands as functions."""

import sys
from collections.abc import Sequence
from pathlib import Path

from genbench.errors import UserMistake
from genbench.library.process import run_command, train_command
from genbench.library.run import Run
from genbench.library.runs import Runs
from genbench.runs import trust as trusting
from genbench.runs.directory import find_run
from genbench.runs.paths import default_outputs
from genbench.runs.records import load_runs


def load(
    reference: str | Path = "latest",
    *,
    outputs: str | Path | None = None,
    trust: bool = False,
    weights: str = "raw",
    device: str | None = None,
) -> Run:
    """The run with an id, a unique beginning of one, a path, or the `latest` in `outputs`.

    `trust` lets a run from elsewhere name code of others, as `--trust` does; the other arguments are those
    of `Run`. UserMistake if no run, or more than one, is meant.
    """
    path = find_run(str(reference), _outputs(outputs))
    return Run(path, trusted=trust, weights=weights, device=device)


def runs(*select: str, outputs: str | Path | None = None) -> Runs:
    """The runs in `outputs` that `select` names or selects (`study=x`, `model=vae,gan`); all without any.

    A damaged run is left out, with a line on stderr. Empty if none fits.
    """
    return Runs(load_runs(select, _outputs(outputs)))


def train(arguments: Sequence[str] = (), *, progress: bool = True) -> Run | Runs:
    """Train as `genbench train` does with these arguments, in processes of their own, and wait for the end.

    Returns the run, or with `-m` the runs that finished. `progress` prints what the command prints. Raises
    UserMistake for wrong settings, Interrupted after Ctrl-C (`genbench resume` goes on), else GenbenchError.
    """
    if isinstance(arguments, str):
        raise UserMistake(f"train takes a list of arguments: [{arguments!r}]")
    sweep, directories = train_command(arguments, progress)
    if not sweep:
        return Run(directories[0])
    return Runs(load_runs([str(path) for path in directories]) if directories else [])


def evaluate(
    run: Run | str | Path,
    settings: Sequence[str] = (),
    *,
    trust: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> Run:
    """Score a run again as `genbench evaluate` does, in a process of its own; returns it with the new scores.

    `settings` are `key=value`, such as `evaluation=full`. Raises as `train` does.
    """
    found = run if isinstance(run, Run) else load(run, trust=trust, device=device)
    if isinstance(settings, str):
        raise UserMistake(f"evaluate takes a list of settings: [{settings!r}]")
    chosen = ["--device", device] if device else []
    flag = [trusting.FLAG] if trust or found._trusted else []
    command = [sys.executable, "-m", "genbench", "evaluate", str(found.path.resolve())]
    run_command([*command, *settings, *chosen, *flag], progress)
    return found.refresh()


def _outputs(folder: str | Path | None) -> Path:
    return default_outputs() if folder is None else Path(folder)

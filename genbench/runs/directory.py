"""Run directories: where they are, what their state is. Imports no torch: scripts ask often."""

import difflib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from genbench.errors import UserMistake
from genbench.runs.files import explain_os_error
from genbench.runs.paths import default_outputs


def new_run_directory(outputs: Path, run_id: str | None = None) -> Path:
    """Make `outputs/run_id`, which nothing else may have made; without an id, time and chance.

    Raises UserMistake if the directory exists or cannot be made. Made-up ids sort by time (UTC).
    """
    if run_id is None:
        return _made_up_directory(outputs)
    name = str(run_id)
    if name != Path(name).name or name.startswith((".", "-")) or name in ("", "latest"):
        raise UserMistake(
            f"run_id={name} is not a name for a directory: use letters, digits, '-', '_' and '.'"
        )
    try:
        return _made(outputs / name)
    except FileExistsError:
        raise UserMistake(_exists(outputs, outputs / name)) from None


def _made_up_directory(outputs: Path) -> Path:
    """Try ids until one is new: of a thousand runs in a second, some share theirs."""
    while True:
        made_up = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        try:
            return _made(outputs / made_up)
        except FileExistsError:
            if not outputs.is_dir():
                raise UserMistake(_exists(outputs, outputs / made_up)) from None


def _made(directory: Path) -> Path:
    """Make a directory that is new; raises FileExistsError, and UserMistake for all else."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise UserMistake(
            f"cannot make the run directory {directory}: {explain_os_error(error)}; "
            "choose another place with paths.outputs=..."
        ) from None
    return directory


def _exists(outputs: Path, directory: Path) -> str:
    if not outputs.is_dir():
        return f"paths.outputs={outputs} is a file, not a directory: choose another place"
    return (
        f"the run directory {directory} exists, and no run is ever overwritten: "
        f"choose another run_id, or continue it with `genbench resume {directory.name}`"
    )


def iter_runs(outputs: Path) -> Iterator[Path]:
    """Every directory in `outputs` that holds a run, sorted by name."""
    for name in run_names(outputs):
        if os.path.exists(os.path.join(outputs, name, "config.yaml")):
            yield outputs / name


def run_names(outputs: Path) -> list[str]:
    """Names of the directories in `outputs` that may be runs, sorted; none where it is missing."""
    try:
        with os.scandir(outputs) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_run(reference: str, outputs: Path | None = None) -> Path:
    """Find the run that an id, a unique prefix of one, a path or `latest` means.

    Raises UserMistake with the nearest ids if there is none, or more than one.
    """
    outputs = default_outputs() if outputs is None else outputs
    if (Path(reference) / "config.yaml").exists():
        return Path(reference)
    runs = list(iter_runs(outputs))
    if not runs:
        raise UserMistake(f"there are no runs in {outputs}: start one with `genbench train`")
    if reference == "latest":
        return max(runs, key=lambda run: ((run / "config.yaml").stat().st_mtime, run.name))
    matches = [run for run in runs if run.name.startswith(reference)] if reference else []
    exact = [run for run in matches if run.name == reference]
    if exact or len(matches) == 1:
        return (exact or matches)[0]
    names = [run.name for run in runs]
    if matches:
        few = ", ".join(run.name for run in matches[:5]) + (", ..." if len(matches) > 5 else "")
        raise UserMistake(f"{reference} begins {len(matches)} runs: {few}; give more of the id")
    near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5) or names[-3:]
    raise UserMistake(f"there is no run {reference} in {outputs}; near are {', '.join(near)}")

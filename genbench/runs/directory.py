"""Run directories: making, listing and finding them. Imports no torch."""

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
    """Make the new directory `outputs/run_id`; without an id, one from the time (UTC) and a random suffix.

    Raises UserMistake if the directory exists or cannot be made.
    """
    if run_id is None:
        return _with_new_id(outputs)
    name = str(run_id)
    if name != Path(name).name or name.startswith((".", "-")) or name in ("", "latest"):
        raise UserMistake(
            f"run_id={name} is not a name for a directory: use letters, digits, '-', '_' and '.'"
        )
    try:
        return _make(outputs / name)
    except FileExistsError:
        raise UserMistake(_exists(outputs, outputs / name)) from None


def _with_new_id(outputs: Path) -> Path:
    """Try ids until one is new: two of many runs that start in the same second may draw the same."""
    while True:
        run_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        try:
            return _make(outputs / run_id)
        except FileExistsError:
            if not outputs.is_dir():
                raise UserMistake(_exists(outputs, outputs / run_id)) from None


def _make(directory: Path) -> Path:
    """Make a directory; FileExistsError if it exists, UserMistake if it cannot be made."""
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
    """Every directory in `outputs` that has a config.yaml, sorted by name."""
    for name in run_names(outputs):
        if os.path.exists(os.path.join(outputs, name, "config.yaml")):
            yield outputs / name


def run_names(outputs: Path) -> list[str]:
    """Sorted names of the directories in `outputs`, without hidden ones; empty if it does not exist."""
    try:
        with os.scandir(outputs) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _made(run: Path) -> float:
    """When a run was made, by its config; 0 if it is being deleted."""
    try:
        return (run / "config.yaml").stat().st_mtime
    except OSError:
        return 0.0


def find_run(reference: str, outputs: Path | None = None) -> Path:
    """Find a run by its id, a unique prefix of it, its path, or `latest` (the newest config.yaml).

    Raises UserMistake, with the most similar ids, if no run matches or several do.
    """
    outputs = default_outputs() if outputs is None else outputs
    if (Path(reference) / "config.yaml").exists():
        return Path(reference)
    runs = list(iter_runs(outputs))
    if not runs:
        raise UserMistake(f"there are no runs in {outputs}: start one with `genbench train`")
    if reference == "latest":
        return max(runs, key=lambda run: (_made(run), run.name))
    matches = [run for run in runs if run.name.startswith(reference)] if reference else []
    exact = [run for run in matches if run.name == reference]
    if exact or len(matches) == 1:
        return (exact or matches)[0]
    names = [run.name for run in runs]
    if matches:
        few = ", ".join(run.name for run in matches[:5]) + (", ..." if len(matches) > 5 else "")
        raise UserMistake(
            f"{reference} is the beginning of {len(matches)} ids: {few}; give more of the id"
        )
    near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5) or names[-3:]
    raise UserMistake(
        f"there is no run {reference} in {outputs}; the most similar ids are {', '.join(near)}"
    )

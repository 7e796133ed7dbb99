"""`genbench push`: put the records of runs where others find them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from genbench.commands.arguments import outputs_argument
from genbench.errors import DONE, UserMistake
from genbench.runs.records import read_records
from genbench.sharing.git import Repository, is_repository
from genbench.sharing.store import Store


def main(argv: Sequence[str]) -> int:
    """Push runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench push",
        parents=[outputs_argument()],
        description="Add records, evaluations, curves and the newest grid of runs (about 200 kB each) "
        "to a folder or a git repository that others push to. Contents are named by their hashes: nothing is overwritten, and "
        "pushing again does nothing.",
        epilog="examples: genbench push /team/runs · genbench push git@host:team/runs.git study=mnist · "
        "genbench push /team/runs latest --weights",
    )
    parser.add_argument("destination", help="a folder, a bare git repository, or its address")
    parser.add_argument("select", nargs="*", help="runs, or selections (default: all)")
    parser.add_argument("--weights", action="store_true", help="also the final checkpoints")
    options = parser.parse_intermixed_args(list(argv))
    runs = _runs(options.select, options.outputs)
    if is_repository(options.destination):
        repository = Repository(options.destination)
        with repository.locked():
            new = repository.push(runs, options.weights)
    else:
        store = Store(Path(options.destination).expanduser())
        new = [run for run in runs if store.add(run, options.weights)]
    rest = ", the others were there" if len(new) < len(runs) else ""
    print(f"{len(new)} of {len(runs)} runs pushed to {options.destination}{rest}")
    return DONE


def _runs(select: Sequence[str], outputs: Path) -> list[Path]:
    """The runs to push; for one that is running a line on stderr. UserMistake if there are none."""
    found = []
    for record in read_records(select, outputs):
        if record.status.status == "running":
            print(f"genbench: {record.run.name} is still running: push it later", file=sys.stderr)
        elif record.damage:
            print(f"genbench: left out: {record.damage}", file=sys.stderr)
        else:
            found.append(record.run)
    if not found:
        raise UserMistake(f"there is no run to push in {outputs}: see `genbench runs`")
    return found

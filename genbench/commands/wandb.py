"""`genbench wandb`: what was logged offline goes to wandb's server. Imports no torch."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from genbench.errors import DONE, FAILED, UserMistake
from genbench.launch.wandb_access import look
from genbench.runs.files import UNSENT
from genbench.runs.paths import default_outputs
from genbench.runs.records import read_records

SYNCED = ".synced"  # wandb's own mark, beside the file that it has sent


WORDS = ("sync", "workspace")


def main(argv: Sequence[str]) -> int:
    """Do what the first word says; returns the exit code."""
    if not argv or argv[0] not in WORDS:
        raise UserMistake(f"wandb takes a word first: genbench wandb {' or '.join(WORDS)}")
    if argv[0] == "workspace":
        from genbench.commands import workspace

        return workspace.main(argv[1:])
    return sync(argv[1:])


def parser() -> argparse.ArgumentParser:
    """Say what can be asked for."""
    result = argparse.ArgumentParser(
        prog="genbench wandb sync",
        description="Send runs that were logged offline, or whose upload did not end, to wandb, the "
        "pieces of a resumed run under one id. What was sent before is left out, and so is a run that is still going.",
        epilog="examples: genbench wandb sync · genbench wandb sync study=objectives --dry-run",
    )
    result.add_argument("select", nargs="*", help="runs, or selections (default: all)")
    result.add_argument("--dry-run", action="store_true", help="say what waits, and send nothing")
    result.add_argument("--outputs", type=Path, help="where the runs are (default: outputs)")
    return result


def waiting(run: Path) -> list[Path]:
    """Pieces of a run that wandb has not sent yet, or not to the end, oldest first."""
    folder = run / "wandb"
    found = [
        *folder.glob("offline-run-*"),
        *(mark.parent for mark in folder.glob(f"run-*/{UNSENT}")),
    ]
    pieces = sorted(found, key=lambda piece: piece.name.removeprefix("offline-"))
    return [piece for piece in pieces if any(piece.glob("*.wandb")) and not _is_sent(piece)]


def _is_sent(piece: Path) -> bool:
    return any(piece.glob(f"*.wandb{SYNCED}"))


def sync(argv: Sequence[str]) -> int:
    """Send what waits, run by run; returns the exit code."""
    options = parser().parse_intermixed_args(list(argv))
    records = read_records(options.select, options.outputs or default_outputs())
    ready: dict[Path, list[Path]] = {}
    for record in records:
        pieces = waiting(record.run)
        if pieces and record.status.status == "running":
            print(f"{record.run.name} is still going: send it when it is done")
        elif pieces:
            ready[record.run] = pieces
    if not ready:
        print(f"nothing waits for wandb (runs looked at: {len(records)})")
        return DONE
    if options.dry_run:
        for run, pieces in ready.items():
            print(f"{run.name}: {len(pieces)} {'pieces' if len(pieces) > 1 else 'piece'}")
        print(f"{len(ready)} of {len(records)} runs wait for wandb")
        return DONE
    _check_server()
    return _send(ready)


def _check_server() -> None:
    """Refuse before anything is tried: the runs stay where they are."""
    obstacle = look().obstacle()
    if obstacle:
        raise UserMistake(f"{obstacle}; nothing was sent")


def _send(runs: dict[Path, list[Path]]) -> int:
    failed = 0
    for run, pieces in runs.items():
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, pieces)]
        done = subprocess.run(command, capture_output=True, text=True)
        left = [piece for piece in pieces if not _is_sent(piece)]
        if done.returncode == 0 and not left:
            print(f"{run.name}: sent", flush=True)
            continue
        failed += 1
        words = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        print(f"genbench: {run.name}: {words}", file=sys.stderr)
    print(
        f"{len(runs) - failed} of {len(runs)} runs sent" + (f", {failed} wait on" if failed else "")
    )
    return FAILED if failed else DONE

"""`genbench board`: a static site of many machines' runs."""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from genbench.comparison.board.content import board_of
from genbench.comparison.board.site import write_site
from genbench.comparison.reproduction import read_claims
from genbench.errors import DONE, UserMistake
from genbench.runs.paths import reproduce_root
from genbench.runs.records import some_runs
from genbench.runs.selection import unless_damaged
from genbench.sharing.manifest import Manifest
from genbench.sharing.pulling import Outcome, pull_run
from genbench.sharing.store import Store, merged


def main(argv: Sequence[str]) -> int:
    """Write the site; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench board",
        description="Write a static site, as for GitHub Pages, of the runs in a folder: tables with filters by dataset "
        "and card, published numbers beside measured ones, machines, what was verified, and a page per run.",
        epilog="examples: genbench board outputs --out docs/board · genbench board /team/runs study=mnist",
    )
    parser.add_argument(
        "folder", type=Path, help="an outputs folder, or one that runs were pushed to"
    )
    parser.add_argument("select", nargs="*", help="runs, or selections (default: all)")
    parser.add_argument("--out", type=Path, default=Path("site"), help="default: site")
    parser.add_argument("--title", help="default: the folder's name")
    options = parser.parse_intermixed_args(list(argv))
    if not options.folder.is_dir():
        raise UserMistake(f"{options.folder} is no folder: give one with runs, as outputs")
    title = options.title or options.folder.resolve().name
    with _runs_in(options.folder) as outputs:
        runs = some_runs(options.select, outputs)
        pages = write_site(board_of(runs, read_claims(reproduce_root()), title), options.out)
    print(f"{options.out}/index.html: {len(runs)} runs, {pages} pages")
    return DONE


@contextmanager
def _runs_in(folder: Path) -> Iterator[Path]:
    """A folder of run directories: `folder` itself, or what is pulled from a folder that was pushed to."""
    if not ((folder / "objects").is_dir() and (folder / "runs").is_dir()):
        yield folder
        return
    store = Store(folder)
    with tempfile.TemporaryDirectory(prefix="genbench-board-") as room:
        for shared in merged(store.manifests()).values():
            for place, one in enumerate(shared):  # several runs may have one name
                unless_damaged(partial(_pulled, store, Path(room) / str(place)), one)
        yield _joined(Path(room))


def _pulled(store: Store, outputs: Path, shared: Manifest) -> Outcome:
    return pull_run(store, [shared], outputs)


def _joined(room: Path) -> Path:
    """All pulled runs in one folder; of several of one name the second is NAME-2."""
    outputs = room / "0"
    outputs.mkdir(exist_ok=True)
    for place in range(1, sum(1 for _ in room.iterdir())):
        for run in (room / str(place)).iterdir():
            run.rename(outputs / f"{run.name}-{place + 1}")
    return outputs

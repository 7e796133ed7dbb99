"""`genbench pull`: fetch the records of others' runs."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from genbench.commands.arguments import outputs_argument
from genbench.errors import DONE, FAILED, GenbenchError, UserMistake
from genbench.sharing.git import Repository, is_repository
from genbench.sharing.pulling import Outcome, pull_run
from genbench.sharing.remote import RemoteStore, is_remote
from genbench.sharing.store import Store, merged


def main(argv: Sequence[str]) -> int:
    """Pull runs; returns the exit code, 1 if one could not be pulled."""
    parser = argparse.ArgumentParser(
        prog="genbench pull",
        parents=[outputs_argument()],
        description="Fetch what others have pushed to a folder, a git repository, a bucket or another machine into the outputs "
        "folder. A file that is there already stays unless the shared one is later. What is pulled is data: a "
        "run that names code of others is not built before --trust.",
        epilog="examples: genbench pull /team/runs · genbench pull git@host:team/runs.git 20260101",
    )
    parser.add_argument(
        "source",
        help="a folder, a git repository (git@host:team/runs.git), s3://bucket/folder, ssh://host/folder",
    )
    parser.add_argument("runs", nargs="*", help="ids or their beginnings (default: all)")
    options = parser.parse_intermixed_args(list(argv))
    if is_remote(options.source):
        return _pull(RemoteStore(options.source), options.runs, options.outputs)
    if not is_repository(options.source):
        store = Store(Path(options.source).expanduser())
        return _pull(store, options.runs, options.outputs)
    repository = Repository(options.source)
    with repository.locked():
        if not repository.fetch():
            raise UserMistake(f"{options.source} holds no shared runs yet: `genbench push` them")
        return _pull(repository.store, options.runs, options.outputs)


def _pull(store: Store, wanted: Sequence[str], outputs: Path) -> int:
    shared = merged(store.manifests())
    chosen = [n for n in shared if not wanted or any(n.startswith(one) for one in wanted)]
    if not chosen:
        raise UserMistake(f"there is no run {' or '.join(wanted) or ''} in {store.name}")
    outcomes: Counter[Outcome] = Counter()
    failed = 0
    for name in chosen:
        try:
            outcome = pull_run(store, shared[name], outputs)
        except GenbenchError as error:
            failed += 1
            print(f"genbench: {name}: {error}", file=sys.stderr)
            continue
        outcomes[outcome] += 1
        if outcome == "another":
            print(
                f"genbench: {name} is another run here than the shared one: rename "
                f"{outputs / name} to pull it",
                file=sys.stderr,
            )
        elif len(shared[name]) > 1:
            print(
                f"genbench: {name} is the name of {len(shared[name])} shared runs: one is here",
                file=sys.stderr,
            )
    counts = f"{outcomes['new']} new, {outcomes['updated']} updated, {outcomes['known']} known"
    print(f"{counts}{f', {failed} failed' if failed else ''} in {outputs}")
    return FAILED if failed else DONE

"""`genbench push`: put the records of runs where others find them, or one run on a model hub."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from genbench.commands.arguments import outputs_argument
from genbench.commands.card import card
from genbench.comparison.contact_sheet import last_grids
from genbench.errors import DONE, UserMistake
from genbench.launch.run import run_verb
from genbench.runs import trust
from genbench.runs.directory import find_run
from genbench.runs.files import explain_os_error, write_json, write_text
from genbench.runs.records import read_records
from genbench.runs.result import read_result
from genbench.sharing import hub
from genbench.sharing.git import Repository, is_repository
from genbench.sharing.remote import RemoteStore, is_remote
from genbench.sharing.store import Store


def main(argv: Sequence[str], worker: str = "genbench.work export") -> int:
    """Push runs; returns the exit code."""
    options = _options(argv)
    if hub.is_hub(options.destination):
        return _push_model(options, argv, worker)
    if options.licence or options.public or options.out or options.trust:
        raise UserMistake("--licence, --public, --out and --trust are for hf://user/name alone")
    runs = _runs(options.select, options.outputs)
    if is_remote(options.destination):
        store: Store = RemoteStore(options.destination)
        new = [run for run in runs if store.add(run, options.weights)]
    elif is_repository(options.destination):
        repository = Repository(options.destination)
        with repository.locked():
            new = repository.push(runs, options.weights)
    else:
        store = Store(Path(options.destination).expanduser())
        new = [run for run in runs if store.add(run, options.weights)]
    rest = ", the others were there" if len(new) < len(runs) else ""
    print(f"{len(new)} of {len(runs)} runs pushed to {options.destination}{rest}")
    return DONE


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="genbench push",
        parents=[outputs_argument()],
        description="Add records, evaluations, curves and the newest grid of runs (about 200 kB each) to a folder, a git "
        "repository, a bucket or a folder of another machine that others push to. Contents are named by their hashes: "
        "nothing is overwritten, and pushing again does nothing. To hf://user/name goes one run as a model: card, "
        "weights, settings.",
        epilog="examples: genbench push /team/runs · genbench push git@host:team/runs.git study=mnist · "
        "genbench push s3://team/runs · genbench push ssh://host/team/runs latest --weights · "
        "genbench push latest hf://me/digits-vae --licence cc-by-4.0",
    )
    parser.add_argument(
        "destination",
        help="a folder, a git repository (git@host:team/runs.git), s3://bucket/folder, ssh://host/folder, hf://user/name",
    )
    parser.add_argument("select", nargs="*", help="runs, or selections (default: all)")
    parser.add_argument("--weights", action="store_true", help="also the final checkpoints")
    model = parser.add_argument_group("one run to hf://user/name")
    model.add_argument("--licence", "--license", help="of the weights, as in cc-by-4.0")
    model.add_argument("--public", action="store_true", help="a new repository is for all to see")
    model.add_argument(
        "--out", type=Path, help="write what would be pushed into this new folder, push nothing"
    )
    model.add_argument(
        "--trust", action="store_true", help="a run from elsewhere may name code of others"
    )
    options = parser.parse_intermixed_args(list(argv))
    words = [options.destination, *options.select]
    named = [word for word in words if hub.is_hub(word)]
    if named:  # RUN hf://user/name, in either order
        options.destination = named[0]
        options.select = [word for word in words if word != named[0]]
    return options


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


# --- a model on the hub ---------------------------------------------------------------------------
def _push_model(options: argparse.Namespace, argv: Sequence[str], worker: str) -> int:
    name = hub.repository_of(options.destination)
    if len(options.select) != 1:
        raise UserMistake(f"push one run as a model: genbench push latest {options.destination}")
    run = find_run(options.select[0], options.outputs)
    trust.admitted(run, options.trust)
    with tempfile.TemporaryDirectory(prefix="genbench-push-") as room:
        folder = Path(room) / "model"
        folder.mkdir()
        _describe(run, folder, options.licence)
        weights = [str(run), "--safetensors", str(folder / "model.safetensors")]
        code = run_verb(weights, "push", argv, worker)
        if code != DONE:
            return code
        if options.out:
            _keep(folder, options.out)
            print(f"{options.out}: what would be pushed to {options.destination}")
            return DONE
        message = f"{run.resolve().name} of genbench"
        print(f"{name}: {hub.upload(folder, options.destination, not options.public, message)}")
    return DONE


def _describe(run: Path, folder: Path, licence: str | None) -> None:
    """Write card, settings, record and newest grid of a finished run."""
    result = read_result(run)
    if result.status != "finished":
        raise UserMistake(f"{result.run_id} is {result.status}: a model is of a finished run")
    text = card(result, licence)
    grid = last_grids(run).get("samples")
    if grid is not None:
        shutil.copy(grid, folder / "samples.png")
        text += "\n\n![samples](samples.png)\n"
    write_text(folder / "README.md", text + hub.FILES)
    config = hub.public_config(result.config)
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_json(folder / "result.json", hub.public_result(result.to_dict()))


def _keep(folder: Path, out: Path) -> None:
    try:
        shutil.copytree(folder, out)
    except FileExistsError:
        raise UserMistake(
            f"{out} exists, and nothing is overwritten: choose another folder with --out"
        ) from None
    except OSError as error:
        raise UserMistake(f"cannot write {out}: {explain_os_error(error)}") from None

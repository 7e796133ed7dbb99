"""`genbench wandb`: upload what was logged offline (`sync`), save a view of a study (`workspace`).

A view needs the package wandb-workspaces: `genbench[workspace]`.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from genbench.commands.arguments import runs_arguments, wants_help
from genbench.errors import DONE, FAILED, GenbenchError, UserMistake
from genbench.launch.wandb_access import check_access
from genbench.runs.files import UNSENT, write_out
from genbench.runs.history import SPENT, read_history
from genbench.runs.priors import score_address
from genbench.runs.records import read_records, some_runs
from genbench.runs.result import Result

USAGE = """\
usage: genbench wandb sync [RUN|key=value ...] [--dry-run]
       genbench wandb workspace study=NAME [--entity E] [--project P] [--out FILE]

sync uploads what was logged offline and was not uploaded before; a resumed run gets one id.
workspace saves a view of a study: scores in groups of seeds, curves over images, pictures side by side.

  genbench wandb sync --dry-run
  genbench wandb sync study=objectives
  genbench wandb workspace study=objectives"""
SYNCED = ".synced"  # suffix of the file that wandb leaves beside a .wandb file that it has uploaded
MEDIA = ("samples", "interpolations", "reconstructions", "curves", "scores")  # panels of pictures
NOT_A_PANEL = ("images_per_second", *SPENT)


def main(argv: Sequence[str]) -> int:
    """Run `sync` or `workspace`, as the first word says; returns the exit code."""
    if wants_help(argv):
        print(USAGE)
        return DONE
    actions = {"sync": sync, "workspace": save_view}
    if not argv or argv[0] not in actions:
        raise UserMistake(f"wandb needs a subcommand: genbench wandb {' or '.join(actions)}")
    return actions[argv[0]](argv[1:])


# --- sync ---------------------------------------------------------------------------------------
def sync_parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench wandb sync`."""
    result = argparse.ArgumentParser(
        prog="genbench wandb sync",
        parents=[runs_arguments()],
        description="Send runs that were logged offline, or whose upload did not end, to wandb, the "
        "pieces of a resumed run under one id. What was sent before is left out, and so is a run that is still running.",
        epilog="examples: genbench wandb sync · genbench wandb sync study=objectives --dry-run",
    )
    result.add_argument(
        "--dry-run", action="store_true", help="list what would be sent, and send nothing"
    )
    return result


def unsent(run: Path) -> list[Path]:
    """wandb folders of a run that were not or not completely uploaded, oldest first.

    A resumed run has one for each time it was started or resumed.
    """
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
    """Upload the unsent folders of the selected runs; returns the exit code."""
    options = sync_parser().parse_intermixed_args(list(argv))
    records = read_records(options.select, options.outputs)
    ready: dict[Path, list[Path]] = {}
    for record in records:
        pieces = unsent(record.run)
        if pieces and record.status.status == "running":
            print(f"{record.run.name} is still running: send it when it is done")
        elif pieces:
            ready[record.run] = pieces
    if not ready:
        print(f"nothing is left to send to wandb (runs looked at: {len(records)})")
        return DONE
    if options.dry_run:
        for run, pieces in ready.items():
            print(f"{run.name}: {len(pieces)} {'pieces' if len(pieces) > 1 else 'piece'}")
        print(f"{len(ready)} of {len(records)} runs are to be sent to wandb")
        return DONE
    obstacle = check_access().obstacle()
    if obstacle:
        raise UserMistake(f"{obstacle}; nothing was sent")
    return _send(ready)


def _send(runs: Mapping[Path, Sequence[Path]]) -> int:
    failed = 0
    for run, pieces in runs.items():
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, pieces)]
        done = subprocess.run(command, capture_output=True, text=True)
        left = [piece for piece in pieces if not _is_sent(piece)]
        if done.returncode == 0 and not left:
            print(f"{run.name}: sent", flush=True)
            continue
        failed += 1
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        print(f"genbench: {run.name}: {reason}", file=sys.stderr)
    sent = f"{len(runs) - failed} of {len(runs)} runs sent"
    print(f"{sent}, {failed} not sent yet" if failed else sent)
    return FAILED if failed else DONE


# --- workspace ----------------------------------------------------------------------------------
def workspace_parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench wandb workspace`."""
    result = argparse.ArgumentParser(
        prog="genbench wandb workspace",
        parents=[runs_arguments("study=NAME", nargs="+")],
        description="Save a view of a study in wandb: a panel per score with seeds in groups, curves "
        "over images, the pictures side by side, and what the runs differ in.",
        epilog="examples: genbench wandb workspace study=objectives · genbench wandb workspace "
        "study=objectives --out workspace.json",
    )
    result.add_argument(
        "--entity", help="whose dashboard (default: the one that you are logged in as)"
    )
    result.add_argument("--project", default="genbench", help="default: genbench")
    result.add_argument("--name", help="of the view (default: the study's)")
    result.add_argument("--out", type=Path, help="write the specification here, and send nothing")
    return result


def save_view(argv: Sequence[str]) -> int:
    """Save the view on the server, or write its specification to a file; returns the exit code."""
    options = workspace_parser().parse_intermixed_args(list(argv))
    found = some_runs(options.select, options.outputs)
    results = [result for _, result in found]
    study = study_of(results)
    obstacle = "" if options.out else check_access().obstacle()
    if obstacle:
        raise UserMistake(f"{obstacle}, or --out workspace.json for the specification alone")
    view = build(results, columns_of([run for run, _ in found]), study, options)
    if options.out:
        write_out(options.out, specification(view))
        print(options.out)
        return DONE
    try:
        print(view.save().url)
    except Exception as error:  # wandb-workspaces does not say what its `save` raises
        raise GenbenchError(f"wandb did not accept the view: {error}") from error
    return DONE


def specification(view: Any) -> str:
    """JSON of a view, as `save` would send it.

    wandb-workspaces has no public function for this. GenbenchError if the private one is gone.
    """
    try:
        content = view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)
    except AttributeError as error:
        raise GenbenchError(
            f"--out does not work with the installed wandb-workspaces ({error}): leave it out, or "
            "pip install 'wandb-workspaces==0.4.*'"
        ) from error
    return str(content)


def study_of(results: Sequence[Result]) -> str:
    """The study that all runs belong to, by which a view is filtered; UserMistake if there are several."""
    studies = {result.study for result in results}
    if len(studies) > 1 or None in studies:
        named = ", ".join(sorted(study or "no study" for study in studies))
        raise UserMistake(f"a view shows one study, and these runs are of {named}: give study=NAME")
    return str(studies.pop())


def columns_of(runs: Sequence[Path]) -> list[str]:
    """Names of the columns of the runs' history.csv that get a panel, sorted."""
    names = {name for run in runs for name in read_history(run)}
    return sorted(names.difference(NOT_A_PANEL))


def build(
    results: Sequence[Result], columns: Sequence[str], study: str, options: argparse.Namespace
) -> Any:
    """The view as a wandb_workspaces.Workspace; UserMistake if that package is not installed."""
    try:
        reports: Any = import_module("wandb_workspaces.reports.v2")
        workspaces: Any = import_module("wandb_workspaces.workspaces")
    except ImportError as error:
        raise UserMistake(f"a view needs {error.name}: pip install 'genbench[workspace]'") from None

    def lines(names: Sequence[str]) -> list[Any]:
        return [reports.LinePlot(title=n, x="images", y=[n], smoothing_factor=0) for n in names]

    scores = dict.fromkeys(score_address(s) for r in results for s in r.scores)
    held_out = [name for name in columns if name.startswith("selection/")]
    sections = {
        "Scores": [reports.BarPlot(title=name, metrics=[name]) for name in scores],
        "Scores over images": lines(held_out),
        "Pictures": [reports.MediaBrowser(title=kind, media_keys=[kind]) for kind in MEDIA],
        "What the runs differ in": [reports.RunComparer(diff_only="split")],
        "Losses": lines([name for name in columns if name not in held_out]),
    }
    drawn = [
        workspaces.Section(name=name, panels=panels, is_open=name != "Losses")
        for name, panels in sections.items()
        if panels
    ]
    alone = len({r.fingerprint for r in results}) == len({r.model for r in results})
    group = "model" if alone else "fingerprint"
    return workspaces.Workspace(
        entity=options.entity or _entity(options.out),
        project=options.project,
        name=options.name or study,
        sections=drawn,
        settings=workspaces.WorkspaceSettings(x_axis="images", max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Config("study") == study], groupby=[workspaces.Config(group)]
        ),
    )


def _entity(out: Path | None) -> str:
    """The account that is logged in; empty if the view only goes to a file."""
    if out is not None:
        return ""
    import wandb

    return str(wandb.Api().default_entity or "")

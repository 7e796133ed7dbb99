"""`genbench wandb workspace`: a saved view of a study in wandb's dashboard. Imports no torch.

Needs wandb-workspaces, `genbench[workspace]`.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from genbench.errors import DONE, GenbenchError, UserMistake
from genbench.launch.wandb_access import look
from genbench.runs.files import write_out
from genbench.runs.history import read_history
from genbench.runs.paths import default_outputs
from genbench.runs.records import some_runs
from genbench.runs.result import Result

MEDIA = ("samples", "interpolations", "reconstructions", "curves", "scores")


NOT_A_PANEL = ("images_per_second",)


def parser() -> argparse.ArgumentParser:
    """Say what can be asked for."""
    result = argparse.ArgumentParser(
        prog="genbench wandb workspace",
        description="Save a view of a study in wandb: a panel per score with seeds in groups, curves "
        "over images, the pictures side by side, and what the runs differ in.",
        epilog="examples: genbench wandb workspace study=objectives · genbench wandb workspace "
        "study=objectives --out workspace.json",
    )
    result.add_argument("select", nargs="+", help="study=NAME")
    result.add_argument(
        "--entity", help="whose dashboard (default: the one that you are logged in as)"
    )
    result.add_argument("--project", default="genbench", help="default: genbench")
    result.add_argument("--name", help="of the view (default: the study's)")
    result.add_argument("--out", type=Path, help="write the specification here, and send nothing")
    result.add_argument("--outputs", type=Path, help="where the runs are (default: outputs)")
    return result


def main(argv: Sequence[str]) -> int:
    """Save the view or write its specification; returns the exit code."""
    options = parser().parse_intermixed_args(list(argv))
    found = some_runs(options.select, options.outputs or default_outputs())
    results = [result for _, result in found]
    study = study_of(results)
    obstacle = "" if options.out else look().obstacle()
    if obstacle:
        raise UserMistake(f"{obstacle}, or --out workspace.json for the specification alone")
    view = build(results, columns_of([run for run, _ in found]), study, options)
    if options.out:
        content = view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)
        write_out(options.out, content)
        print(options.out)
        return DONE
    try:
        print(view.save().url)
    except Exception as error:  # whatever the library and the server raise
        raise GenbenchError(f"wandb did not take the view: {error}") from error
    return DONE


def study_of(results: Sequence[Result]) -> str:
    """The one study that all runs belong to; a view is filtered by it. UserMistake otherwise."""
    studies = {result.study for result in results}
    if len(studies) > 1 or None in studies:
        named = ", ".join(sorted(study or "no study" for study in studies))
        raise UserMistake(f"a view shows one study, and these runs are of {named}: give study=NAME")
    return str(studies.pop())


def columns_of(runs: Sequence[Path]) -> list[str]:
    """What the runs logged over images."""
    names = {name for run in runs for name in read_history(run)}
    return sorted(names.difference(NOT_A_PANEL))


def build(
    results: Sequence[Result], columns: Sequence[str], study: str, options: argparse.Namespace
) -> Any:
    """Make the view; UserMistake where the extra is not installed."""
    try:
        reports: Any = import_module("wandb_workspaces.reports.v2")
        workspaces: Any = import_module("wandb_workspaces.workspaces")
    except ImportError as error:
        raise UserMistake(f"a view needs {error.name}: pip install 'genbench[workspace]'") from None

    def lines(names: Sequence[str]) -> list[Any]:
        return [reports.LinePlot(title=n, x="images", y=[n], smoothing_factor=0) for n in names]

    scores = dict.fromkeys(f"{s.checkpoint}/{s.name}" for r in results for s in r.scores)
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
    """Who is logged in; not asked where nothing is sent."""
    if out is not None:
        return ""
    import wandb

    return str(wandb.Api().default_entity or "")

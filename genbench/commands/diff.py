"""`genbench diff`: two runs side by side."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from genbench.commands.arguments import outputs_argument
from genbench.comparison.contact_sheet import contact_sheet
from genbench.comparison.diff import Points, diff_tables
from genbench.comparison.page.charts import draw_panels
from genbench.comparison.page.curves import Curve, Panel
from genbench.comparison.page.styles import of_methods
from genbench.comparison.tables import FORMATS, render
from genbench.errors import DONE, UserMistake
from genbench.runs.directory import find_run
from genbench.runs.files import explain_os_error, write_out
from genbench.runs.history import SPENT, read_history
from genbench.runs.result import read_result


def main(argv: Sequence[str]) -> int:
    """Print or write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench diff",
        parents=[outputs_argument()],
        description="Print what two runs differ in: settings, scores with intervals, and where their curves "
        "are at the last place that both have.",
        epilog="examples: genbench diff 20260101 latest · "
        "genbench diff A B --pictures both.png --curves curves.png",
    )
    parser.add_argument("a", metavar="A", help="an id, a unique prefix of one, a path, or latest")
    parser.add_argument("b", metavar="B", help="the other run")
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    parser.add_argument(
        "--pictures", type=Path, help="also write a PNG: both runs' grids side by side"
    )
    parser.add_argument(
        "--curves", type=Path, help="also write a PNG: both runs' curves in one panel each"
    )
    options = parser.parse_args(list(argv))
    runs = [find_run(name, options.outputs) for name in (options.a, options.b)]
    if runs[0].resolve() == runs[1].resolve():
        raise UserMistake(f"{options.a} and {options.b} are one run: name two")
    results = read_result(runs[0]), read_result(runs[1])
    histories = read_history(runs[0]), read_history(runs[1])
    text = render(diff_tables(results, histories), options.format)
    names = [result.run_id for result in results]
    if options.pictures:
        sheet = contact_sheet(list(zip(names, runs, strict=True)))
        _write(options.pictures, "--pictures", sheet.save)
    if options.curves:
        draw(dict(zip(names, histories, strict=True)), options.curves)
    if options.out:
        write_out(options.out, text)
    else:
        print(text)
    return DONE


def draw(histories: Mapping[str, Mapping[str, Points]], path: Path) -> None:
    """Draw a panel for every curve that all runs have, and write a PNG. UserMistake without one."""
    shared = set.intersection(*(set(history) for history in histories.values())) - set(SPENT)
    if not shared:
        raise UserMistake("--curves: the runs have no curve in common: leave it out")
    panels = [
        Panel(name, "", [_curve(run, history[name]) for run, history in histories.items()])
        for name in sorted(shared)
    ]
    _write(path, "--curves", partial(draw_panels, panels, of_methods(histories)))


def _curve(run: str, points: Points) -> Curve:
    images, values = zip(*points, strict=True)
    return Curve(run, images, values, [], [], 1)


def _write(path: Path, option: str, save: object) -> None:
    assert callable(save)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path)
    except OSError as error:
        raise UserMistake(f"cannot write {option} {path}: {explain_os_error(error)}") from None
    except ValueError:
        raise UserMistake(f"{option} {path}: give the name of a .png file") from None

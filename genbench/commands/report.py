"""`genbench report`: a study on one page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from genbench.commands.arguments import runs_arguments
from genbench.comparison.page.content import study_of
from genbench.comparison.page.html import write_html
from genbench.comparison.page.markdown import write_markdown
from genbench.comparison.table import arenas
from genbench.errors import DONE
from genbench.runs.files import write_out
from genbench.runs.records import some_runs


def parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench report`."""
    result = argparse.ArgumentParser(
        prog="genbench report",
        parents=[runs_arguments("runs, or selections: study=objectives")],
        description="Write a study on one page: table, verdicts, curves, pictures, losses, cost, metric "
        "cards, failed runs. An HTML page is one file and needs no network to be read.",
        epilog="examples: genbench report study=objectives · genbench report study=objectives --versus gan "
        "--out report.html · genbench report study=objectives --format md --out RESULTS.md",
    )
    result.add_argument("--out", type=Path, help="the file (default: report.html, or report.md)")
    result.add_argument("--format", choices=("html", "md"), help="default: by --out, else html")
    result.add_argument("--title", help="default: the study's name")
    result.add_argument("--question", help="what the study asks (default: that of a shipped study)")
    result.add_argument("--metric", action="append", default=[], help="show this score; repeatable")
    result.add_argument("--all", action="store_true", help="show every score")
    result.add_argument("--sort", help="order by this score (default: the first column)")
    result.add_argument(
        "--versus", metavar="ROW", help="give verdicts against this row (default: the best one)"
    )
    return result


def main(argv: Sequence[str]) -> int:
    """Write the page and print its path; returns the exit code."""
    options = parser().parse_intermixed_args(list(argv))
    found = some_runs(options.select, options.outputs)
    results = [result for _, result in found]
    form = options.format or ("md" if options.out and options.out.suffix == ".md" else "html")
    out = options.out or Path(f"report.{form}")
    studies = sorted({result.study for result in results if result.study})
    title = options.title or ", ".join(studies) or "runs"
    sections = arenas(results, options.metric, options.all, options.sort)
    directories = {run.name: run for run, _ in found}
    study = study_of(sections, directories, title, options.question, options.versus)
    write_out(out, write_html(study) if form == "html" else write_markdown(study, out))
    print(out)
    return DONE

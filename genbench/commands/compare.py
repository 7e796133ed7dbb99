"""`genbench compare`: methods in rows, scores in columns, seeds aggregated.

A row holds the runs of one fingerprint, which differ only in their seed. A column is a score under one
protocol: scores whose cards differ never share a column. Failed runs are counted, never dropped.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from genbench.commands.arguments import runs_arguments
from genbench.comparison.best_of_k import best_of_tables
from genbench.comparison.budgets import At, parse_at, results_at
from genbench.comparison.costs import cost_table
from genbench.comparison.layouts import by_dataset, folded, with_counts
from genbench.comparison.paired import paired_tables
from genbench.comparison.per_run import wide_table
from genbench.comparison.priors import by_prior
from genbench.comparison.rows import as_trained, make_rows
from genbench.comparison.table import arenas, table_of
from genbench.comparison.tables import FORMATS, Table, render
from genbench.comparison.verdicts import versus_tables
from genbench.errors import DONE, UserMistake
from genbench.runs.files import explain_os_error, write_out
from genbench.runs.records import garbage_collection_paused, some_runs
from genbench.runs.result import Result


def parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench compare`."""
    result = argparse.ArgumentParser(
        prog="genbench compare",
        parents=[runs_arguments("runs, or selections: model=gan seed=0,1 network.latent_dim=32")],
        description="Print the table: methods in rows, scores in columns, mean ± sd over seeds. What is "
        "bold (* on a terminal) is better than every other row beyond the chance of seeds.",
        epilog="examples: genbench compare study=demo · genbench compare model=vae,gan "
        "dataset=mnist --metric fd --metric elbo --format md · genbench compare study=demo --versus gan "
        "· genbench compare study=demo --at images=500k --metric fd · docs/studies.md",
    )
    result.add_argument("--metric", action="append", default=[], help="show this score; repeatable")
    result.add_argument("--all", action="store_true", help="show every score")
    result.add_argument("--sort", help="order by this score (default: the first column)")
    result.add_argument(
        "--pareto", type=_names, default=[], metavar="A,B", help="mark who is best in two scores"
    )
    result.add_argument(
        "--versus",
        metavar="ROW",
        help="also print each row's differences to this one, and verdicts",
    )
    result.add_argument(
        "--at",
        type=_place,
        metavar="AXIS=N",
        help="the scores that history.csv has at images=500k, seconds=60 or flops=1T",
    )
    result.add_argument(
        "--best-of",
        type=int,
        metavar="K",
        help="what the best of K trials of a search has on average, chosen on --sort",
    )
    result.add_argument(
        "--pair-images",
        action="store_true",
        help="also print each row's differences to the first one (or --versus) image by image",
    )
    result.add_argument(
        "--cost",
        action="store_true",
        help="also print what each row cost: decoder rows, real images, multiply-adds, seconds",
    )
    result.add_argument(
        "--wide",
        action="store_true",
        help="a line per run with every score, cost and setting; as csv unless --format says otherwise",
    )
    result.add_argument("--rows", choices=("model",), default="model", help="what is in a row")
    result.add_argument(
        "--columns",
        choices=("score", "dataset", "prior"),
        default="score",
        help="what is in a column; prior: a table per score, the priors of a training side by side",
    )
    _output_arguments(result)
    return result


def _output_arguments(result: argparse.ArgumentParser) -> None:
    result.add_argument("--format", choices=FORMATS, help="default: table")
    result.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    result.add_argument(
        "--pictures", type=Path, help="also write a PNG: every row's sample grids side by side"
    )


def _names(text: str) -> list[str]:
    names = text.split(",")
    if len(names) < 2 or not all(names):
        raise argparse.ArgumentTypeError(f"{text}: name two scores or more, as in fd,copy_rate")
    return names


def _place(text: str) -> At:
    try:
        return parse_at(text)
    except UserMistake as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str]) -> int:
    """Print or write the table; returns the exit code."""
    options = parser().parse_intermixed_args(list(argv))
    with garbage_collection_paused():
        return _compare(options)


def _compare(options: argparse.Namespace) -> int:
    options.format = options.format or ("csv" if options.wide else "table")
    found = some_runs(options.select, options.outputs)
    tables = tables_of(options, found)
    if options.pictures:
        _draw(
            [result for _, result in found], {run.name: run for run, _ in found}, options.pictures
        )
    text = render(tables, options.format)
    if options.out:
        write_out(options.out, text)
    else:
        print(text)
    return DONE


def tables_of(options: argparse.Namespace, found: Sequence[tuple[Path, Result]]) -> list[Table]:
    """The tables that the parser's `options` ask for, of runs and their results. Raises UserMistake."""
    results = [result for _, result in found]
    directories = {run.name: run for run, _ in found}
    if options.pair_images:
        return _paired(options, results, directories)
    if not options.at:
        return _tables(options, results, [])
    results, notes = results_at(results, directories, options.at, options.metric)
    return _tables(argparse.Namespace(**{**vars(options), "metric": []}), results, notes)


def _paired(
    options: argparse.Namespace, results: Sequence[Result], directories: Mapping[str, Path]
) -> list[Table]:
    """The tables without the option, then differences by image: alone where the format holds one kind."""
    if options.at or options.wide or options.best_of is not None:
        raise UserMistake(
            "--pair-images is about scores of final weights: leave out --at, --wide and --best-of"
        )
    found = arenas(results, options.metric, options.all, options.sort, options.pareto)
    added = paired_tables(found, directories, options.versus)
    before = [] if options.format == "csv" else _tables(options, results, [])
    return [*before, *added]


def _tables(
    options: argparse.Namespace, results: Sequence[Result], notes: Sequence[str]
) -> list[Table]:
    if options.wide:
        _only_table(options, "--wide")
        return [wide_table(results)]
    everything = options.all or bool(options.at)
    found = arenas(results, options.metric, everything, options.sort, options.pareto)
    if options.best_of is not None:
        _only_table(options, "--best-of")
        return _formatted(best_of_tables(found, options.best_of, options.sort), options)
    tables = [table_of(arena, options.pareto, notes) for arena in found]
    if options.columns == "dataset":
        tables = by_dataset(tables)
    elif options.columns == "prior":
        tables = [
            part
            for arena, table in zip(found, tables, strict=True)
            for part in by_prior(arena.rows, table)
        ]
    costs = [cost_table(a.rows, f"{a.dataset}: cost") for a in found] if options.cost else []
    added = versus_tables(found, options.versus) if options.versus else []
    # one kind of table is what a csv file can hold
    alone = options.format == "csv" and bool(costs or added)
    return _formatted([*([] if alone else tables), *costs], options) + added


def _only_table(options: argparse.Namespace, option: str) -> None:
    """UserMistake if `option`, which prints a table of its own, is combined with others that do."""
    given = {
        "--best-of": options.best_of is not None and option != "--best-of",
        "--versus": options.versus,
        "--cost": options.cost,
        "--pareto": options.pareto,
        f"--columns {options.columns}": options.columns != "score",
    }
    for other, is_given in given.items():
        if is_given:
            raise UserMistake(f"{option} makes a table of its own: leave out {other}")


def _formatted(tables: Sequence[Table], options: argparse.Namespace) -> list[Table]:
    if options.format == "table" and not options.out:
        return [part for table in tables for part in folded(table)]
    if options.format == "csv":
        return [with_counts(table) for table in tables]
    return list(tables)


def _draw(results: Sequence[Result], where: Mapping[str, Path], path: Path) -> None:
    """Draw the sample grids of the first run of every trained row into the PNG `path`."""
    from genbench.comparison.contact_sheet import contact_sheet

    rows = [row for row in as_trained(make_rows(results)) if row.runs and not row.untrained]
    runs = [(f"{row.label} on {row.dataset}", where[row.runs[0].run_id]) for row in rows]
    if not runs:
        raise UserMistake(
            "--pictures: none of these runs was trained and has finished, see `genbench runs`"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(runs).save(path)
    except OSError as error:
        raise UserMistake(
            f"cannot write --pictures {path}: {explain_os_error(error)}; choose another file"
        ) from None
    except ValueError:
        raise UserMistake(f"--pictures {path}: give the name of a .png file") from None

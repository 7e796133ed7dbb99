"""Arguments that several commands take: help, runs or selections of runs, and the outputs folder."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from genbench.runs.paths import default_outputs


def wants_help(argv: Sequence[str]) -> bool:
    """Whether the first argument asks for the usage."""
    return bool(argv) and argv[0] in ("-h", "--help")


def outputs_argument() -> ArgumentParser:
    """Parent parser with `--outputs`, a Path; default: GENBENCH_OUTPUTS, else outputs."""
    parent = ArgumentParser(add_help=False, allow_abbrev=False)
    parent.add_argument(
        "--outputs",
        type=Path,
        default=default_outputs(),
        help="where the runs are (default: outputs)",
    )
    return parent


def runs_arguments(
    examples: str = "runs, or selections (default: all)", nargs: str = "*"
) -> ArgumentParser:
    """Parent parser with `select`, the runs to work on, and `--outputs`. `examples` is its help."""
    parent = ArgumentParser(add_help=False, parents=[outputs_argument()])
    parent.add_argument("select", nargs=nargs, help=examples)
    return parent

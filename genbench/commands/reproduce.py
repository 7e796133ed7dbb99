"""`genbench reproduce`: published numbers beside our own, and the commands that give them."""

import argparse
from collections.abc import Callable, Sequence

from genbench.commands.arguments import outputs_argument
from genbench.comparison.reproduction import (
    Claim,
    described,
    find_claim,
    measured_words,
    read_claims,
    table,
)
from genbench.errors import DONE, UserMistake
from genbench.launch import task
from genbench.launch.host import visible_gpus
from genbench.runs.paths import reproduce_root
from genbench.runs.records import load_results

OUTSIDE = 1  # exit code of a reproduction whose value lies outside of its band

HEADS = ["row", "claimed", "band", "measured", "verdict"]


def parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench reproduce`."""
    result = argparse.ArgumentParser(
        prog="genbench reproduce",
        parents=[outputs_argument()],
        description="List published numbers with what was measured of them, or run one: its command, its "
        "cost beforehand, and whether the value falls inside the band. Too good is outside as well.",
        epilog="examples: genbench reproduce · genbench reproduce vae-mnist-static --show · "
        "genbench reproduce vae-mnist-static. A run that was stopped goes on with the same command.",
    )
    result.add_argument("row", nargs="?", help="the row to run (default: list all)")
    result.add_argument(
        "--show", action="store_true", help="print the row and its command, run nothing"
    )
    result.add_argument(
        "--anyway", action="store_true", help="run a row that needs a GPU without one"
    )
    result.add_argument(
        "settings", nargs="*", help="how it is run here: trainer=..., paths.data=..., logger=..."
    )
    return result


def main(argv: Sequence[str], train: Callable[[Sequence[str]], int] = task.train) -> int:
    """List the rows or run one; returns the exit code: 0 inside of the band, 1 outside."""
    options = parser().parse_intermixed_args(list(argv))
    claims = read_claims(reproduce_root())
    if options.row is None:
        _list(claims, options)
        return DONE
    claim = find_claim(options.row, claims)
    print("\n".join(described(claim)))
    if options.show:
        return DONE
    _check(claim, options)
    own = [f"paths.outputs={options.outputs}", *options.settings]
    code = train(["-m", *claim.overrides, *own])
    if code != DONE:
        return code
    found = claim.of_runs(load_results([f"study={claim.study}"], options.outputs))
    if found is None:
        raise UserMistake(
            f"the runs of {claim.name} have no score {claim.score}: look at them with "
            f"`genbench compare study={claim.study}`"
        )
    print(f"{claim.name}: {measured_words(claim, found)}")
    return DONE if claim.verdict(found.value) == "inside" or claim.band is None else OUTSIDE


def _check(claim: Claim, options: argparse.Namespace) -> None:
    """UserMistake for settings that make another method of the row, or for a GPU that is not there."""
    for setting in options.settings:
        if setting.split("=")[0].split(".")[0] not in ("trainer", "paths", "logger", "hydra"):
            raise UserMistake(
                f"{setting} changes what is reproduced: a row takes trainer, paths, logger and hydra; for "
                "other settings copy its command"
            )
    if "a GPU" in claim.needs and not visible_gpus() and not options.anyway:
        raise UserMistake(
            f"{claim.name} needs a GPU, and none is used here: run the command above on a machine that has "
            "one, or add --anyway"
        )


def _list(claims: Sequence[Claim], options: argparse.Namespace) -> None:
    results = load_results([], options.outputs) if options.outputs.is_dir() else []
    here = {claim.name: claim.of_runs(results) for claim in claims}
    rows = [HEADS, *table(claims, {name: one for name, one in here.items() if one is not None})]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADS))]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print(
        "\n`genbench reproduce ROW --show` says where a number is from, what differs and what it costs."
    )

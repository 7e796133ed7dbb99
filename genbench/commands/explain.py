"""`genbench explain`: where each method's distance to the data comes from."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from genbench.commands.arguments import runs_arguments
from genbench.comparison.explained import bar, gap_table, heading, legend, notes, scale, sentence
from genbench.comparison.gap import NOT_ADDITIVE, Gap, gaps
from genbench.comparison.table import arenas
from genbench.comparison.tables import FORMATS, render
from genbench.errors import DONE, UserMistake
from genbench.runs.files import write_out
from genbench.runs.records import some_runs

WIDTH = 100  # of lines on a terminal


def parser() -> argparse.ArgumentParser:
    """Parser of the options of `genbench explain`."""
    result = argparse.ArgumentParser(
        prog="genbench explain",
        parents=[runs_arguments("runs, or selections: study=demo model=vae,gan")],
        description="Take each method's Frechet distance apart: what new images have (the floor), what "
        "reconstructions add (the decoder's part), samples from the best fitted prior (the latents' part), and "
        "samples as in training, from N(0, I) or a learned prior (the prior's part). What is not known is named with "
        "the command that fills it.",
        epilog="examples: genbench explain study=demo · genbench explain latest · genbench explain study=demo "
        "--format md --out GAP.md · docs/metrics.md",
    )
    forms = ("text", *FORMATS)
    result.add_argument("--format", choices=forms, default="text", help="default: text")
    result.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    return result


def main(argv: Sequence[str]) -> int:
    """Print or write what explains the distances; returns the exit code."""
    options = parser().parse_intermixed_args(list(argv))
    results = [result for _, result in some_runs(options.select, options.outputs)]
    found = {arena.dataset: gaps(arena.rows) for arena in arenas(results)}
    found = {dataset: own for dataset, own in found.items() if own}
    if not found:
        raise UserMistake(
            "none of these runs was trained and has an FD to explain: score them with `genbench evaluate RUN`"
        )
    if options.format == "text":
        text = "\n\n".join(_described(dataset, own) for dataset, own in found.items())
    else:
        tables = [gap_table(own, f"{name}: {heading(own)}") for name, own in found.items()]
        text = render(tables, options.format)
    if options.out:
        write_out(options.out, text)
    else:
        print(text)
    return DONE


def _described(dataset: str, found: Sequence[Gap]) -> str:
    """A bar and a sentence per method, best first, and what must be known to read them."""
    longest, width = scale(found), max(len(gap.label) for gap in found)
    lines = [f"{dataset}: {heading(found)}", ""]
    lines += [f"  {gap.label:<{width}}  {bar(gap, longest)}" for gap in found]
    lines += [f"  {'':<{width}}  {legend(found)}", ""]
    for words in [sentence(gap) for gap in found]:
        lines.append(textwrap.fill(words, WIDTH, initial_indent="  ", subsequent_indent="    "))
    lines.append("")
    for words in [*notes(found), NOT_ADDITIVE]:
        lines.append(_note(words))
    return "\n".join(lines)


def _note(words: str) -> str:
    """A note in lines; a command in it stays on one line, to be copied."""
    text, colon, command = words.partition(": genbench ")
    filled = textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return f"{filled}:\n    genbench {command}" if colon else filled

"""A board as a folder of static files, for GitHub Pages and its like. Needs Jinja, `genbench[report]`."""

import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from genbench import __version__
from genbench.comparison.board.content import Board
from genbench.errors import UserMistake
from genbench.runs.files import atomic_write, explain_os_error, write_text

OURS = ".genbench-board"  # marks a folder that may be written again


def write_site(board: Board, out: Path) -> int:
    """Write the site; the number of pages. UserMistake if `out` holds something else, or without Jinja.

    Pages of runs that are no longer there are deleted. The index is written last.
    """
    pages, pictures = _pages(board)
    try:
        _claim(out)
        for name, source in pictures.items():
            (out / name).parent.mkdir(exist_ok=True)
            with atomic_write(out / name, sync=False) as temporary:
                temporary.write_bytes(source.read_bytes())
        for name, text in pages.items():
            (out / name).parent.mkdir(exist_ok=True)
            write_text(out / name, text)
        for folder in ("runs", "pictures"):
            for path in (out / folder).glob("*"):
                if f"{folder}/{path.name}" not in {*pages, *pictures}:
                    path.unlink()
    except OSError as error:
        raise UserMistake(f"cannot write {out}: {explain_os_error(error)}") from None
    return len(pages) - 2  # without the style and the mark that Jekyll looks for


def _claim(out: Path) -> None:
    """Make the folder, or find that it is a board."""
    if out.is_dir() and any(out.iterdir()) and not (out / OURS).exists():
        raise UserMistake(
            f"{out} holds other files than a board's, and none of them is overwritten: choose an empty folder "
            "with --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / OURS, f"genbench {__version__}\n")


def _pages(board: Board) -> tuple[Mapping[str, str], Mapping[str, Path]]:
    """Texts and pictures by their path in the site, the index last."""
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise UserMistake(f"a board needs {error.name}: pip install 'genbench[report]'") from None
    here = files("genbench.comparison.board")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    said = {"board": board, "version": __version__, "date": time.strftime("%Y-%m-%d")}
    run_page, index = (
        environment.from_string((here / name).read_text(encoding="utf-8"))
        for name in ("run.html.j2", "index.html.j2")
    )
    pages = {"board.css": (here / "board.css").read_text(encoding="utf-8"), ".nojekyll": ""}
    pictures: dict[str, Path] = {}
    for entry in board.entries:
        own = {kind: f"pictures/{entry.slug}-{kind}.png" for kind in entry.pictures}
        pictures |= {own[kind]: path for kind, path in entry.pictures.items()}
        pages[f"runs/{entry.slug}.html"] = run_page.render(entry=entry, pictures=own, **said)
    pages["index.html"] = index.render(**said)
    return pages, pictures

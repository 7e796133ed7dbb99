"""What a notebook shows of a run: a card with its scores and its newest grid. All text is escaped."""

import base64
import html
from pathlib import Path

from genbench.comparison.contact_sheet import last_grids
from genbench.library.frames import Scores
from genbench.runs.result import Result
from genbench.runs.status import Status


def run_card(run: Path, result: Result | None, status: Status, damage: str = "") -> str:
    """HTML of a run without scripts and without links; of a damaged one its name and `damage`."""
    name = html.escape(run.resolve().name)
    lines = [f"<strong>{name}</strong> {html.escape(status.status)}"]
    if status.reason:
        lines.append(html.escape(status.reason))
    if result is None:
        return _framed("", [*lines, html.escape(damage)])
    title = f"{result.model} on {result.dataset}, seed {result.seed}"
    lines.insert(1, html.escape(f"{title}, study {result.study}" if result.study else title))
    lines += [f"warning: {html.escape(warning)}" for warning in result.warnings]
    scores = Scores(result.scores)._repr_html_() if result.scores else "not scored"
    return _framed(_picture(run), [*lines, scores])


def _picture(run: Path) -> str:
    """The newest grid of samples, in the page itself; empty without one."""
    path = last_grids(run).get("samples")
    if path is None:
        return ""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="samples" style="max-width:320px" src="data:image/png;base64,{content}">'


def _framed(picture: str, lines: list[str]) -> str:
    text = "".join(f"<div>{line}</div>" for line in lines)
    return (
        '<div style="display:flex;gap:1em;flex-wrap:wrap;align-items:flex-start">'
        f"{picture}<div>{text}</div></div>"
    )

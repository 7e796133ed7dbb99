"""A study as one HTML file that needs no network. Needs Jinja and plotly, `genbench[report]`."""

import json
import shlex
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from genbench import __version__
from genbench.errors import UserMistake
from genbench.page.content import NO_CURVES, Section, Study
from genbench.page.curves import Panel
from genbench.page.plots import BAND, PALETTE, colours, plot


def write_html(study: Study) -> str:
    """Lay the study out; raises UserMistake where the extra is not installed."""
    try:
        from jinja2 import Environment
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserMistake(
            f"a report needs {error.name}: pip install 'genbench[report]', or --format md"
        ) from None
    template = files("genbench.page").joinpath("report.html.j2").read_text(encoding="utf-8")
    plots: dict[str, Any] = {}
    places = colours(sorted({label for part in study.sections for label in part.labels}))
    sections = [_section(part, places, plots) for part in study.sections]
    rows = [row for part in study.sections for row in part.rows]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(
        study=study,
        sections=sections,
        places=places,
        plots=Markup(json.dumps(plots).replace("<", "\\u003c")),  # no tag can end the script
        library=Markup(get_plotlyjs()),
        palette=PALETTE,
        band=BAND,
        no_curves=NO_CURVES,
        version=__version__,
        date=time.strftime("%Y-%m-%d"),
        runs=sum(len(row.runs) + len(row.unfinished) for row in rows),
        command=f"genbench {shlex.join(sys.argv[1:])}",
    )


def _section(part: Section, places: dict[str, int], plots: dict[str, Any]) -> dict[str, Any]:
    """A part with the addresses of its plots, which are added to `plots`."""

    def named(panels: Any, own: dict[str, int] | None = None) -> Iterator[dict[str, str]]:
        for panel in panels:
            name = f"plot{len(plots)}"
            plots[name] = plot(panel, own or _places(panel))
            yield {"id": name, "title": panel.title}

    scores = list(named(part.scores, places))
    losses = {label: list(named(panels)) for label, panels in part.losses.items()}
    return {"part": part, "losses": losses, "scores": scores}


def _places(panel: Panel) -> dict[str, int]:
    """Colours of the curves of a panel that are no methods."""
    return colours([curve.label for curve in panel.curves])

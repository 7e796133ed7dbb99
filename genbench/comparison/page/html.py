"""A study as one HTML file that needs no network. Needs Jinja and plotly, `genbench[report]`."""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from genbench import __version__
from genbench.comparison.page.content import NO_CURVES, Section, Study
from genbench.comparison.page.curves import Panel
from genbench.comparison.page.gap_plot import gap_bars
from genbench.comparison.page.plots import BAND, plot
from genbench.comparison.page.styles import PALETTE, Style, of_losses, of_methods
from genbench.comparison.page.tradeoff_plot import scatter
from genbench.comparison.tradeoffs import in_words
from genbench.errors import UserMistake

if TYPE_CHECKING:
    from markupsafe import Markup

SCRIPTS = ("decoder.js", "walk.js", "timelapse.js")  # of the page, beside what draws its plots
NOTES_SHOWN = 12  # below a table; the others are folded
OVER_SEEDS = "Lines are means over seeds, bands reach from the lowest to the highest seed."


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
    template = _file("report.html.j2")
    plots: dict[str, Any] = {}
    styles = of_methods(sorted({label for part in study.sections for label in part.labels}))
    losses = _loss_styles(study.sections)
    sections = [_section(part, styles, losses, plots) for part in study.sections]
    rows = [row for part in study.sections for row in part.rows]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["words"] = _words
    return environment.from_string(template).render(
        study=study,
        sections=sections,
        styles=styles,
        plots=Markup(_json(plots)),
        walks=Markup(_json([part.walk.decoders if part.walk else [] for part in study.sections])),
        scripts=Markup("".join(_file(name) for name in SCRIPTS)),
        library=Markup(get_plotlyjs()),
        palette=PALETTE,
        band=BAND,
        no_curves=NO_CURVES,
        notes_shown=NOTES_SHOWN,
        over_seeds=OVER_SEEDS,
        version=__version__,
        date=time.strftime("%Y-%m-%d"),
        runs=sum(len(row.runs) + len(row.unfinished) for row in rows),
        command=f"genbench {shlex.join(sys.argv[1:])}",
    )


def _file(name: str) -> str:
    return files("genbench.comparison.page").joinpath(name).read_text(encoding="utf-8")


def _json(content: Any) -> str:
    """JSON in which no tag can end the script."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _loss_styles(sections: Sequence[Section]) -> dict[str, dict[str, Style]]:
    """Styles of the losses by family (the title of a panel), the same for all methods."""
    names: dict[str, set[str]] = {}
    for panel in (p for part in sections for panels in part.losses.values() for p in panels):
        names.setdefault(panel.title, set()).update(curve.label for curve in panel.curves)
    return {family: of_losses(sorted(own)) for family, own in names.items()}


def _words(text: str) -> "Markup":
    """A sentence as HTML: escaped, and what stands in backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _section(
    part: Section,
    styles: Mapping[str, Style],
    losses: Mapping[str, Mapping[str, Style]],
    plots: dict[str, Any],
) -> dict[str, Any]:
    """A part with its figures; their data is added to `plots`."""
    by_method = {label: panels for label, panels in part.losses.items() if panels}
    return {
        "part": part,
        "explained": _explained(part, styles, plots),
        "tradeoffs": _tradeoffs(part, styles, plots),
        "scores": _figures(part.scores, lambda _: styles, plots),
        "losses": {
            label: _figures(panels, lambda panel: losses[panel.title], plots)
            for label, panels in by_method.items()
        },
    }


def _explained(
    part: Section, styles: Mapping[str, Style], plots: dict[str, Any]
) -> dict[str, Any] | None:
    """The bars of the gaps, and the rate of each latent; their data is added to `plots`."""
    if part.explanation is None:
        return None
    name = f"plot{len(plots)}"
    plots[name], key = gap_bars(part.explanation.gaps)
    rates = [part.explanation.rates] if part.explanation.rates else []
    bars = {"id": name, "key": key, "gaps": (), "rows": len(part.explanation.gaps)}
    return {"bars": bars, "rates": _figures(rates, lambda _: styles, plots)}


def _tradeoffs(
    part: Section, styles: Mapping[str, Style], plots: dict[str, Any]
) -> list[dict[str, Any]]:
    """Figures of two scores against each other; their data is added to `plots`."""
    figures = []
    for one in part.tradeoffs:
        name = f"plot{len(plots)}"
        plots[name], key = scatter(one, styles)
        words = in_words(one)
        figures.append({"id": name, "title": one.title, "key": key, "gaps": (), "words": words})
    return figures


def _figures(
    panels: Iterable[Panel],
    styles_of: Callable[[Panel], Mapping[str, Style]],
    plots: dict[str, Any],
) -> list[dict[str, Any]]:
    """What a figure needs beside its plot: the plot's name, its title, the legend."""
    figures = []
    for panel in panels:
        name, styles = f"plot{len(plots)}", styles_of(panel)
        plots[name] = plot(panel, styles)
        key = {curve.label: styles[curve.label] for curve in panel.curves}
        figures.append(
            {"id": name, "title": panel.title, "key": key, "band": panel.band, "gaps": panel.gaps}
        )
    return figures

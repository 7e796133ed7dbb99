"""Panels of curves as a PNG, for pages without a script. matplotlib is imported when it is used."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.comparison.page.curves import Curve, Panel
from genbench.comparison.page.plots import BAND, is_wide
from genbench.comparison.page.styles import PALETTE, Style

MOST_COLUMNS = 3
WIDTH, HEIGHT = 4.6, 3.2  # of a panel, inches
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
}
INKS = {"ink": "#1c2024", "faint": "#7f8893"}  # as on the light page


def draw_panels(panels: Sequence[Panel], styles: Mapping[str, Style], path: Path) -> Path:
    """Draw a panel each, in rows of three, their curves in the styles of `styles`; returns the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(MOST_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(rows, columns, place), panel, styles)
    handles = {
        label: line
        for axes in figure.axes
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(4, len(handles)) or 1,
        fontsize=8,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw(axes: Any, panel: Panel, styles: Mapping[str, Style]) -> None:
    from matplotlib.ticker import EngFormatter

    for curve in panel.curves:
        _trace(axes, curve, styles[curve.label])
    values = [v for c in panel.curves for v in (*c.middle, *c.low, *c.high) if math.isfinite(v)]
    if is_wide(values):
        axes.set_yscale("log")
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.across, fontsize=8)
    axes.set_ylabel(panel.unit, fontsize=8)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def _trace(axes: Any, curve: Curve, style: Style) -> None:
    colour = INKS.get(style.colour) or PALETTE[int(style.colour.removeprefix("c"))][0]
    dash = [float(part.removesuffix("px")) / 2 for part in style.dash.split(",") if part]
    axes.plot(
        curve.images,
        curve.middle,
        label=curve.label,
        color=colour,
        linestyle=(0, tuple(dash)) if dash else "-",
        linewidth=1.4,
        marker=MARKERS[style.marker] if style.marker and len(curve.images) <= 20 else None,
        markersize=4,
    )
    if curve.low:
        axes.fill_between(curve.images, curve.low, curve.high, color=colour, alpha=BAND, lw=0)

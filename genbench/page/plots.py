"""Plots as data for plotly.js: colours by method, bands over seeds. Imports nothing heavy.

Colours are given by the page (one for light, one for dark), so a trace only names its place in the
palette.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench.page.curves import Curve, Panel

# Okabe and Ito 2008: told apart by the colour-blind; (light, dark) backgrounds
PALETTE = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8a3d"),
    ("#009e73", "#2fd1a0"),
    ("#b0508f", "#e39ac8"),
    ("#8a6d00", "#f0c541"),
    ("#555f6b", "#aab4c0"),
)
BAND = 0.16  # opacity


def colours(labels: Sequence[str]) -> dict[str, int]:
    """Give every label its place in the palette, the same one everywhere on the page."""
    return {label: place % len(PALETTE) for place, label in enumerate(labels)}


def plot(panel: Panel, places: Mapping[str, int]) -> dict[str, Any]:
    """Traces and layout of a panel; `places` are those of its curves' labels in the palette."""
    traces = [trace for curve in panel.curves for trace in _traces(curve, places[curve.label])]
    title = f"{panel.unit or panel.title.split()[0]}{_way(panel.higher_is_better)}"
    values = [v for curve in panel.curves for v in (*curve.middle, *curve.low)]
    layout = {
        "xaxis": {"title": {"text": "images shown to the decoder"}, "tickformat": "~s"},
        "yaxis": {"title": {"text": title}, "type": "log" if _wide(values) else "linear"},
    }
    return {"data": traces, "layout": layout}


def _way(higher_is_better: bool | None) -> str:
    return {True: " (higher is better)", False: " (lower is better)", None: ""}[higher_is_better]


def _wide(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows more: all above 0 and more than 30 times apart."""
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def _traces(curve: Curve, place: int) -> list[dict[str, Any]]:
    line = {
        "x": list(curve.images),
        "y": list(curve.middle),
        "name": curve.label,
        "mode": "lines+markers" if len(curve.images) <= 20 else "lines",
        "line": {"width": 2.2},
        "marker": {"size": 5},
        "legendgroup": curve.label,
        "meta": {"place": place},
        "hovertemplate": "%{y:.4g} at %{x:,} images<extra>%{fullData.name}</extra>",
    }
    if not curve.low:
        return [line]
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    low = {"x": line["x"], "y": list(curve.low), "legendgroup": curve.label, **edge}
    high = {"x": line["x"], "y": list(curve.high), "legendgroup": curve.label, **edge}
    low["meta"] = {"place": place, "edge": True}
    high |= {"fill": "tonexty", "meta": {"place": place, "band": True}}
    return [low, high, line]

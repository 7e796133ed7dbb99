"""Two scores against each other as data for plotly.js: a point per method. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from genbench.comparison.page.plots import logarithmic_if_wide
from genbench.comparison.page.styles import Style
from genbench.comparison.tradeoffs import Axis, Point, Tradeoff, lines

FRONT = "Pareto front"
FRONT_STYLE = Style("ink", "2px,2px")


def scatter(
    tradeoff: Tradeoff, styles: Mapping[str, Style]
) -> tuple[dict[str, Any], dict[str, Style]]:
    """Traces and layout, and the legend. A grey line joins settings, a dotted one the front."""
    grey = Style("faint", "")
    traces = [
        _line([p.x for p in own], [p.y for p in own], name, grey, "solid")
        for name, own in lines(tradeoff.points).items()
    ]
    front = [tradeoff.points[place] for place in tradeoff.front]
    traces.append(
        _line([p.x for p in front], [p.y for p in front], FRONT, FRONT_STYLE, dash="2px,2px")
    )
    traces += [_point(point, styles[point.label]) for point in tradeoff.points]
    key = {point.label: styles[point.label] for point in tradeoff.points}
    layout = {
        "xaxis": _axis(tradeoff.x, [v for p in tradeoff.points for v in p.x_range]),
        "yaxis": _axis(tradeoff.y, [v for p in tradeoff.points for v in p.y_range]),
    }
    return {"data": traces, "layout": layout}, {**key, FRONT: FRONT_STYLE}


def _axis(axis: Axis, values: list[float]) -> dict[str, Any]:
    title = {
        "text": f"{axis.title} {'↑' if axis.higher_is_better else '↓'}"
    }  # a word would not fit
    return {"title": title, **logarithmic_if_wide(values)}


def _line(xs: list[float], ys: list[float], name: str, style: Style, dash: str) -> dict[str, Any]:
    return {
        "x": xs,
        "y": ys,
        "name": name,
        "mode": "lines",
        "hoverinfo": "skip",
        "line": {"width": 1.4, "dash": dash},
        "meta": {"colour": style.colour, "label": name},
    }


def _point(point: Point, style: Style) -> dict[str, Any]:
    return {
        "x": [point.x],
        "y": [point.y],
        "name": point.label,
        "mode": "markers",
        "marker": {"size": 9, "symbol": style.marker or "circle"},
        "error_x": _range(point.x, point.x_range),
        "error_y": _range(point.y, point.y_range),
        "meta": {"colour": style.colour, "label": point.label},
        "hovertemplate": "%{x:.4g}, %{y:.4g}<extra>%{fullData.name}</extra>",
    }


def _range(middle: float, ends: tuple[float, float]) -> dict[str, Any]:
    """From the lowest to the highest seed."""
    return {
        "type": "data",
        "array": [ends[1] - middle],
        "arrayminus": [middle - ends[0]],
        "thickness": 1,
        "width": 3,
    }

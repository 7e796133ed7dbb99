"""Plots as data for plotly.js: curves over images, bands over seeds. Imports nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.comparison.page.curves import IMAGES, Curve, Panel
from genbench.comparison.page.styles import Style
from genbench.comparison.tables import number

BAND = 0.16  # opacity


# what is written at a logarithmic axis that is so many decades long
TICKS = ((2.0, (1, 2, 5)), (4.0, (1, 3)), (math.inf, (1,)))
MOST_POWERS = 6  # between the numbers at the ends of an axis


def plot(panel: Panel, styles: Mapping[str, Style]) -> dict[str, Any]:
    """Traces and layout of a panel; `styles` are those of its curves' labels."""
    where = "images" if panel.across == IMAGES else panel.across
    traces = [
        trace for curve in panel.curves for trace in _traces(curve, styles[curve.label], where)
    ]
    title = f"{panel.unit or panel.title.split()[0]}{_way(panel.higher_is_better)}"
    values = [v for c in panel.curves for v in (*c.middle, *c.low, *c.high) if math.isfinite(v)]
    layout = {
        "xaxis": {"title": {"text": panel.across}, "tickformat": "~s"},
        "yaxis": {"title": {"text": title}, **(_logarithmic(values) if is_wide(values) else {})},
    }
    return {"data": traces, "layout": layout}


def _way(higher_is_better: bool | None) -> str:
    return {True: " (higher is better)", False: " (lower is better)", None: ""}[higher_is_better]


def logarithmic_if_wide(values: Sequence[float]) -> dict[str, Any]:
    """What makes an axis of these values logarithmic, where that shows more; else nothing."""
    return _logarithmic(values) if is_wide(values) else {}


def is_wide(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows more: all above 0 and more than 30 times apart."""
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def _logarithmic(values: Sequence[float]) -> dict[str, Any]:
    """An axis whose ticks are written out; left to plotly they are 2, 5, 10, 2, 5, 100.

    It cannot be zoomed: there would be no ticks in between.
    """
    places = log_ticks(min(values), max(values))
    written = {"tickvals": places, "ticktext": [number(place) for place in places]}
    return {"type": "log", "tickmode": "array", "fixedrange": True, **written}


def log_ticks(low: float, high: float) -> list[float]:
    """Where numbers are written at a logarithmic axis from `low` > 0 to `high`.

    At powers of ten and, on a short axis, between them; three at least if high is 30 times low.
    """
    length = math.log10(high / low)
    steps = next(steps for decades, steps in TICKS if length <= decades)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = range(first, last + 1, -(-(last - first) // MOST_POWERS))
    ticks = (float(f"{step}e{power}") for power in powers for step in steps)
    return [tick for tick in ticks if low <= tick <= high]


def _traces(curve: Curve, style: Style, where: str) -> list[dict[str, Any]]:
    few = len(curve.images) <= 20 if style.marker else len(curve.images) == 1
    own = {"x": list(curve.images), "meta": {"colour": style.colour, "label": curve.label}}
    line = own | {
        "y": _drawn(curve.middle),
        "name": curve.label,
        "mode": "lines+markers" if few else "lines",
        "line": {"width": 2.2 if style.marker else 1.6, "dash": style.dash or "solid"},
        "marker": {"size": 7 if style.dash else 5, "symbol": style.marker or "circle"},
        "hovertemplate": f"%{{y:.4g}} at %{{x:,}} {where}<extra>%{{fullData.name}}</extra>",
    }
    if not curve.low:
        return [line]
    edge = own | {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    low = edge | {"y": _drawn(curve.low)}
    high = edge | {"y": _drawn(curve.high), "fill": "tonexty"}
    return [low, high, line]


def _drawn(values: Sequence[float]) -> list[float | None]:
    """None, a gap, where a value is NaN or infinite: JSON has neither."""
    return [value if math.isfinite(value) else None for value in values]

"""Styles of curves: methods differ by colour, losses by grey tone and dash. Imports nothing.

The page defines the colours (one for light, one for dark); a style names its CSS variable.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# (on light, on dark). The first six after Okabe and Ito 2008: told apart by the colour-blind. The rest
# is told apart by most readers, with the help of a dash and another marker; so are repeated colours.
PALETTE = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8a3d"),
    ("#009e73", "#2fd1a0"),
    ("#a8327f", "#ffb3e0"),
    ("#6b5600", "#f0c541"),
    ("#4e1ca8", "#9172fe"),
    ("#6b3442", "#c98a94"),
    ("#c92a5b", "#f7357c"),
    ("#306324", "#6fa862"),
    ("#4d8cf5", "#5880c2"),
    ("#004f6a", "#97d8f8"),
    ("#1f8a8a", "#07a4a4"),
)
ALIKE = 6  # curves that may share a dash and a marker
DASHES = ("", "6px,3px", "2px,2px", "8px,3px,2px,3px", "12px,4px")  # of lines, as SVG writes them


# markers: plotly's names, and how the key beside a name draws them
MARKERS = {
    "circle": "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",
    "square": "M-2.8,-2.8h5.6v5.6h-5.6z",
    "diamond": "M0,-4L4,0L0,4L-4,0z",
    "triangle-up": "M0,-3.8L3.8,3h-7.6z",
    "triangle-down": "M0,3.8L3.8,-3h-7.6z",
}
INKS = ("ink", "faint")  # of losses; a method is never grey


@dataclass(frozen=True)
class Style:
    """How a curve is drawn: the CSS variable of its colour, its dash, its marker if it has one."""

    colour: str
    dash: str
    marker: str | None = None

    @property
    def outline(self) -> str:
        """Its marker as the path of an SVG, around (0, 0)."""
        return MARKERS[self.marker] if self.marker else ""


def of_methods(labels: Iterable[str]) -> dict[str, Style]:
    """Give every method a style of its own, the same one everywhere on the page."""
    return {label: _method(place) for place, label in enumerate(dict.fromkeys(labels))}


def _method(place: int) -> Style:
    turn = place // ALIKE
    markers = list(MARKERS)
    return Style(
        f"c{place % len(PALETTE)}", DASHES[turn % len(DASHES)], markers[turn % len(markers)]
    )


def of_losses(names: Sequence[str]) -> dict[str, Style]:
    """Give every loss of a family a style that no method has."""
    places = enumerate(dict.fromkeys(names))
    return {
        name: Style(INKS[place % len(INKS)], DASHES[place // len(INKS) % len(DASHES)])
        for place, name in places
    }

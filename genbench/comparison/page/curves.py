"""Curves of a study over images: mean over seeds with a band. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from genbench.comparison.significance import SEEDS_FOR_SPREAD
from genbench.runs.history import PSNR, VALIDATION
from genbench.runs.score import higher_is_better

Points = Sequence[tuple[float, float]]  # (images, value)
SCORES = ("selection/", VALIDATION)  # columns of history.csv measured on the validation split
DRAWN = (
    "psnr",
    "fd",
    "kid",
    "is",
    "precision",
    "recall",
    "coverage",
)  # of them these, in this order
UNITS = {"psnr": "dB"}
TITLES = {word: word.capitalize() for word in ("precision", "recall", "coverage")}
MOST_POINTS = 200  # of a curve on a page
IMAGES = "images (steps x batch)"


@dataclass(frozen=True)
class Curve:
    """Mean over the seeds of a row at the images that all of them logged, lowest and highest beside.

    `low` and `high` are empty below three seeds.
    """

    label: str
    images: Sequence[float]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


@dataclass(frozen=True)
class Panel:
    """Curves on one axis: a score of all rows, or one row's losses; `gaps` names missing seeds.

    `across` is what the places of the curves are.
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    higher_is_better: bool | None = None
    gaps: Sequence[str] = ()
    across: str = IMAGES

    @property
    def band(self) -> bool:
        """Whether any of its curves has a band over seeds."""
        return any(curve.low for curve in self.curves)


def over_seeds(label: str, runs: Sequence[Points]) -> Curve | None:
    """Put the curves of several seeds into one; None if they share no point."""
    found = [dict(points) for points in runs if points]
    if not found:
        return None
    shared = sorted(set.intersection(*(set(points) for points in found)))
    shared = _thinned(shared)
    if not shared:
        return None
    values = [[points[place] for points in found] for place in shared]
    spread = len(found) >= SEEDS_FOR_SPREAD
    return Curve(
        label,
        shared,
        [mean(own) for own in values],
        [min(own) for own in values] if spread else [],
        [max(own) for own in values] if spread else [],
        len(found),
    )


def _thinned(places: Sequence[float]) -> list[float]:
    step = -(-len(places) // MOST_POINTS) or 1
    kept = list(places[::step])
    return kept if not places or kept[-1] == places[-1] else [*kept, places[-1]]


def score_panels(histories: Mapping[str, Sequence[Mapping[str, Points]]]) -> list[Panel]:
    """One panel per score that was taken over training, with a curve for each row that has it."""
    names = sorted(
        _columns(histories, lambda name: name.startswith(SCORES) and _quantity(name) in DRAWN),
        key=lambda name: DRAWN.index(_quantity(name)),
    )
    panels = []
    for name in names:
        curves = {
            row: over_seeds(row, [h.get(name, ()) for h in own]) for row, own in histories.items()
        }
        quantity = _quantity(name)
        direction = higher_is_better(quantity)
        drawn = [curve for curve in curves.values() if curve]
        said = {row: _gap(name, histories[row], curve) for row, curve in curves.items()}
        gaps = [f"{row}: {words}" for row, words in said.items() if words]
        of_samples = name.startswith(VALIDATION) and name != PSNR
        named = "by the protocol of" if of_samples else "on"
        title = f"{TITLES.get(quantity, quantity.upper())} {named} the validation split"
        panels.append(Panel(title, UNITS.get(quantity, ""), drawn, direction, gaps))
    return panels


def _quantity(name: str) -> str:
    return name.partition("/")[2]


def _gap(name: str, histories: Sequence[Mapping[str, Points]], curve: Curve | None) -> str:
    """Say which seeds of a row are missing from its curve, and why; empty if none is."""
    count = len(histories)
    option = "trainer.score_every" if name.startswith(VALIDATION) else name.replace("/", "=")
    lacking = sum(name not in own for own in histories)
    if lacking and name == PSNR:  # without an encoder, or of a version that did not log it
        return f"{lacking} of {count} seeds have none"
    if lacking:
        return f"{lacking} of {count} seeds, trained without {option}"
    return "" if curve else f"{count} of {count} seeds, which share no point"


def loss_panels(row: str, histories: Sequence[Mapping[str, Points]]) -> list[Panel]:
    """What one method logged in training, a panel per family: loss, logit, train, lr."""
    names = _columns({row: histories}, lambda n: "/" in n and not n.startswith(SCORES))
    families: dict[str, list[Curve]] = {}
    for name in names:
        family, _, rest = name.partition("/")
        curve = over_seeds(rest, [history.get(name, ()) for history in histories])
        if curve:
            families.setdefault(family, []).append(curve)
    units = {"lr": "learning rate", "logit": "mean logit"}
    return [
        Panel(family, units.get(family, "mean per image"), curves)
        for family, curves in families.items()
    ]


def _columns(
    histories: Mapping[str, Sequence[Mapping[str, Points]]], wanted: Callable[[str], bool]
) -> list[str]:
    every = (name for own in histories.values() for history in own for name in history)
    return sorted({name for name in every if wanted(name)})

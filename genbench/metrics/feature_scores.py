"""Scores of feature metrics: their names and cards."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from genbench.data.contract import Split
from genbench.metrics.contract import Estimate, Extractor, FeatureMetric, Features, Quantity, Role
from genbench.metrics.per_image import Kept
from genbench.metrics.stopwatch import Stopwatch
from genbench.runs.score import Score

# First hex digits of the sha256 of the only weights whose distances have the papers' names
INCEPTION = "6726825d"

# How images are resized for those weights, and what this adds to the papers' names
RESERVED = {"tf1-bilinear": "", "pil-bicubic": "_clean"}

PAPER_NAMES = {"fd": "fid", "rfd": "rfid", "kid": "kid", "is": "is"}

PAPER_SAMPLES = (
    10_000  # generated images, or reconstructions, from which a score may have a paper's name
)

NONFINITE = "nonfinite"  # status of a score that has no value because something is NaN or infinite


def score_name(quantity: str, extractor: Extractor, num_samples: int) -> str:
    """Name a quantity by its extractor: `fd_lenet-digits-v1`.

    The papers' names are reserved for the papers' features and numbers of images: `fid`, `rfid`, `kid`
    and `is` for 10 000 samples or more and the 2015 Inception with its own resizing, `fid_clean` and so
    on for the same with Pillow's.
    """
    card = extractor.card
    family, _, rest = quantity.partition("_")
    suffix = RESERVED.get(str(card.get("resize")))
    papers = str(card.get("sha256", "")).startswith(INCEPTION) and suffix is not None
    if papers and family in PAPER_NAMES and num_samples >= PAPER_SAMPLES:
        return f"{PAPER_NAMES[family]}{suffix}{'_' if rest else ''}{rest}"
    return f"{quantity}_{extractor.name}"


def feature_scores(
    metrics: Mapping[str, FeatureMetric],
    extractor: Extractor,
    sets: Mapping[Role, Features],
    cards: Mapping[Role, Mapping[str, Any]],
    floors: Mapping[str, Estimate],
    watch: Stopwatch,
    kept: Kept | None = None,
) -> list[Score]:
    """Scores of all quantities; those whose sets are not there, or not computed, have no value.

    `floors` are those of `floors_of`, which do not depend on the model. `watch` counts the seconds of
    each metric under its name. `kept` gets what is known of every image.
    """
    scores = []
    num_samples = int(cards["fake"]["n"])
    for title, metric in _usable(metrics, sets).items():
        known = any(set(q.sets) <= set(sets) for q in metric.quantities if not q.floor)
        with watch.timing(title):
            estimates = {**floors, **(metric(sets) if known else {})}
        for quantity in metric.quantities:
            estimator = {"name": type(metric).__name__, **metric.estimator_of(quantity.name)}
            card: dict[str, Any] = {
                "quantity": quantity.name,
                "estimator": estimator | ({"n": num_samples} if quantity.floor else {}),
                "extractor": dict(extractor.card),
                **{role: dict(cards[role]) for role in quantity.sets},
            }
            there = set(quantity.sets) <= set(sets)
            missing = Estimate(None, status="not computed" if there else NONFINITE)
            name = score_name(quantity.name, extractor, num_samples)
            estimate = estimates.get(quantity.name, missing)
            scores.append(score_of(name, quantity, estimate, card))
            if kept is not None and estimate.each is not None:
                kept.keep(scores[-1], estimate.each, what=estimate.what)
    return scores


def floors_of(
    metrics: Mapping[str, FeatureMetric],
    sets: Mapping[Role, Features],
    num_samples: int,
    watch: Stopwatch,
) -> dict[str, Estimate]:
    """What as many new real images would get, by quantity, from the real and the held-out images."""
    found: dict[str, Estimate] = {}
    for title, metric in _usable(metrics, sets).items():
        with watch.timing(title):
            found |= metric.floors(sets, num_samples)
    return found


def _usable(
    metrics: Mapping[str, FeatureMetric], sets: Mapping[Role, Features]
) -> dict[str, FeatureMetric]:
    labelled = sets["real"].logits.shape[1] > 0
    return {name: one for name, one in metrics.items() if labelled or not one.needs_labels}


def score_of(name: str, quantity: Quantity, estimate: Estimate, card: Mapping[str, Any]) -> Score:
    """A score of an estimate; without a value if there is none, or NaN, or infinity."""
    value, status = estimate.value, estimate.status
    if value is not None and not math.isfinite(value):
        value, status = None, NONFINITE
    better = quantity.higher_is_better
    if value is None:
        return Score(name, None, quantity.unit, better, card, status=status)
    return Score(
        name,
        value,
        quantity.unit,
        better,
        card,
        low=estimate.low,
        high=estimate.high,
        status=status,
        interval=estimate.interval,
    )


def of_split(score: Score, split: Split) -> Score:
    """Mark a score of an evaluation on validation images, in its name and its card.

    So even one that sees no held-out image has another protocol than the one that is reported.
    """
    if split == "test":
        return score
    return replace(score, name=f"{score.name}_{split}", card={**score.card, "split": split})

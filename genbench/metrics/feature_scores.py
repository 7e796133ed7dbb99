"""Scores of feature metrics: their names and cards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from genbench.data.contract import Split
from genbench.metrics.contract import Estimate, Extractor, FeatureMetric, Features, Quantity, Role
from genbench.runs.score import Score

# First hex digits of the sha256 of the only weights whose distances have the papers' names
INCEPTION = "6726825d"

# How images are resized for those weights, and what this adds to the papers' names
RESERVED = {"tf1-bilinear": "", "pil-bicubic": "_clean"}

PAPER_NAMES = {"fd": "fid", "kid": "kid", "is": "is"}


def score_name(quantity: str, extractor: Extractor) -> str:
    """Name a quantity by its extractor: `fd_lenet-digits-v1`.

    The papers' names are reserved for the papers' features: `fid`, `kid` and `is` for the 2015
    Inception with its own resizing, `fid_clean` and so on for the same with Pillow's.
    """
    card = extractor.card
    family, _, rest = quantity.partition("_")
    suffix = RESERVED.get(str(card.get("resize")))
    papers = str(card.get("sha256", "")).startswith(INCEPTION) and suffix is not None
    if papers and family in PAPER_NAMES:
        return f"{PAPER_NAMES[family]}{suffix}{'_' if rest else ''}{rest}"
    return f"{quantity}_{extractor.name}"


def feature_scores(
    metrics: Sequence[FeatureMetric],
    extractor: Extractor,
    sets: Mapping[Role, Features],
    cards: Mapping[Role, Mapping[str, Any]],
) -> list[Score]:
    """Scores of all quantities; those whose sets are not there have no value."""
    scores = []
    labelled = sets["real"].logits.shape[1] > 0
    for metric in metrics:
        if metric.needs_labels and not labelled:
            continue
        known = any(set(quantity.sets) <= set(sets) for quantity in metric.quantities)
        estimates: Mapping[str, Estimate] = metric(sets) if known else {}
        for quantity in metric.quantities:
            card: dict[str, Any] = {
                "quantity": quantity.name,
                "estimator": {"name": type(metric).__name__, **metric.estimator},
                "extractor": dict(extractor.card),
                **{role: dict(cards[role]) for role in quantity.sets},
            }
            name = score_name(quantity.name, extractor)
            scores.append(_score(name, quantity, estimates.get(quantity.name), card))
    return scores


def _score(
    name: str, quantity: Quantity, estimate: Estimate | None, card: Mapping[str, Any]
) -> Score:
    """A score of an estimate; without a value if there is none, or NaN, or infinity."""
    if estimate is None or not math.isfinite(estimate.value):
        return Score(name, None, quantity.unit, quantity.higher_is_better, card, status="nonfinite")
    return Score(
        name,
        estimate.value,
        quantity.unit,
        quantity.higher_is_better,
        card,
        low=estimate.low,
        high=estimate.high,
    )


def of_split(score: Score, split: Split) -> Score:
    """Mark a score of an evaluation on validation images, in its name and its card.

    So even one that sees no held-out image has another protocol than the one that is reported.
    """
    if split == "test":
        return score
    return replace(score, name=f"{score.name}_{split}", card={**score.card, "split": split})

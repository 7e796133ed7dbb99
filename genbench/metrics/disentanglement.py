"""Whether single latents of an encoder stand for single factors of a world: MIG and DCI.

MIG, the mutual information gap: Chen, Li, Grosse, Duvenaud 2018, https://arxiv.org/abs/1802.04942, equation
6. For each factor v, (I(z_1; v) - I(z_2; v)) / H(v), where z_1 and z_2 are the latents that know most of
it; the mean over factors. Latents are means of the posterior in 20 bins of equal width, as Locatello et
al. 2019 have them, https://arxiv.org/abs/1811.12359.

DCI, Eastwood and Williams 2018, https://openreview.net/forum?id=By-7dz-AZ: how important each latent is to a
random forest that predicts a factor. Disentanglement: whether a latent is important to one factor alone;
completeness: whether one latent alone is important to a factor; informativeness: how often the forest
is right on images that it was not fitted to.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen, subset_card
from genbench.errors import UserMistake
from genbench.metrics.contract import Estimate, Quantity
from genbench.metrics.truth import TruthMetric, TruthRequest, truth_score
from genbench.models.contract import GenerativeModel, HasPosterior
from genbench.models.reconstruction import encoded_norm_card, reconstructing
from genbench.ranges import whole
from genbench.runs.score import Score

BINS = 20

TREES, DEPTH, LEAF = 30, 12, 2  # of a forest: its trees, their depth, images in a leaf

FITTED = 2 / 3  # share of the images that forests are fitted to

SEED = 0

Codes = NDArray[np.float64]

Labels = NDArray[np.int64]

ESTIMATORS: dict[str, dict[str, Any]] = {
    "mig": {"name": "MIG", "bins": BINS, "version": 1},
    "dci": {
        "name": "DCI",
        "forest": {"trees": TREES, "depth": DEPTH, "leaf": LEAF, "seed": SEED},
        "fitted": FITTED,
        "version": 1,
    },
}


class DCI(NamedTuple):
    """Three scores from 0 to 1, of which more is better."""

    disentanglement: float
    completeness: float
    informativeness: float


def mutual_information(one: Labels, other: Labels) -> float:
    """Of two lists of numbers (N,) from 0 on, in nats, by their frequencies."""
    counts = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(counts, (one, other), 1)
    p = counts / counts.sum()
    product = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    there = p > 0
    return float((p[there] * np.log(p[there] / product[there])).sum())


def binned(codes: Codes) -> Labels:
    """Each column of codes (N, D) in BINS bins of equal width over its range: (N, D)."""
    low, high = codes.min(0), codes.max(0)
    share = (codes - low) / np.where(high > low, high - low, 1)
    numbers: Labels = np.minimum((share * BINS).astype(np.int64), BINS - 1)
    return numbers


def mig(codes: Codes, labels: Labels) -> float:
    """The mutual information gap of codes (N, D >= 2) and factors (N, F): 0 to 1."""
    latents, gaps = binned(codes), []
    for factor in labels.T:
        information = sorted(mutual_information(latent, factor) for latent in latents.T)
        gaps.append((information[-1] - information[-2]) / mutual_information(factor, factor))
    return float(np.mean(gaps))


def dci(codes: Codes, labels: Labels) -> DCI:
    """DCI of codes (N, D >= 2) and factors (N, F >= 2), by a random forest for each factor."""
    forests = importlib.import_module("sklearn.ensemble")  # imported late: takes a second
    order = np.random.RandomState(SEED).permutation(len(codes))
    fitted, tested = np.split(order, [round(FITTED * len(codes))])
    importances, right = [], []
    for factor in labels.T:
        forest = forests.RandomForestClassifier(
            TREES, max_depth=DEPTH, min_samples_leaf=LEAF, max_features=None, random_state=SEED
        ).fit(codes[fitted], factor[fitted])
        importances.append(forest.feature_importances_)
        right.append(forest.score(codes[tested], factor[tested]))
    return DCI(*of_importance(np.stack(importances, 1)), float(np.mean(right)))


def of_importance(importance: Codes) -> tuple[float, float]:
    """Disentanglement and completeness of the importance (D, F) of each latent to each factor.

    1 - H / log F of each latent's row, weighted by its sum; 1 - H / log D of each factor's column,
    weighted likewise.
    """
    rows, columns = importance.sum(1), importance.sum(0)
    total = max(importance.sum(), np.finfo(float).tiny)
    purity = [1 - _entropy(part) / np.log(importance.shape[1]) for part in importance]
    alone = [1 - _entropy(part) / np.log(importance.shape[0]) for part in importance.T]
    return float(rows @ purity / total), float(columns @ alone / total)


def _entropy(weights: Codes) -> float:
    p = weights[weights > 0] / max(weights.sum(), np.finfo(float).tiny)
    return float(-(p * np.log(p)).sum())


class Disentanglement(TruthMetric):
    """`mig` and `dci_disentanglement`, `dci_completeness`, `dci_informativeness` of an encoder.

    Of the posterior's means of `max_images` held-out images, by the fixed permutation. Not computed
    unless `enabled`; a model without an encoder has none.
    """

    of_samples = False

    def __init__(self, *, enabled: bool = False, max_images: int | None = 5000) -> None:
        if max_images is not None:
            whole("evaluation.truth.disentanglement.max_images", max_images, 100)
        self.enabled, self.max_images = enabled, max_images

    def prepare(self, data: ImageData) -> None:
        """Check that there are two factors or more. Raises UserMistake."""
        factors = data.factors("train") if self.enabled else None
        if self.enabled and (factors is None or len(factors.names) < 2):
            raise UserMistake(
                f"evaluation.truth.disentanglement needs two known factors, and {data.name} has "
                f"{0 if factors is None else 1}: set it to null, or choose dataset=shapes"
            )

    def __call__(self, request: TruthRequest) -> list[Score]:
        """Encode held-out images and score the codes."""
        model, data, split = request.model, request.data, request.split
        if not self.enabled or not isinstance(model, HasPosterior):
            return []
        count = self.max_images or len(data.pixels(split))
        which = chosen(data, split, count)
        factors = data.factors(split)
        assert factors is not None  # as `prepare` found
        codes = encoded(model, request, which)
        values: Mapping[str, float] = {}
        if np.isfinite(codes).all() and codes.shape[1] > 1:
            labels = factors.labels[which]
            with request.store.watch.timing("mig"):
                values = {"mig": mig(codes, labels)}
            with request.store.watch.timing("dci"):
                found = dci(codes, labels)._asdict()
                values |= {f"dci_{name}": value for name, value in found.items()}
        shared = {
            "heldout": subset_card(data, split, count),
            "codes": {
                "latents": "posterior mean",
                **encoded_norm_card(model, data, "reconstructions"),
            },
        }
        missing = Estimate(None, status="nonfinite" if codes.shape[1] > 1 else "one latent")
        scores = []
        for name in ("mig", *(f"dci_{field}" for field in DCI._fields)):
            estimate = Estimate(values[name]) if values else missing
            card = {**shared, "estimator": ESTIMATORS[name.split("_")[0]]}
            scores.append(truth_score(Quantity(name, ("heldout",), True), "", estimate, card))
        return scores


def encoded(model: GenerativeModel, request: TruthRequest, which: Labels) -> Codes:
    """Means of the posterior for held-out images of these numbers: (N, D)."""
    assert isinstance(model, HasPosterior)
    data, store, found = request.data, request.store, []
    with reconstructing(model, data):
        for start in range(0, len(which), store.batch_size):
            pixels = data.pixels(request.split)[which[start : start + store.batch_size]]
            images = data.to_images(torch.from_numpy(pixels).to(store.device))
            found.append(model.posterior(images)[0].double().cpu().numpy())
    return np.concatenate(found)

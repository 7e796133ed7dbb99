"""The health of an encoder's latents: what they carry, and whether the decoder knows what lies between them.

Of the posteriors of held-out images: `active_units` (Burda et al. 2016), the ELBO's surgery
`posterior_kl` = `mutual_information` + `marginal_kl` (Hoffman and Johnson 2016), and `fd_interpolated`,
after the interpolated FID of Xu et al. 2026, https://arxiv.org/abs/2603.05630: the distance of decoded
midpoints of nearest codes to the images. None has a direction: they explain a score and rank no model.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.subsets import chosen, subset_of
from genbench.metrics.contract import Estimate, Quantity
from genbench.metrics.feature_scores import NONFINITE, of_split, score_name, score_of
from genbench.metrics.likelihood import OVER_IMAGES
from genbench.metrics.reconstruction import EncoderRequest, feature_distance
from genbench.models.condition import labels_of
from genbench.models.contract import DrawsPosterior, GenerativeModel, HasPosterior, Reconstructs
from genbench.models.reconstruction import encoded_norm_card, reconstructing
from genbench.models.surgery import (
    ACTIVE,
    active_units,
    midpoints,
    rate_by_unit,
    surgery,
    variances_of_means,
)
from genbench.ranges import whole
from genbench.runs.files import write_json
from genbench.runs.latents import BY_UNIT, latents_file
from genbench.runs.score import Score

log = logging.getLogger("genbench")

UNITS = Quantity("active_units", ("heldout",), None, "units")
RATE = Quantity("posterior_kl", ("heldout",), None, "nats")
INFORMATION = Quantity("mutual_information", ("heldout",), None, "nats")
MARGINAL = Quantity("marginal_kl", ("heldout",), None, "nats")
INTERPOLATED = Quantity("fd_interpolated", ("heldout",), None)

LOST = Estimate(None, status=NONFINITE)


class LatentHealth:
    """Scores of a posterior, from `max_images` of the held-out split by the fixed permutation (None: all).

    The surgery takes `draws` codes of each image. `interpolated` adds `fd_interpolated`, which decodes as
    many images and takes their features.
    """

    def __init__(
        self, *, max_images: int | None = None, draws: int = 1, interpolated: bool = True
    ) -> None:
        whole("evaluation.latents.max_images", 2 if max_images is None else max_images, 2)
        whole("evaluation.latents.draws", draws)
        self.max_images, self.draws, self.interpolated = max_images, draws, interpolated

    def __call__(self, request: EncoderRequest) -> list[Score]:
        """Score a model whose encoder gives a posterior; an empty list for others.

        What belongs to each latent is written to the folder `latents` of the run. Without a prior N(0, I)
        there are no KLs to it.
        """
        model, store = request.model, request.store
        if not isinstance(model, HasPosterior):
            if isinstance(model, DrawsPosterior):
                log.info(
                    "active units, the surgery of the ELBO and fd_interpolated need the mean and variance of a "
                    "posterior: that of %s has draws alone",
                    type(model).__name__,
                )
            return []
        there = len(request.heldout[0].features)
        which = chosen(request.data, request.split, self.max_images or there)
        with store.watch.timing("latents"):
            mu, logvar = _posteriors(model, request, which)
            card = self._card(request, which, mu.shape[1])
            scores = self._of_posterior(model, request, mu, logvar, card)
        # of a midpoint no label is known
        if self.interpolated and isinstance(model, Reconstructs) and model.condition is None:
            with store.watch.timing("fd_interpolated"):
                scores.append(_interpolated(model, request, mu, which, card))
        return scores

    def _card(
        self, request: EncoderRequest, which: NDArray[np.int64], width: int
    ) -> dict[str, Any]:
        there, told = len(request.heldout[0].features), request.model.condition
        given = {} if told is None else told.given
        return {
            "heldout": subset_of(request.heldout[1], there, len(which)),
            "encoded": {"n": len(which), "latent_dim": width, "weights": "raw", **given},
        }

    def _of_posterior(
        self,
        model: HasPosterior,
        request: EncoderRequest,
        mu: Tensor,
        logvar: Tensor,
        card: Mapping[str, Any],
    ) -> list[Score]:
        """Active units, the surgery, and the file of what belongs to each latent."""
        drawn = {"draws": self.draws, "seed": request.seed, "version": 1}
        bound = f"log {len(mu)} = {math.log(len(mu)):.4g} nats"
        how: dict[Quantity, Mapping[str, Any]] = {
            UNITS: {"variance_above": ACTIVE, "version": 1},
            INFORMATION: {**drawn, "bound": bound},
        }
        if isinstance(model, GenerativeModel) and _has_normal_prior(model):
            how |= {RATE: {"version": 1}, MARGINAL: drawn}
        if not bool((mu.isfinite() & logvar.isfinite()).all()):
            return [_score(quantity, LOST, one, card) for quantity, one in how.items()]
        generator = torch.Generator().manual_seed(request.seed)
        noise = torch.randn(self.draws, *mu.shape, generator=generator)
        found = surgery(mu, logvar, noise)
        estimates = {
            UNITS: Estimate(float(active_units(mu))),
            INFORMATION: _mean(found.information),
            RATE: _mean(found.rate),
            MARGINAL: _mean(found.marginal),
        }
        scores = [_score(quantity, estimates[quantity], one, card) for quantity, one in how.items()]
        if RATE in how:
            by_unit = {
                "rate": rate_by_unit(mu, logvar).tolist(),
                "variance": variances_of_means(mu).tolist(),
            }
            _keep(request, scores[0], by_unit)
        return scores


def _has_normal_prior(model: GenerativeModel) -> bool:
    return type(model).latents is GenerativeModel.latents


def _posteriors(
    model: HasPosterior, request: EncoderRequest, which: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Means and log variances of the posteriors of some held-out images, (N, d) float64 on the CPU."""
    store, told, parts = request.store, request.model.condition, []
    for start in range(0, len(which), store.batch_size):
        part = which[start : start + store.batch_size]
        pixels = torch.from_numpy(request.data.pixels(request.split)[part]).to(store.device)
        labels = labels_of(told, request.data, request.split, part, store.device)
        found = model.posterior(request.data.to_images(pixels), *labels)
        parts.append([one.double().cpu() for one in found])
    mu, logvar = (torch.cat(own) for own in zip(*parts, strict=True))
    return mu, logvar


def _interpolated(
    model: GenerativeModel,
    request: EncoderRequest,
    mu: Tensor,
    which: NDArray[np.int64],
    card: Mapping[str, Any],
) -> Score:
    """Distance of the decoded midpoints to the images whose codes they lie between."""
    data, store, finite = request.data, request.store, bool(mu.isfinite().all())
    codes = midpoints(mu).float() if finite else mu.float()

    def decoded(z: Tensor) -> Tensor:
        nonlocal finite
        images = model.sample(z.to(store.device))
        finite = finite and bool(images.isfinite().all())
        return data.to_pixels(images)

    with reconstructing(model, data):
        batches = (decoded(part) for part in torch.split(codes, store.batch_size))
        features = store.extract(batches, data.levels).features
    originals = request.heldout[0].features[torch.from_numpy(which)]
    estimate = feature_distance(originals, features, store.device) if finite else LOST
    own = {
        "quantity": INTERPOLATED.name,
        "estimator": {"name": "FrechetDistance", "ddof": 1, "version": 1},
        "extractor": dict(store.extractor.card),
        **card,
        "decoded": {
            "latents": "midpoint of a posterior mean and its nearest other one",
            "quantisation": {"round": "nearest", "levels": data.levels},
            **encoded_norm_card(model, data, "reconstructions"),
        },
    }
    name = score_name(INTERPOLATED.name, store.extractor, len(which))
    return score_of(name, INTERPOLATED, estimate, own)


def _keep(request: EncoderRequest, score: Score, by_unit: Mapping[str, Any]) -> None:
    """Write what belongs to each latent to the run's folder, under the protocol of `score`."""
    if request.directory is None:
        return
    of_this = of_split(score, request.split)
    path: Path = request.directory / latents_file(of_this.protocol)
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"card": dict(of_this.card), BY_UNIT: dict(by_unit)})


def _mean(values: Tensor) -> Estimate:
    error = float(values.std()) / math.sqrt(len(values))
    return Estimate.within(float(values.mean()), error, OVER_IMAGES)


def _score(
    quantity: Quantity, estimate: Estimate, estimator: Mapping[str, Any], card: Mapping[str, Any]
) -> Score:
    own = {"quantity": quantity.name, "estimator": dict(estimator), **card}
    return score_of(quantity.name, quantity, estimate, own)

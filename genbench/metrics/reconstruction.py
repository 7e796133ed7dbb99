"""How well a model with an encoder gives back the held-out images that go into it.

Each image goes through the posterior's mean and the decoder, and is rounded to the levels of the stored
images. `psnr`, `ssim` and `lpips` compare it with its original; `rfd` is the Frechet distance of all
reconstructions to all of their originals, so that it is 0 for a perfect model at any number of images.
`fd_reconstructed` is their distance to the training images, which is what samples are held against, and
`fd_originals` that of the originals: what the former would be without any loss, at the same number.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from genbench.data.contract import ImageData, Split
from genbench.data.subsets import chosen, subset_of
from genbench.errors import UserMistake
from genbench.metrics.contract import Estimate, Features, Quantity
from genbench.metrics.feature_scores import NONFINITE, score_name, score_of
from genbench.metrics.feature_store import FeatureStore
from genbench.metrics.frechet import distance, moments
from genbench.metrics.gallery import WorstReconstructions
from genbench.metrics.likelihood import OVER_IMAGES
from genbench.metrics.lpips import LPIPS
from genbench.metrics.per_image import Kept
from genbench.models.condition import labels_of
from genbench.models.contract import GenerativeModel, Reconstructs
from genbench.models.reconstruction import encoded_norm_card, psnr, reconstructing
from genbench.runs.score import Score

WINDOW, SIGMA = 11, 1.5  # of SSIM, Wang et al. 2004

LEAST_SIDE = WINDOW // 2 + 1  # pixels from which borders can be reflected

PSNR = Quantity("psnr", ("heldout",), True, "dB")
SSIM = Quantity("ssim", ("heldout",), True)
PERCEPTUAL = Quantity("lpips", ("heldout",), False)
RFD = Quantity("rfd", ("heldout",), False)

# without a direction, as they explain an FD and rank no model
RECONSTRUCTED = Quantity("fd_reconstructed", ("heldout", "real"), None)
ORIGINALS = Quantity("fd_originals", ("heldout", "real"), None)

RFD_ESTIMATOR = {"name": "FrechetDistance", "ddof": 1, "version": 1}

LOST = Estimate(None, status=NONFINITE)  # a reconstruction is NaN or infinite


class Comparison(NamedTuple):
    """Something that is measured on an image and its original, and what defines it.

    `measure` gets level indices of reconstructions and originals, (N, C, H, W) uint8, and the number of
    levels; it returns (N,).
    """

    quantity: Quantity
    estimator: Mapping[str, Any]
    measure: Callable[[Tensor, Tensor, int], Tensor]


def ssim(pixels: Tensor, originals: Tensor, levels: int) -> Tensor:
    """Structural similarity of each image, at most 1: Wang et al. 2004, (N,).

    Of level indices (N, C, H, W), 6 pixels a side or more, with a Gaussian window of 11 pixels, sigma
    1.5, borders reflected; the mean over channels.
    """
    one, other = (part.float() / (levels - 1) for part in (pixels, originals))
    found = structural_similarity_index_measure(
        one, other, sigma=SIGMA, reduction="none", data_range=1.0
    )
    assert isinstance(found, Tensor)  # a pair only where more is asked for
    return found.reshape(-1)  # that of a single image has no dimension


WithCard = tuple[Features, Mapping[str, Any]]


class EncoderRequest(NamedTuple):
    """What is to be scored: a model, and the features of held-out and of training images with their cards.

    `directory` is the run's, where small arrays are kept.
    """

    model: GenerativeModel
    data: ImageData
    split: Split
    heldout: WithCard
    real: WithCard
    store: FeatureStore
    seed: int  # of the evaluation's latents
    directory: Path | None = None
    worst: WorstReconstructions | None = None  # keeps the pairs of the lowest PSNR
    kept: Kept | None = None  # gets the values of every image


class Reconstruction:
    """`psnr`, `ssim`, `rfd`, two more distances, and `lpips` where its weights are at hand.

    Of `max_images` of the held-out split by the fixed permutation (None: of all). SSIM is left out for
    images below 6 pixels a side.
    """

    def __init__(self, *, max_images: int | None = None, lpips: LPIPS | None = None) -> None:
        if max_images is not None and max_images < 2:
            raise UserMistake(
                f"evaluation.reconstruction.max_images={max_images}: it must be 2 or more, or null for "
                "the whole split"
            )
        self.max_images, self.lpips = max_images, lpips

    def prepare(self, data: ImageData, cache: Path) -> None:
        """Find the weights of `lpips` in the folder `cache`, or fetch them. Raises UserMistake."""
        if self.lpips is not None:
            self.lpips.prepare(data, cache)

    def __call__(self, request: EncoderRequest) -> list[Score]:
        """Score a model that has an encoder; an empty list for others."""
        model, data, store = request.model, request.data, request.store
        told = model.condition
        if not isinstance(model, Reconstructs):
            return []
        there = len(request.heldout[0].features)
        which = chosen(data, request.split, self.max_images or there)
        compared = self._compared(data, store.device)
        values: dict[str, list[Tensor]] = {one.quantity.name: [] for one in compared}
        finite = True

        def batches() -> Iterator[Tensor]:
            nonlocal finite
            for start in range(0, len(which), store.batch_size):
                part = which[start : start + store.batch_size]
                originals = torch.from_numpy(data.pixels(request.split)[part]).to(store.device)
                labels = labels_of(told, data, request.split, part, store.device)
                with store.watch.timing("reconstruction"):
                    images = model.reconstruct(data.to_images(originals), *labels)
                    finite = finite and bool(images.isfinite().all())
                    rebuilt = data.to_pixels(images)
                for one in compared:
                    with store.watch.timing(one.quantity.name):
                        found = one.measure(rebuilt, originals, data.levels)
                        values[one.quantity.name].append(found.double().cpu())
                    if one.quantity is PSNR and request.worst is not None:
                        request.worst.offer(rebuilt, originals, found)
                yield rebuilt

        with reconstructing(model, data):
            features = store.extract(batches(), data.levels).features
        card = {
            "heldout": subset_of(request.heldout[1], there, len(which)),
            "reconstructed": {
                "latents": "posterior mean",
                "weights": "raw",
                "quantisation": {"round": "nearest", "levels": data.levels},
                **({} if told is None else told.given),
                **encoded_norm_card(model, data, "reconstructions"),
            },
        }
        scores = []
        for one in compared:
            each = torch.cat(values[one.quantity.name]) if finite else None
            scores.append(_mean(one, each, card))
            if request.kept is not None and each is not None:
                request.kept.keep(scores[-1], each, which)
        originals = request.heldout[0].features[torch.from_numpy(which)]
        return scores + _distances(request, originals, features if finite else None, card)

    def _compared(self, data: ImageData, device: torch.device) -> list[Comparison]:
        """What is measured on each pair of images."""
        found = [Comparison(PSNR, {"error_at_least": "one level in one value", "version": 1}, psnr)]
        if data.image_size >= LEAST_SIDE:
            window = {"gaussian_window": WINDOW, "sigma": SIGMA, "borders": "reflected"}
            found.append(Comparison(SSIM, {**window, "version": 1}, ssim))
        if self.lpips is not None and self.lpips.network is not None:
            self.lpips.network.to(device)
            found.append(Comparison(PERCEPTUAL, self.lpips.card, self.lpips))
        return found


def _distances(
    request: EncoderRequest, originals: Tensor, rebuilt: Tensor | None, card: Mapping[str, Any]
) -> list[Score]:
    """Frechet distances of features (N, d): reconstructions and originals to each other and to real images."""
    store, real = request.store, request.real[0].features

    def between(a: Tensor, b: Tensor | None) -> Estimate:
        return LOST if b is None else feature_distance(a, b, store.device)

    with store.watch.timing("rfd"):
        found = [
            (RFD, between(originals, rebuilt)),
            (RECONSTRUCTED, between(real, rebuilt)),
            (ORIGINALS, between(real, originals)),
        ]
    scores = []
    for quantity, estimate in found:
        name = score_name(quantity.name, store.extractor, len(originals))
        scores.append(score_of(name, quantity, estimate, _distance_card(quantity, request, card)))
    return scores


def _mean(one: Comparison, values: Tensor | None, card: Mapping[str, Any]) -> Score:
    """Score of the mean over images, with bounds of 1.96 standard errors."""
    quantity, estimate = one.quantity, LOST
    if values is not None:
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
        estimate = Estimate.within(float(values.mean()), error, OVER_IMAGES)
    own = {"quantity": quantity.name, "estimator": dict(one.estimator), **card}
    return score_of(quantity.name, quantity, estimate, own)


def _distance_card(
    quantity: Quantity, request: EncoderRequest, card: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of a distance: of what it depends on, and of nothing else."""
    own = {"quantity": quantity.name, "estimator": RFD_ESTIMATOR}
    own |= {"extractor": dict(request.store.extractor.card)}
    if quantity is not RFD:
        own["real"] = dict(request.real[1])
    if quantity is ORIGINALS:
        return own | {"heldout": card["heldout"]}
    return own | dict(card)


def feature_distance(one: Tensor, other: Tensor, device: torch.device) -> Estimate:
    """Frechet distance of two sets of features, (N, D) and (M, D)."""
    where = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    return Estimate(distance(moments(one.to(where)), moments(other.to(where))))

"""How well a model predicts held-out images: bounds on log p(x), in nats per image, at beta = 1.

For models with an encoder. Every name contains the likelihood's tag, because values under different
likelihoods are not comparable. Every model with an encoder gets `posthoc` bounds too, under a Gaussian
whose variance is its mean squared reconstruction error on validation images.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genbench.data.cache import progress
from genbench.data.contract import ImageData, Split
from genbench.data.subsets import chosen, subset_card
from genbench.losses.variational import reparameterize
from genbench.metrics.bounds import (
    Bound,
    DrawnObserver,
    Observer,
    elbo,
    importance_bound,
    own_observer,
)
from genbench.metrics.per_image import Kept
from genbench.models.condition import labels_of
from genbench.models.contract import (
    DrawsPosterior,
    Elbo,
    GenerativeModel,
    HasBound,
    HasPosterior,
    HasTokens,
)
from genbench.models.reconstruction import decoding_posterior, encoded_norm_card
from genbench.priors.contract import WeighsTokens
from genbench.priors.fitting import FittedPrior
from genbench.ranges import whole
from genbench.runs.score import Score

IMAGES_AT_ONCE = 32  # images whose importance draws are in memory together

SMALLEST_VARIANCE = 1e-8  # for a model that reconstructs without error

POSTHOC = "gaussian-posthoc"

OVER_IMAGES = "95 % over held-out images"  # what the bounds of a mean over images cover


class LikelihoodRequest(NamedTuple):
    """What is to be scored, and how; `batch_size` bounds memory and changes no score."""

    model: GenerativeModel
    data: ImageData
    device: torch.device
    seed: int
    batch_size: int
    split: Split = "test"  # of the held-out images
    weights: str = "raw"
    directory: Path | None = None  # of the run, to keep intermediate results in
    prior: FittedPrior | None = None  # of the latents; None: N(0, I)
    kept: Kept | None = None  # gets the values of every image

    @property
    def fitted(self) -> Split:
        """The split that variances are fitted to: never the one that is scored."""
        return "validation" if self.split == "test" else "train"

    def labels(self, split: Split, which: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Labels of images, on the device, for a model that knows them; none for others."""
        return labels_of(self.model.condition, self.data, split, which, self.device)

    @property
    def given(self) -> dict[str, Any]:
        """For the cards: that the model was given the images' labels; empty for others."""
        return {} if self.model.condition is None else self.model.condition.given


class LikelihoodMetric(Protocol):
    """Scores that need the model itself, not only its images."""

    def __call__(self, request: LikelihoodRequest) -> list[Score]:
        """Score the model; an empty list if these scores are not defined for it."""
        ...


def gaussian_log_prob(images: Tensor, means: Tensor, variance: float) -> Tensor:
    """log N(images | means, variance), summed over pixels: (N,)."""
    error = (images - means).flatten(1).square().sum(1)
    dimensions = images[0].numel()
    return -0.5 * (error / variance + dimensions * math.log(2 * math.pi * variance))


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Convert -log P of a discrete image from nats to bits per pixel and channel."""
    return nats / (dimensions * math.log(2))


class Bounds:
    """The ELBO with its two terms, and the tighter importance-weighted bound (IWAE).

    The ELBO takes `posterior_draws` draws per held-out image (of a posterior on one code all are the same). IWAE takes `importance_draws` (0: leave
    it out) on `max_images` of them (None: all), and `elbo_subset` is the ELBO of the same images. A
    model with a likelihood of its own has the ELBO under the `posthoc` one beside it: this one it
    shares with models that have an encoder only. Of a model that knows labels these are bounds of
    log p(x | y).

    Under a fitted prior there is the bound of a model with tokens, whose rate is -log p(tokens); of a prior
    over continuous latents the rate has no closed form, and nothing is taken again.
    """

    knows_labels = True
    knows_priors = True

    def __init__(
        self, *, posterior_draws: int, importance_draws: int, max_images: int | None
    ) -> None:
        for name, value, least in (
            ("posterior_draws", posterior_draws, 1),
            ("importance_draws", importance_draws, 0),
            ("max_images", 1 if max_images is None else max_images, 1),
        ):
            whole(f"bounds.{name}", value, least)
        self.posterior_draws, self.importance_draws = posterior_draws, importance_draws
        self.max_images = max_images

    def __call__(self, request: LikelihoodRequest) -> list[Score]:
        """Score a model that has an encoder; an empty list for others."""
        with decoding_posterior(request.model, request.data):
            return self._every(request) if request.prior is None else self._under_prior(request)

    def _every(self, request: LikelihoodRequest) -> list[Score]:
        model, scores = request.model, list[Score]()
        if isinstance(model, HasBound):
            own, draws = own_observer(model), self.importance_draws
            if isinstance(own, DrawnObserver) and own.draw is None:
                draws = 0  # importance weights of one code are the bound
            tag, discrete = model.likelihood.tag, model.likelihood.discrete
            scores += self._scores(request, own, tag, discrete, "", draws)
        if isinstance(model, HasPosterior | DrawsPosterior):
            observer, variance = posthoc(request, model)
            # a model's own likelihood has the tighter bound
            draws = 0 if scores else self.importance_draws
            scores += self._scores(request, observer, POSTHOC, False, "_posthoc", draws)
            fitted = subset_card(request.data, request.fitted, len(fit_images(request)))
            card = {
                "quantity": "posthoc_variance",
                "weights": request.weights,
                "seed": request.seed,
                request.fitted: fitted,
                **request.given,
                **encoded_norm_card(model, request.data, "posterior draws"),
            }
            scores.append(_score("posthoc_variance", variance, "", None, card))
        return scores

    def _under_prior(self, request: LikelihoodRequest) -> list[Score]:
        """The bound of a model with tokens under another prior over them."""
        model = request.model
        prior = None if request.prior is None else request.prior.prior
        if not (
            isinstance(model, HasBound)
            and isinstance(model, HasTokens)
            and isinstance(prior, WeighsTokens)
        ):
            return []
        own, tokens, log_p = model.elbo, model.tokens, prior.log_p

        def bound(images: Tensor, noise: Tensor) -> Elbo:
            return Elbo(-log_p(tokens(images)), own(images, noise).distortion)

        likelihood = model.likelihood
        observer = DrawnObserver(bound)
        return self._scores(request, observer, likelihood.tag, likelihood.discrete, "", 0)

    def _scores(
        self,
        request: LikelihoodRequest,
        observer: Observer | DrawnObserver,
        tag: str,
        discrete: bool,
        suffix: str,
        importance_draws: int,
    ) -> list[Score]:
        """Scores of both bounds under one observation model; `tag` and `suffix` go into their names."""
        common: dict[str, Any] = {
            "likelihood": tag,
            "seed": request.seed,
            "weights": request.weights,
            **request.given,
            **encoded_norm_card(request.model, request.data, "posterior draws"),
            **({} if request.prior is None else {"prior": dict(request.prior.protocol)}),
        }
        if not discrete:
            common["density"] = {"range": [-1, 1], "dequantised": False}
        bound = self._elbo(request, observer)
        estimator = {"beta": 1, "posterior_draws": self.posterior_draws, "version": 1}
        card = {**common, "estimator": estimator, "heldout": request.data.card(request.split)}
        total = bound.rate + bound.distortion
        scores = [
            _mean(f"elbo{suffix}", tag, -total, "nats", True, card),
            _mean(f"rate{suffix}", tag, bound.rate, "nats", None, card),
            _mean(f"distortion{suffix}", tag, bound.distortion, "nats", False, card),
        ]
        _keep(request, scores[0], -total)
        _keep(request, scores[2], bound.distortion)
        if discrete:
            dimensions = request.data.channels * request.data.image_size**2
            bits = total * bits_per_dimension(1, dimensions)
            scores.append(_mean("bits_per_dim", tag, bits, "bits", False, card))
        if importance_draws:
            which = self._subset(request)
            heldout = subset_card(request.data, request.split, len(which))
            if len(which) < len(total):
                few = {**card, "heldout": heldout}
                scores.append(_mean(f"elbo{suffix}_subset", tag, -total[which], "nats", True, few))
            values = self._importance(request, observer, which)
            card = {
                **common,
                "estimator": {"k": importance_draws, "version": 2},
                "heldout": heldout,
            }
            name = f"{importance_draws}_{tag}"
            scores.append(_mean(f"iwae{suffix}", name, values, "nats", True, card))
            _keep(request, scores[-1], values, which)
        return scores

    def _subset(self, request: LikelihoodRequest) -> NDArray[np.int64]:
        """Numbers of the images that IWAE sees."""
        there = len(request.data.pixels(request.split))
        return chosen(request.data, request.split, self.max_images or there)

    def _elbo(self, request: LikelihoodRequest, observer: Observer | DrawnObserver) -> Bound:
        """ELBO of every test image. All noise is drawn at once, so batches do not change it."""
        count = len(request.data.pixels(request.split))
        every = np.arange(count)
        generator = torch.Generator().manual_seed(request.seed)
        shape = (self.posterior_draws, count, request.model.latent_dim)
        noise = torch.randn(shape, generator=generator)
        parts = [
            elbo(
                observer.told(*request.labels(request.split, which)),
                images,
                noise[:, which].to(request.device),
            )
            for which, images in batches(request, request.split, every, request.batch_size)
        ]
        rates, distortions = zip(*parts, strict=True)
        return Bound(torch.cat(rates).cpu(), torch.cat(distortions).cpu())

    def _importance(
        self,
        request: LikelihoodRequest,
        observer: Observer | DrawnObserver,
        numbers: NDArray[np.int64],
    ) -> Tensor:
        """IWAE of some images. Each has its own generator, so batches do not change the draws."""
        size, values = min(IMAGES_AT_ONCE, request.batch_size), []
        with progress() as bar:
            name = f"importance sampling, {self.importance_draws} draws an image"
            work = bar.add_task(name, total=len(numbers))
            for which, images in batches(request, request.split, numbers, size):
                noise = torch.stack([self._draws(request, int(i)) for i in which], 1)
                told = observer.told(*request.labels(request.split, which))
                values.append(
                    importance_bound(told, images, noise.to(request.device), request.batch_size)
                )
                bar.advance(work, len(images))
        return torch.cat(values).cpu()

    def _draws(self, request: LikelihoodRequest, image: int) -> Tensor:
        generator = torch.Generator().manual_seed(
            (request.seed * 1_000_003 + image) * 4_099 % 2**63
        )
        return torch.randn(self.importance_draws, request.model.latent_dim, generator=generator)


def posthoc(
    request: LikelihoodRequest, model: HasPosterior | DrawsPosterior
) -> tuple[Observer | DrawnObserver, float]:
    """Observer with a Gaussian likelihood for a model that has an encoder only; and its variance.

    The variance is the mean squared error of reconstructions from one posterior draw per image of
    the validation split, which maximises the bound on these images; where validation images are
    scored, it is that of as many training images.
    """
    numbers = fit_images(request)
    generator = torch.Generator().manual_seed(request.seed + 1)
    noise = torch.randn(len(numbers), request.model.latent_dim, generator=generator)
    error, values = 0.0, 0
    noises = torch.split(noise, request.batch_size)
    found = batches(request, request.fitted, numbers, request.batch_size)
    for draws, (which, images) in zip(noises, found, strict=True):
        labels = request.labels(request.fitted, which)
        z = _drawn(model, images, draws.to(request.device), *labels)
        error += float((images - request.model.sample(z, *labels)).double().square().sum())
        values += images.numel()
    variance = max(error / values, SMALLEST_VARIANCE)

    def log_prob(images: Tensor, z: Tensor, *labels: Tensor) -> Tensor:
        return gaussian_log_prob(images, request.model.sample(z, *labels), variance)

    if isinstance(model, HasPosterior):
        return Observer(model.posterior, log_prob), variance
    draw = model.draw_posterior

    def bound(images: Tensor, noise: Tensor) -> Elbo:
        drawn = draw(images, noise)
        return Elbo(drawn.rate, -log_prob(images, drawn.z))

    return DrawnObserver(bound, draw, log_prob), variance


def _drawn(
    model: HasPosterior | DrawsPosterior, images: Tensor, noise: Tensor, *labels: Tensor
) -> Tensor:
    """Latents (N, d) from the posteriors of images, by noise (N, d)."""
    if isinstance(model, DrawsPosterior):
        return model.draw_posterior(images, noise).z
    return reparameterize(*model.posterior(images, *labels), noise)


def fit_images(request: LikelihoodRequest) -> NDArray[np.int64]:
    """Numbers of the images that a variance is fitted to: as many as the validation split has."""
    there, wanted = (len(request.data.pixels(split)) for split in (request.fitted, "validation"))
    return np.arange(there) if wanted >= there else chosen(request.data, request.fitted, wanted)


def batches(
    request: LikelihoodRequest, split: Split, numbers: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Images of a split by their numbers, on the device, `size` at a time, each with its numbers."""
    pixels = request.data.pixels(split)
    for start in range(0, len(numbers), size):
        which = numbers[start : start + size]
        part = torch.from_numpy(pixels[which])
        yield which, request.data.to_images(part.to(request.device))


def _keep(
    request: LikelihoodRequest,
    score: Score,
    values: Tensor,
    images: NDArray[np.int64] | None = None,
) -> None:
    if request.kept is not None:
        request.kept.keep(score, values, images)


def _mean(
    quantity: str,
    tag: str,
    values: Tensor,
    unit: str,
    better: bool | None,
    card: Mapping[str, Any],
) -> Score:
    """Score of a mean over images, with bounds of 1.96 standard errors."""
    mean = float(values.mean())
    error = 1.96 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return _score(f"{quantity}_{tag}", mean, unit, better, {"quantity": quantity, **card}, error)


def _score(
    name: str,
    value: float,
    unit: str,
    better: bool | None,
    card: Mapping[str, Any],
    error: float = math.nan,
) -> Score:
    if not math.isfinite(value):
        return Score(name, None, unit, better, card, status="nonfinite")
    if not math.isfinite(error):
        return Score(name, value, unit, better, card)
    low, high = value - error, value + error
    return Score(name, value, unit, better, card, low=low, high=high, interval=OVER_IMAGES)

"""How well a model predicts held-out images: bounds on log p(x), in nats per image, at beta = 1.

For models with an encoder. Every name carries the likelihood's tag: numbers under different tags
measure different things. A model without a pixel likelihood of its own gets bounds `posthoc`, under
a Gaussian whose variance is the error of its reconstructions of validation images.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from genbench.data.cache import progress
from genbench.data.contract import ImageData, Split
from genbench.errors import UserMistake
from genbench.losses.variational import kl_to_standard_normal, reparameterize
from genbench.models.contract import GenerativeModel, HasLikelihood, HasPosterior
from genbench.runs.score import Score

SPLIT: Split = "test"


IMAGES_AT_ONCE = 32  # whose draws are in memory together


SMALLEST_VARIANCE = 1e-8  # of a model that reconstructs without any error


POSTHOC = "gaussian-posthoc"


class Task(NamedTuple):
    """What is to be scored, and how: `batch_size` bounds memory and changes no number."""

    model: GenerativeModel
    data: ImageData
    device: torch.device
    seed: int
    batch_size: int
    weights: str = "raw"
    directory: Path | None = None  # of the run, for what is to be taken up again later


class LikelihoodMetric(Protocol):
    """Numbers that need the model itself, not only its images."""

    def __call__(self, task: Task) -> list[Score]:
        """Score the model; nothing if it has no such number."""
        ...


class Bound(NamedTuple):
    """What is known of each image, float64 (N,) in nats; log p(x) >= -(rate + distortion)."""

    rate: Tensor
    distortion: Tensor


class Observer(NamedTuple):
    """An encoder and an observation model: all that a bound needs."""

    posterior: Callable[[Tensor], tuple[Tensor, Tensor]]  # mean and log variance, (N, d) each
    log_prob: Callable[[Tensor, Tensor], Tensor]  # log p(images | z), (N,)


def elbo(observer: Observer, images: Tensor, noise: Tensor) -> Bound:
    """Rate and distortion of images (N, C, H, W), the latter averaged over draws (S, N, d)."""
    mu, logvar = observer.posterior(images)
    distortion = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for one in noise:
        distortion -= observer.log_prob(images, reparameterize(mu, logvar, one)).double()
    return Bound(kl_to_standard_normal(mu, logvar).double(), distortion / len(noise))


def importance_bound(
    observer: Observer, images: Tensor, noise: Tensor, decoded_at_once: int
) -> Tensor:
    """log 1/k sum_k p(x, z_k) / q(z_k | x), Burda et al. 2016, eq. 8: float64 (N,).

    `noise` (k, N, d) makes the draws; they are summed up in a stream of portions, which do not
    change the result.
    """
    mu, logvar = (part.double() for part in observer.posterior(images))
    total = torch.full((len(images),), -math.inf, dtype=torch.float64, device=images.device)
    for part in torch.split(noise, max(1, decoded_at_once // len(images))):
        z = reparameterize(mu, logvar, part.double())
        # log p(z) - log q(z | x); the constants cancel
        log_ratio = 0.5 * (part.double().square() + logvar - z.square()).sum(-1)
        log_prob = observer.log_prob(images.repeat(len(part), 1, 1, 1), z.flatten(0, 1).float())
        log_weights = log_prob.double().view(len(part), -1) + log_ratio
        total = torch.logaddexp(total, torch.logsumexp(log_weights, 0))
    return total - math.log(len(noise))


def gaussian_log_prob(images: Tensor, means: Tensor, variance: float) -> Tensor:
    """log N(images | means, variance), summed over pixels: (N,)."""
    error = (images - means).flatten(1).square().sum(1)
    dimensions = images[0].numel()
    return -0.5 * (error / variance + dimensions * math.log(2 * math.pi * variance))


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Turn -log P of a discrete image, in nats, into bits per pixel and channel."""
    return nats / (dimensions * math.log(2))


class Bounds:
    """The evidence lower bound with its halves, and the tighter one of importance sampling.

    `posterior_draws` per image in the first; `importance_draws` in the second, 0 for none, on the
    first `max_images` of the test split (null: all of them).
    """

    def __init__(
        self, *, posterior_draws: int, importance_draws: int, max_images: int | None
    ) -> None:
        for name, value, least in (
            ("posterior_draws", posterior_draws, 1),
            ("importance_draws", importance_draws, 0),
            ("max_images", 1 if max_images is None else max_images, 1),
        ):
            if value < least:
                raise UserMistake(f"bounds.{name}={value}: it must be {least} or more")
        self.posterior_draws, self.importance_draws = posterior_draws, importance_draws
        self.max_images = max_images

    def __call__(self, task: Task) -> list[Score]:
        """Score a model that has an encoder; nothing for any other."""
        model = task.model
        if isinstance(model, HasLikelihood):
            own = Observer(model.posterior, model.log_prob)
            tag, discrete = model.likelihood.tag, model.likelihood.discrete
            return self._scores(task, own, tag, discrete, "")
        if isinstance(model, HasPosterior):
            observer, variance = posthoc(task, model)
            scores = self._scores(task, observer, POSTHOC, False, "_posthoc")
            card = {"quantity": "posthoc_variance", "weights": task.weights, "seed": task.seed}
            card["validation"] = task.data.card("validation")
            return [*scores, _score("posthoc_variance", variance, "", None, card)]
        return []

    def _scores(
        self, task: Task, observer: Observer, tag: str, discrete: bool, suffix: str
    ) -> list[Score]:
        """Both bounds under one observation model, whose tag their names carry."""
        common: dict[str, Any] = {"likelihood": tag, "seed": task.seed, "weights": task.weights}
        if not discrete:
            common["density"] = {"range": [-1, 1], "dequantised": False}
        bound = self._elbo(task, observer)
        estimator = {"beta": 1, "posterior_draws": self.posterior_draws, "version": 1}
        card = {**common, "estimator": estimator, "heldout": task.data.card(SPLIT)}
        total = bound.rate + bound.distortion
        scores = [
            _mean(f"elbo{suffix}", tag, -total, "nats", True, card),
            _mean(f"rate{suffix}", tag, bound.rate, "nats", None, card),
            _mean(f"distortion{suffix}", tag, bound.distortion, "nats", False, card),
        ]
        if discrete:
            dimensions = task.data.channels * task.data.image_size**2
            bits = total * bits_per_dimension(1, dimensions)
            scores.append(_mean("bits_per_dim", tag, bits, "bits", False, card))
        if self.importance_draws:
            k, values = self.importance_draws, self._importance(task, observer)
            heldout = {**task.data.card(SPLIT), "first": len(values)}
            card = {**common, "estimator": {"k": k, "version": 1}, "heldout": heldout}
            scores.append(_mean(f"iwae{suffix}", f"{k}_{tag}", values, "nats", True, card))
        return scores

    def _elbo(self, task: Task, observer: Observer) -> Bound:
        """Bound every held-out image; all noise is drawn at once."""
        count = len(task.data.pixels(SPLIT))
        generator = torch.Generator().manual_seed(task.seed)
        shape = (self.posterior_draws, count, task.model.latent_dim)
        noise = torch.randn(shape, generator=generator)
        parts = [
            elbo(observer, images, noise[:, which].to(task.device))
            for which, images in batches(task, SPLIT, count, task.batch_size)
        ]
        rates, distortions = zip(*parts, strict=True)
        return Bound(torch.cat(rates).cpu(), torch.cat(distortions).cpu())

    def _importance(self, task: Task, observer: Observer) -> Tensor:
        """Bound the first images; every image has a generator of its own for its draws."""
        there = len(task.data.pixels(SPLIT))
        count = min(there, self.max_images or there)
        size, values = min(IMAGES_AT_ONCE, task.batch_size), []
        with progress() as bar:
            name = f"importance sampling, {self.importance_draws} draws an image"
            work = bar.add_task(name, total=count)
            for which, images in batches(task, SPLIT, count, size):
                noise = torch.stack([self._draws(task, i) for i in which_numbers(which)], 1)
                values.append(
                    importance_bound(observer, images, noise.to(task.device), task.batch_size)
                )
                bar.advance(work, len(images))
        return torch.cat(values).cpu()

    def _draws(self, task: Task, image: int) -> Tensor:
        generator = torch.Generator().manual_seed((task.seed * 1_000_003 + image) * 4_099 % 2**63)
        return torch.randn(self.importance_draws, task.model.latent_dim, generator=generator)


def posthoc(task: Task, model: HasPosterior) -> tuple[Observer, float]:
    """Give a model with an encoder a Gaussian likelihood; its variance is the validation error.

    The mean squared error of reconstructions from one posterior draw per validation image: that
    variance maximises the bound on them, in closed form.
    """
    count = len(task.data.pixels("validation"))
    generator = torch.Generator().manual_seed(task.seed + 1)
    noise = torch.randn(count, task.model.latent_dim, generator=generator)
    error, values = 0.0, 0
    for which, images in batches(task, "validation", count, task.batch_size):
        z = reparameterize(*model.posterior(images), noise[which].to(task.device))
        error += float((images - task.model.sample(z)).double().square().sum())
        values += images.numel()
    variance = max(error / values, SMALLEST_VARIANCE)

    def log_prob(images: Tensor, z: Tensor) -> Tensor:
        return gaussian_log_prob(images, task.model.sample(z), variance)

    return Observer(model.posterior, log_prob), variance


def batches(task: Task, split: Split, count: int, size: int) -> Iterator[tuple[slice, Tensor]]:
    """The first `count` images of a split, in portions on the device, with where each belongs."""
    pixels = task.data.pixels(split)
    for start in range(0, count, size):
        which = slice(start, min(start + size, count))
        part = torch.from_numpy(pixels[which].copy())
        yield which, task.data.to_images(part.to(task.device))


def which_numbers(which: slice) -> range:
    """The numbers that a slice stands for."""
    return range(which.start, which.stop)


def _mean(
    quantity: str,
    tag: str,
    values: Tensor,
    unit: str,
    better: bool | None,
    card: Mapping[str, Any],
) -> Score:
    """Average over images, within 1.96 standard errors."""
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
    return Score(name, value, unit, better, card, low=value - error, high=value + error)

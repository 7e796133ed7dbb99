"""`nll_ais`: one likelihood for every decoder, a GAN's too, with a bound of its error.

Wu, Burda, Salakhutdinov and Grosse 2017, https://arxiv.org/abs/1611.04273; see `annealing`.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.data.cache import progress, say
from genbench.data.contract import ImageData, Split
from genbench.data.subsets import chosen, subset_card
from genbench.metrics.annealing import (
    FIRST_VARIANCE,
    FIT_ROUNDS,
    NORMAL,
    Annealer,
    Decode,
    FromDensity,
    StandardNormal,
    fit_variance,
    schedule,
    simulate,
)
from genbench.metrics.likelihood import OVER_IMAGES, LikelihoodRequest
from genbench.models.batch_statistics import batch_norm_card
from genbench.models.contract import GenerativeModel, draws_standard_normal
from genbench.models.weights import weights_hash
from genbench.priors.contract import HasDensity
from genbench.ranges import number, whole
from genbench.runs.files import write_json
from genbench.runs.score import Score, digest

log = logging.getLogger("genbench")
BLOCK = 50  # images whose chains run together; an interrupted run repeats at most one block

FIT_IMAGES = 50  # validation images that the variance is fitted to

WIDEST_GAP = 3.0  # nats; a larger gap makes models incomparable

OVER_SIMULATED = "95 % over simulated images"  # what the bounds of the gap cover


class Part(NamedTuple):
    """A piece of the work whose result is kept: its number of moves and images, and what runs it."""

    moves: int
    images: int
    run: Callable[[Annealer], Tensor | float]


class Estimates(NamedTuple):
    """Estimates of log p(x) from all chains, in nats per image, for densities on [0, 1]."""

    variance: float
    test: Tensor  # (N,) test images, from below
    below: Tensor  # (S,) of simulated images, from below
    above: Tensor  # (S,) the same images, from above

    @property
    def gap(self) -> float:
        """Mean difference between the two estimates of simulated images."""
        return float((self.above - self.below).mean())


class AnnealedImportance:
    """`nll_ais`: -log p(x) of test images under a Gaussian around the decoder's image.

    Off unless `enabled`. Scores `images` of the held-out split, and `simulated` images of the model's
    own, which bound the error. `variance` is that of the pixels; None fits it to validation images, or
    to training images where validation images are scored. The cost is about temperatures * leapfrogs *
    chains * (images + 2 * simulated) decodings with gradient.
    """

    knows_priors = True  # scores a model under a fitted prior too

    def __init__(
        self,
        *,
        enabled: bool,
        images: int,
        simulated: int,
        chains: int,
        pilot_chains: int,
        temperatures: int,
        leapfrogs: int,
        variance: float | None,
    ) -> None:
        least = {"images": 1, "simulated": 1, "chains": 1, "pilot_chains": 1, "leapfrogs": 1}
        given = {"images": images, "simulated": simulated, "chains": chains}
        given |= {"pilot_chains": pilot_chains, "leapfrogs": leapfrogs}
        given |= {"temperatures": temperatures}
        for name, value in given.items():
            whole(f"ais.{name}", value, least.get(name, 2))
        if variance is not None:
            number("ais.variance", variance, above=True)
        self.enabled, self.images, self.simulated = enabled, images, simulated
        self.chains, self.pilot_chains = chains, pilot_chains
        self.temperatures, self.leapfrogs, self.variance = temperatures, leapfrogs, variance

    def estimator(self, fitted: Split) -> dict[str, Any]:
        """What defines the estimate, for its card; a fitted variance differs between models.

        `fitted` is the split that the variance is fitted to.
        """
        return {
            "chains": self.chains,
            "pilot_chains": self.pilot_chains,
            "temperatures": self.temperatures,
            "leapfrogs": self.leapfrogs,
            "simulated": self.simulated,
            "variance": fitted if self.variance is None else self.variance,
            "block": BLOCK,
            "version": 2,
        }

    def __call__(self, request: LikelihoodRequest) -> list[Score]:
        """Score a model whose prior is N(0, I), or a fitted one with a density; none unless enabled."""
        if not self.enabled or not draws_standard_normal(request.model):
            return []
        fitted = request.prior
        if fitted is not None and not isinstance(fitted.prior, HasDensity):
            log.info(
                "nll_ais needs a density, and the %s prior has none at hand", fitted.prior.kind
            )
            return []
        count = min(self.images, len(request.data.pixels(request.split)))
        card = {
            "likelihood": "gaussian-ais",
            "density": {"range": [0, 1], "dequantised": True},
            "estimator": self.estimator(request.fitted),
            "heldout": subset_card(request.data, request.split, count),
            "seed": request.seed,
            "weights": request.weights,
            **batch_norm_card(request.model),
            **({} if fitted is None else {"prior": dict(fitted.protocol)}),
        }
        found = self.estimate(request, count, card)
        return _scores(found, card)

    def estimate(self, request: LikelihoodRequest, count: int, card: dict[str, Any]) -> Estimates:
        """Run all chains, except those whose results an earlier call has kept."""
        kept, annealer = KeptResults(request, card), self._annealer(request)
        parts = self._parts(request, count)
        missing = {name: part for name, part in parts.items() if name not in kept}
        if missing:
            sizes = {name: part.images for name, part in missing.items()}
            self._announce(annealer, sizes, len(parts), request)
        with progress() as bar:
            moves = sum(part.moves for part in missing.values())
            work = bar.add_task("annealed importance sampling", total=moves)
            annealer = annealer._replace(on_move=lambda: bar.advance(work, 1))
            results: dict[str, Tensor] = {}
            for name, part in parts.items():
                results[name] = kept.get(name, partial(part.run, annealer))
                if name == "variance":  # comes first, because the chains need it
                    annealer = annealer._replace(variance=float(results[name]))

        def joined(kind: str) -> Tensor:
            return torch.cat([part for name, part in results.items() if name.startswith(kind)], 1)

        below, above = joined("simulated")
        return Estimates(annealer.variance, joined("test")[0], below, above)

    def _annealer(self, request: LikelihoodRequest) -> Annealer:
        return Annealer(
            decode=unit_means(request.model, request.data.levels),
            latent_dim=request.model.latent_dim,
            variance=self.variance or FIRST_VARIANCE,
            leapfrogs=self.leapfrogs,
            betas=schedule(self.temperatures),
            chains=self.chains,
            pilot_chains=self.pilot_chains,
            decoded_at_once=request.batch_size,
            device=request.device,
            on_move=lambda: None,
            latents=_latents(request),
        )

    def _parts(self, request: LikelihoodRequest, count: int) -> dict[str, Part]:
        """All parts of the work, by name."""
        moves = self.temperatures - 1
        parts: dict[str, Part] = {}
        if self.variance is None:
            parts["variance"] = Part(2 * FIT_ROUNDS, 0, partial(self._fit, request))
        for block in _blocks(count):
            run = partial(self._test, request, block)
            parts[f"test {block.start}"] = Part(2 * moves, len(block), run)
        for block in _blocks(self.simulated):
            run = partial(self._simulated, request, block)
            parts[f"simulated {block.start}"] = Part(3 * moves, len(block), run)
        return parts

    def _announce(
        self, annealer: Annealer, missing: dict[str, int], parts: int, request: LikelihoodRequest
    ) -> None:
        """Print an estimate of the cost, timed on three moves of one block.

        `missing` has the number of images of each missing part, `parts` the number of all parts.
        """
        generator = _generator(request.seed, "probe")
        block = range(min(BLOCK, len(request.data.pixels(request.split))))
        images = _dequantised(request.data, request.split, block, generator).to(request.device)
        chains = annealer.prior(images, self.chains, generator)
        step = torch.full((len(images),), 1e-3, device=request.device)
        float(chains.move(0.5, step).sum())  # warm-up; float() waits for the GPU
        began = time.perf_counter()
        float(chains.move(0.5, step).sum() + chains.move(0.5, step).sum())
        seconds = (time.perf_counter() - began) / 2
        pilot = self.pilot_chains / self.chains  # a pilot run in units of a whole run
        runs = {"variance": 0.0, "test": 1 + pilot, "simulated": 2 + pilot}
        image_runs = sum(runs[name.split()[0]] * count for name, count in missing.items())
        moves = image_runs * (self.temperatures - 1) / len(images)  # of blocks like the timed one
        decodings = moves * self.leapfrogs * self.chains * len(images)
        done = parts - len(missing)
        line = (
            f"annealed importance sampling: {decodings:.2g} decodings with gradient, "
            f"about {duration(moves * seconds)} on {request.device}"
            + (f" ({done} of {parts} parts are there already)" if done else "")
        )
        say(f"  {line}")
        log.info(line)

    def _fit(self, request: LikelihoodRequest, annealer: Annealer) -> float:
        """Fit the variance to images that are not scored."""
        generator = _generator(request.seed, "variance")
        block = range(min(FIT_IMAGES, len(request.data.pixels(request.fitted))))
        images = _dequantised(request.data, request.fitted, block, generator).to(request.device)
        return fit_variance(annealer, images, generator)

    def _test(self, request: LikelihoodRequest, block: range, annealer: Annealer) -> Tensor:
        """Estimates of test images from below, (1, N)."""
        generator = _generator(request.seed, f"test {block.start}")
        images = _dequantised(request.data, request.split, block, generator).to(request.device)
        return annealer.forward(images, annealer.steps(images, generator), generator)[None]

    def _simulated(self, request: LikelihoodRequest, block: range, annealer: Annealer) -> Tensor:
        """Estimates of simulated images from below and from above, (2, N)."""
        generator = _generator(request.seed, f"simulated {block.start}")
        z, images = simulate(annealer, len(block), generator)
        steps = annealer.steps(images, generator)
        below = annealer.forward(images, steps, generator)
        return torch.stack([below, annealer.backward(images, z, steps, generator)])


def _latents(request: LikelihoodRequest) -> StandardNormal:
    """What the model's latents are drawn from, with its density."""
    if request.prior is None:
        return NORMAL
    assert isinstance(request.prior.prior, HasDensity)
    return FromDensity(request.prior.prior.log_prob, request.prior.draw)


class KeptResults:
    """Results for these weights under this protocol, as JSON in a folder of the run's directory if there is one."""

    def __init__(
        self, request: LikelihoodRequest, card: dict[str, Any], folder: str = "ais"
    ) -> None:
        self.path: Path | None = None
        self.content: dict[str, Any] = {"protocol": card, "weights": weights_hash(request.model)}
        if request.directory is not None:
            self.path = request.directory / folder / f"{digest(self.content, 16)}.json"
            self.content = _read(self.path) or self.content

    def __contains__(self, name: str) -> bool:
        """Whether the result of a part is there."""
        return name in self.content

    def get(self, name: str, compute: Callable[[], Tensor | float]) -> Tensor:
        """The result of a part, computed and kept if it is not there: float64, on the CPU."""
        if name not in self.content:
            value = torch.as_tensor(compute()).double().cpu()
            self.content[name] = value.tolist()
            if self.path is not None:
                self.path.parent.mkdir(exist_ok=True)
                write_json(self.path, self.content)
        return torch.tensor(self.content[name], dtype=torch.float64)


def unit_means(model: GenerativeModel, levels: int) -> Decode:
    """Decoder from latents (B, d) to means (B, D) on the scale of dequantised pixels, in [0, 1].

    Level k of L covers [k / L, (k + 1) / L]; its mean is the middle.
    """

    def decode(z: Tensor) -> Tensor:
        return ((model.sample(z).float().flatten(1) + 1) / 2 * (levels - 1) + 0.5) / levels

    return decode


def _dequantised(data: ImageData, split: Split, block: range, generator: torch.Generator) -> Tensor:
    """Images `block` of the permuted split plus noise U(0, one level), scaled to [0, 1]: (N, D)."""
    numbers = chosen(data, split, block.stop)[block.start :]
    pixels = torch.from_numpy(data.pixels(split)[numbers]).flatten(1)
    return (pixels.float() + torch.rand(pixels.shape, generator=generator)) / data.levels


def _generator(seed: int, what: str) -> torch.Generator:
    """A generator for one part, so that its draws depend on no other part."""
    return torch.Generator().manual_seed(int(digest([seed, what], 15), 16))


def _blocks(count: int) -> list[range]:
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _read(path: Path) -> dict[str, Any] | None:
    """Kept results; None if there are none or the file is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is damaged and made anew: %s", path, error)
        return None
    return content


def _scores(found: Estimates, card: dict[str, Any]) -> list[Score]:
    """-log p(x), the gap and the variance, with bounds for the choice of images.

    The gap bounds another error, that of the chains: it is no part of the interval of -log p(x).
    """
    gap = found.gap
    status = "ok" if gap <= WIDEST_GAP else f"gap of {gap:.1f} nats: too wide to compare"
    if not math.isfinite(gap):
        status = "gap unknown: too wide to compare"
    return [
        _score("nll_ais", -found.test, "nats", False, card, OVER_IMAGES, status),
        _score("ais_gap", found.above - found.below, "nats", False, card, OVER_SIMULATED),
        _score("ais_variance", torch.tensor([found.variance], dtype=torch.float64), "", None, card),
    ]


def _score(
    name: str,
    values: Tensor,
    unit: str,
    better: bool | None,
    card: dict[str, Any],
    interval: str = "",
    status: str = "ok",
) -> Score:
    """Score of a mean over images, with bounds of 1.96 standard errors if there are several."""
    mean, card = float(values.mean()), {"quantity": name, **card}
    if not math.isfinite(mean):
        return Score(name, None, unit, better, card, status="nonfinite")
    if len(values) == 1:
        return Score(name, mean, unit, better, card, status=status)
    error = 1.96 * float(values.std()) / math.sqrt(len(values))
    low, high = mean - error, mean + error
    return Score(name, mean, unit, better, card, low, high, status=status, interval=interval)


def duration(seconds: float) -> str:
    """A duration in the largest unit of which there are two."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"

"""`inversion_psnr`: how near a decoder comes to held-out images when their latents are searched for.

For a model without an encoder, a GAN, and any other whose prior is N(0, I): gradient descent on the squared
error in pixels, from several latents (Creswell and Bharath 2018, https://arxiv.org/abs/1611.05644). What is
found so is no reconstruction by an encoder: it costs hundreds of decodings, and its latent may be one that
the prior never draws. It has a name of its own, and never shares a column with `psnr`.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genbench.data.cache import progress, say
from genbench.data.subsets import chosen, subset_card
from genbench.errors import UserMistake
from genbench.metrics.ais import KeptResults, duration
from genbench.metrics.contract import Estimate, Quantity
from genbench.metrics.feature_scores import NONFINITE, score_of
from genbench.metrics.likelihood import OVER_IMAGES, LikelihoodRequest
from genbench.models.batch_statistics import batch_norm_card
from genbench.models.contract import GenerativeModel
from genbench.models.reconstruction import psnr
from genbench.ranges import number, whole
from genbench.runs.score import Score, digest

log = logging.getLogger("genbench")
BLOCK = 16  # images that are searched for together; an interrupted run repeats at most one block

PSNR = Quantity("inversion_psnr", ("heldout",), True, "dB")
NORM = Quantity("inversion_norm", ("heldout",), None)  # |z| / sqrt(d): 1 for draws of N(0, I)

Decode = Callable[[Tensor], Tensor]


def invert(decode: Decode, images: Tensor, starts: Tensor, steps: int, rate: float) -> Tensor:
    """Latents (N, d) whose images are nearest to `images` (N, C, H, W), by mean squared error.

    Adam from each of `starts` (S, N, d), its rate falling to 0 by a cosine; of each image the best start
    counts. The decoder's parameters get no gradient, and no image depends on another.
    """
    count, tries = len(images), len(starts)
    target = images.repeat(tries, 1, 1, 1)
    z = starts.flatten(0, 1).clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.enable_grad():
            error = _errors(decode(z), target).sum()
        (z.grad,) = torch.autograd.grad(error, z)
        optimizer.step()
    with torch.no_grad():
        error = _errors(decode(z), target).view(tries, count).nan_to_num(nan=math.inf)
        return z.detach().view(tries, count, -1)[error.argmin(0), torch.arange(count)]


def _errors(images: Tensor, target: Tensor) -> Tensor:
    return (images - target).square().flatten(1).mean(1)


class Inversion:
    """Scores of `images` of the held-out split by the fixed permutation, from `starts` latents each."""

    def __init__(
        self, *, images: int = 32, starts: int = 4, steps: int = 300, learning_rate: float = 0.05
    ) -> None:
        for name, value in (("images", images), ("starts", starts), ("steps", steps)):
            whole(f"evaluation.inversion.{name}", value)
        number("evaluation.inversion.learning_rate", learning_rate, above=True)
        self.images, self.starts, self.steps = images, starts, steps
        self.learning_rate = learning_rate

    @classmethod
    def of(cls, setting: bool | Mapping[str, Any]) -> "Inversion | None":
        """What `evaluation.inversion` asks for: true, false, or {images: 64}. Raises UserMistake."""
        if isinstance(setting, bool):
            return cls() if setting else None
        try:
            return cls(**setting)
        except TypeError:
            raise UserMistake(
                f"evaluation.inversion={dict(setting) if isinstance(setting, Mapping) else setting}: write true, "
                "false, or some of {images: 32, starts: 4, steps: 300, learning_rate: 0.05}"
            ) from None

    def __call__(self, request: LikelihoodRequest) -> list[Score]:
        """Score a trained model whose prior is N(0, I); an empty list for others."""
        model = request.model
        if type(model).latents is not GenerativeModel.latents or not model.players():
            return []
        count = min(self.images, len(request.data.pixels(request.split)))
        card = {
            "heldout": subset_card(request.data, request.split, count),
            "inverted": {
                "starts": self.starts,
                "steps": self.steps,
                "optimizer": "Adam, betas 0.9 and 0.99, rate by a cosine to 0",
                "learning_rate": self.learning_rate,
                "error": "mean squared error of pixels",
                "seed": request.seed,
                "weights": request.weights,
                "version": 1,
            },
            **batch_norm_card(model),
        }
        found = self._found(request, count, card)
        return [_score(PSNR, found[0], card), _score(NORM, found[1], card)]

    def _found(self, request: LikelihoodRequest, count: int, card: dict[str, Any]) -> Tensor:
        """PSNR in dB and |z| / sqrt(d) of each image, (2, N); what an earlier call has kept is not repeated."""
        kept = KeptResults(request, card, "inversion")
        blocks = [range(s, min(s + BLOCK, count)) for s in range(0, count, BLOCK)]
        missing = [block for block in blocks if _name(block) not in kept]
        if missing:
            self._announce(request, missing, len(blocks))
        results = []
        with progress() as bar:
            work = bar.add_task("inversion", total=sum(map(len, missing)))
            for block in blocks:
                results.append(kept.get(_name(block), partial(self._block, request, block)))
                bar.advance(work, len(block) if block in missing else 0)
        return torch.cat(results, 1)

    def _block(self, request: LikelihoodRequest, block: range) -> Tensor:
        model, data = request.model, request.data
        originals, images, starts = self._begin(request, block)
        z = invert(model.sample, images, starts, self.steps, self.learning_rate)
        rebuilt = model.sample(z)
        if not bool(rebuilt.isfinite().all()):
            return torch.full((2, len(block)), math.nan)
        norms = z.double().square().mean(1).sqrt()
        return torch.stack([psnr(data.to_pixels(rebuilt), originals, data.levels), norms])

    def _begin(self, request: LikelihoodRequest, block: range) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels and images of a block, and where the search begins; of each image by its own generator."""
        data = request.data
        numbers = chosen(data, request.split, block.stop)[block.start :]
        originals = torch.from_numpy(data.pixels(request.split)[numbers]).to(request.device)
        starts = []
        for image in block:
            seed = int(digest(["inversion", request.seed, image], 15), 16)
            generator = torch.Generator().manual_seed(seed)
            starts.append(torch.randn(self.starts, request.model.latent_dim, generator=generator))
        return originals, data.to_images(originals), torch.stack(starts, 1).to(request.device)

    def _announce(self, request: LikelihoodRequest, missing: list[range], blocks: int) -> None:
        """Print what it will cost, timed on two steps of one block."""
        _, images, starts = self._begin(request, missing[0])
        invert(request.model.sample, images, starts, 1, self.learning_rate)  # warm-up
        began = time.perf_counter()
        invert(request.model.sample, images, starts, 2, self.learning_rate)
        seconds = (time.perf_counter() - began) / 2 * self.steps * len(missing)
        images_left = sum(map(len, missing))
        done = blocks - len(missing)
        line = (
            f"inversion: {images_left * self.starts * self.steps:,} decodings with gradient, about "
            f"{duration(seconds)} on {request.device}"
            + (f" ({done} of {blocks} parts are there already)" if done else "")
        )
        say(f"  {line}")
        log.info(line)


def _name(block: range) -> str:
    return f"images {block.start} to {block.stop}"


def _score(quantity: Quantity, values: Tensor, card: Mapping[str, Any]) -> Score:
    estimate = Estimate(None, status=NONFINITE)
    if bool(values.isfinite().all()):
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
        estimate = Estimate.within(float(values.mean()), error, OVER_IMAGES)
    return score_of(quantity.name, quantity, estimate, {"quantity": quantity.name, **card})

"""The images that a model generates for an evaluation: their features, their card, their speed."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.metrics.contract import Features
from genbench.metrics.feature_store import FeatureStore
from genbench.metrics.stopwatch import Stopwatch
from genbench.models.batch_statistics import batch_norm_card
from genbench.models.contract import DrawsPixels, GenerativeModel, HasLikelihood
from genbench.networks.conditional import given
from genbench.priors.fitting import FittedPrior
from genbench.runs.score import Score, digest

EDGE = 2**-25  # uniform noise stays this far from 0 and 1, where an inverse CDF is infinite


@dataclass(frozen=True)
class GeneratedSet:
    """`num_samples` images of a model, from latents that are drawn at once on the CPU by `seed`.

    `pixels` are the `mean` of p(x | z), or a `sample` of it. A model without a likelihood has one
    image for each latent, which is both.
    """

    num_samples: int
    seed: int
    pixels: str = "mean"

    def __post_init__(self) -> None:
        """Refuse other pixels. Raises UserMistake."""
        if self.pixels not in ("mean", "sample"):
            raise UserMistake(
                f"evaluation.pixels={self.pixels!r}: choose mean, the mean of p(x|z), or sample, a "
                "draw from it"
            )

    def card(
        self,
        model: GenerativeModel,
        data: ImageData,
        averaging: Mapping[str, Any] | None,
        prior: FittedPrior | None = None,
    ) -> dict[str, Any]:
        """What defines the set; `averaging` is the card of averaged weights, `prior` that of the latents."""
        norm = batch_norm_card(model)
        if prior is not None and norm:  # `recalibrated` draws from it
            norm["batch_norm"]["latents"] = prior.protocol["prior"]
        return {
            "dataset": data.name,
            "n": self.num_samples,
            "seed": self.seed,
            "latents": "prior" if prior is None else dict(prior.protocol),
            "pixels": self.pixels,
            "weights": "raw" if averaging is None else "ema",
            **({} if averaging is None else {"averaging": dict(averaging)}),
            **({} if model.condition is None else model.condition.card(self.seed)),
            "quantisation": {"round": "nearest", "levels": data.levels},
            **norm,
        }

    def features(
        self, model: GenerativeModel, data: ImageData, store: FeatureStore
    ) -> tuple[Features | None, float | None]:
        """Features of the images, in order, and images sampled per second.

        The features are None if an image is NaN or infinite. The speed is that of this process, and
        None if it has sampled nothing. Raises UserMistake for pixels that the model cannot draw.
        """
        parts = self._parts(model, store.batch_size)
        clock = _Clock(store.device, store.watch)
        finite = torch.ones((), dtype=torch.bool, device=store.device)

        def batches() -> Iterator[Tensor]:
            nonlocal finite
            for number in store.workers.own(len(parts)):
                part = [one.to(store.device) for one in parts[number]]
                first = number * len(parts[0][0])
                with clock.timing(len(part[0])):
                    images = self._images(model, data, first, *part)
                finite = finite & images.isfinite().all()  # read once: on a GPU reading waits
                yield data.to_pixels(images)

        own = store.extract(batches(), data.levels)
        clock.stop()
        if not finite:  # pixels are clamped, so that their features may be finite nevertheless
            own.features.fill_(math.nan)
        features = store.workers.gather("fake", own)
        every = bool(features.features.isfinite().all())
        return features if every else None, clock.images_per_second

    def images(self, model: GenerativeModel, data: ImageData, store: FeatureStore) -> Tensor | None:
        """The images as level indices (N, C, H, W) uint8 on the CPU; None if one is NaN or infinite."""
        found, first = [], 0
        for part in self._parts(model, store.batch_size):
            images = self._images(model, data, first, *(one.to(store.device) for one in part))
            if not bool(images.isfinite().all()):
                return None
            found.append(data.to_pixels(images).cpu())
            first += len(images)
        return torch.cat(found)

    def pixels_of(self, model: GenerativeModel, data: ImageData, numbers: Tensor) -> Tensor:
        """Some images of the set by their numbers: level indices (n, C, H, W) on the CPU.

        One at a time, as each has noise of its own.
        """
        (whole,) = self._parts(model, self.num_samples)
        images = [
            self._images(model, data, i, *(one[i : i + 1].to(model.device) for one in whole))
            for i in numbers.tolist()
        ]
        return data.to_pixels(torch.cat(images)).cpu()

    def _parts(self, model: GenerativeModel, size: int) -> list[tuple[Tensor, ...]]:
        """Latents, and labels where the model knows some, `size` at a time."""
        latents = model.latents(self.num_samples, torch.Generator().manual_seed(self.seed))
        together = (latents, *given(self.labels(model)))
        return [*zip(*(torch.split(one, size) for one in together), strict=True)]

    def labels(self, model: GenerativeModel) -> Tensor | None:
        """Labels of the images, drawn from those of the training split; None for a model that knows none."""
        condition = model.condition
        return None if condition is None else condition.draw(self.num_samples, self.seed)

    def _images(
        self, model: GenerativeModel, data: ImageData, first: int, z: Tensor, *labels: Tensor
    ) -> Tensor:
        """Images of latents, which are number `first` and following of the set."""
        if self.pixels == "mean" or not isinstance(model, DrawsPixels | HasLikelihood):
            return model.sample(z, *labels)
        if not isinstance(model, DrawsPixels):
            raise UserMistake(
                f"evaluation.pixels=sample: {type(model).__name__} has a likelihood but no method "
                "`draw` to draw images from it: add one, or score the means with evaluation.pixels=mean"
            )
        shape = (data.channels, data.image_size, data.image_size)
        noise = torch.stack([self._uniform(first + i, shape) for i in range(len(z))])
        return model.draw(z, noise.to(z.device), *labels)

    def _uniform(self, image: int, shape: tuple[int, ...]) -> Tensor:
        """Noise of one image, by a generator of its own: batches and processes do not change it."""
        generator = torch.Generator().manual_seed(int(digest(["pixels", self.seed, image], 15), 16))
        return torch.rand(shape, generator=generator).clamp(EDGE, 1 - 2 * EDGE)


def costs_of(prior: FittedPrior, fake: Mapping[str, Any]) -> list[Score]:
    """What a prior's fit cost: its parameters, and its seconds with those of the encoder."""
    parameters, seconds = float(prior.card["parameters"]), float(prior.card["seconds"])
    return [
        Score(name, value, unit, None, {"quantity": name, "fake": dict(fake)})
        for name, value, unit in (
            ("prior_parameters", parameters, ""),
            ("prior_seconds", seconds, "s"),
        )
    ]


class _Clock:
    """Times sampling without extraction; leaves out the first batch (warm-up) if there are more.

    On a GPU by its own events, so that the host need not wait for it.
    """

    def __init__(self, device: torch.device, watch: Stopwatch) -> None:
        self.device, self.watch = device, watch
        self.laps: list[tuple[int, Callable[[], float]]] = []  # images, and how long they took

    @contextmanager
    def timing(self, images: int) -> Iterator[None]:
        if self.device.type != "cuda":
            began = time.perf_counter()
            yield
            seconds = time.perf_counter() - began
            self.laps.append((images, lambda: seconds))
            return
        start, end = (self._event(), self._event())
        start.record()
        yield
        end.record()
        self.laps.append((images, lambda: start.elapsed_time(end) / 1000))

    def stop(self) -> None:
        """Tell the stopwatch, when the GPU has sampled everything."""
        self.watch.add("sample", sum(lap() for _, lap in self.laps))

    @staticmethod
    def _event() -> torch.cuda.Event:
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    @property
    def images_per_second(self) -> float | None:
        """Of the laps so far; on a GPU those must be over."""
        laps = self.laps[1:] or self.laps
        seconds = sum(lap() for _, lap in laps)
        return sum(images for images, _ in laps) / seconds if seconds else None

"""Features of generated images, and how fast these are generated."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.metrics.contract import Features
from genbench.metrics.feature_store import FeatureStore
from genbench.models.contract import GenerativeModel


def sampled_features(
    model: GenerativeModel, data: ImageData, store: FeatureStore, latents: Tensor
) -> tuple[Features | None, float | None]:
    """Features of the images of `latents` (N, ...), in order, and images sampled per second.

    The features are None if an image is NaN or infinite. The speed is that of this process, and None
    if it has sampled nothing.
    """
    parts = torch.split(latents, store.batch_size)
    clock = _Clock(store.device)
    finite = True

    def batches() -> Iterator[Tensor]:
        nonlocal finite
        for number in store.workers.own(len(parts)):
            z = parts[number]
            with clock.timing(len(z)):
                images = model.sample(z.to(store.device))
            finite = finite and bool(images.isfinite().all())
            yield data.to_pixels(images)

    own = store.extract(batches(), data.levels)
    if not finite:  # pixels are clamped, so that their features may be finite nevertheless
        own.features.fill_(math.nan)
    features = store.workers.gather("fake", own)
    every = bool(features.features.isfinite().all())
    return features if every else None, clock.images_per_second


class _Clock:
    """Times sampling without extraction; leaves out the first batch (warm-up) if there are more."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.laps = device, list[tuple[int, float]]()

    @contextmanager
    def timing(self, images: int) -> Iterator[None]:
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        self.laps.append((images, time.perf_counter() - began))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def images_per_second(self) -> float | None:
        laps = self.laps[1:] or self.laps
        seconds = sum(lap for _, lap in laps)
        return sum(images for images, _ in laps) / seconds if seconds else None

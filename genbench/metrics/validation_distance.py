"""The distance by which checkpoints are selected, and how a model is sampled and scored."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import torch

from genbench.data.contract import ImageData
from genbench.device import scoring_memory
from genbench.metrics.feature_store import FeatureStore
from genbench.metrics.feature_workers import ALONE, FeatureWorkers
from genbench.metrics.frechet import Moments, distance, moments
from genbench.metrics.sampling import GeneratedSet
from genbench.metrics.stopwatch import Stopwatch
from genbench.models.batch_statistics import recalibrated
from genbench.models.contract import GenerativeModel
from genbench.models.undisturbed import undisturbed
from genbench.runs.score import digest


class Sampling(Protocol):
    """What is asked of an evaluation."""

    batch_size: int
    generated: GeneratedSet

    def check_seed(self, seed: int) -> None:
        """Raise UserMistake for a seed whose latents are scored."""

    def store(
        self, device: torch.device, workers: FeatureWorkers, watch: Stopwatch | None = None
    ) -> FeatureStore:
        """Features of images on a device."""


class ValidationDistance:
    """Frechet distance to the validation split, for model selection.

    Independent of everything that is reported: neither the test images nor the latents of
    `evaluation.seed` are used.
    """

    def __init__(self, evaluation: Sampling) -> None:
        self.evaluation = evaluation
        self.seconds = 0.0  # spent so far, while the model was trained
        self._real: tuple[str, Moments] | None = None  # of validation images, by their card

    def __call__(
        self, data: ImageData, model: GenerativeModel, num_samples: int, seed: int
    ) -> float | None:
        """The distance of `num_samples` images; None if one is NaN. Raises UserMistake for a scored seed."""
        protocol = self.evaluation
        protocol.check_seed(seed)
        began = time.perf_counter()
        with scoring(model, model.device, seed, protocol.batch_size):
            store = protocol.store(model.device, ALONE, Stopwatch())
            real, _ = store.of(data, "validation")
            samples = replace(protocol.generated, num_samples=num_samples, seed=seed)
            fake, _ = samples.features(model, data, store)
            if fake is None:
                return None
            place = model.device  # 2 048 features take 2 s on a CPU
            key = digest(data.card("validation"))
            if self._real is None or self._real[0] != key:
                self._real = key, moments(real.features.to(place))
            value = distance(self._real[1], moments(fake.features.to(place)))
        self.seconds += time.perf_counter() - began
        return value


@contextmanager
def scoring(
    model: GenerativeModel, device: torch.device, seed: int, batch_size: int
) -> Iterator[None]:
    """How a model is sampled and scored; its mode and all random states are restored."""
    with scoring_memory(batch_size), undisturbed(model, device, seed), recalibrated(model):
        yield

"""Warns of a training that goes on and leads nowhere, once per cause, with what to try.

- *All samples alike*: between the images of the sample grid there is less than a twentieth of the
  variance that there is between real ones, on two grids in a row or on the final one.
- *Symptoms of the model's own* (see the contract): a tracked mean stays below a value for a tenth of
  the budget. The first tenth of the budget is left out.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.models.symptoms import Symptom

ALIKE = 0.05  # variance between samples over that between real images
LONG = 0.1  # share of the budget
REAL = 512  # validation images, to know the data's variance
log = logging.getLogger("genbench")


def variance(images: Tensor) -> float:
    """Mean over pixels of the variance between images (N, C, H, W)."""
    return float(images.float().var(dim=0).mean())


class Alarms:
    """Warnings given so far, by cause; `say` is called with each new one."""

    def __init__(
        self, data: ImageData, total_images: int, say: Callable[[str], None] = log.warning
    ) -> None:
        self.data, self.total_images, self.say = data, total_images, say
        self.warnings: dict[str, str] = {}
        self._since: dict[str, int] = {}  # `images_shown` when a condition began to hold
        self._alike_before = False
        self._real: float | None = None

    def warn(self, cause: str, sentence: str) -> None:
        """Give a warning, once per cause."""
        if cause not in self.warnings:
            self.warnings[cause] = sentence
            self.say(f"warning: {sentence}")

    def look_at_samples(self, samples: Tensor, images: int) -> None:
        """Check a sample grid drawn after `images` images; an untrained model is not judged."""
        if not images:
            return
        if self._real is None:
            real = torch.as_tensor(self.data.pixels("validation")[:REAL].copy())
            self._real = variance(self.data.to_images(real))
        alike = variance(samples) < ALIKE * self._real
        if alike and (self._alike_before or images >= self.total_images):
            self.warn(
                "samples",
                f"all samples are alike after {images:,} images: the decoder has collapsed. Try a "
                "lower learning rate, a stronger penalty on the discriminator (model.r1_gamma), or "
                "for a VAE a smaller model.beta; after few images, a larger budget",
            )
        self._alike_before = alike

    def look_at_means(
        self, symptoms: Sequence[Symptom], means: Mapping[str, float], images: int
    ) -> None:
        """Check a row of the history, at `images` images, for the model's own symptoms."""
        for symptom in symptoms:
            low = means.get(symptom.tracked, math.inf) < symptom.below
            lasts = self._lasts(symptom.cause, low, images)
            if lasts and (images >= self.total_images or not symptom.at_end):
                self.warn(symptom.cause, symptom.warning.format(images=f"{images:,}"))

    def _lasts(self, cause: str, holds: bool, images: int) -> bool:
        """Whether a condition has held for a tenth of the budget, the first tenth left out."""
        if not holds or images < LONG * self.total_images:
            self._since.pop(cause, None)
            return False
        return images - self._since.setdefault(cause, images) >= LONG * self.total_images

    def state_dict(self) -> dict[str, Any]:
        """Warnings and conditions so far."""
        return {"warnings": self.warnings, "since": self._since, "alike": self._alike_before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.warnings, self._since = dict(state["warnings"]), dict(state["since"])
        self._alike_before = state["alike"]

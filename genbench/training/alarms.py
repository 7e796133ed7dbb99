"""Warns of a training that goes on and leads nowhere, once per cause, with what to try.

- *All samples alike*: between the images of the sample grid there is less than a twentieth of the
  variance that there is between real ones, on two grids in a row or on the final one.
- *Reconstructions know nothing of their images*, by the final weights: the squared distance to its own
  image is on average less than a fifth smaller than that to any image (`nearness`). It is measured in
  pixels, and is 0 for a decoder that does not use its latents, whatever it shows: the mean image, grey,
  or sharp images of something else. It has no unit, so that it means the same for 64 pixels and for
  3072, where a rate in nats does not. The warning says how many latents are active and what they carry:
  nothing where the encoder is dead, much where the decoder does not heed it.
- *Samples of other classes*: half of them or more would have to change their class, as the extractor's
  classifier reads it, for the classes to be as frequent as among training images (`class_tv`). Such samples differ, and are
  a few of many digits.
- *Symptoms of the model's own* (see the contract): a tracked mean stays below a value for a tenth of
  the budget. The first tenth of the budget is left out.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen
from genbench.models.condition import labels_of
from genbench.models.contract import GenerativeModel, HasPosterior, Reconstructs
from genbench.models.drawing import evaluating
from genbench.models.surgery import in_words
from genbench.models.symptoms import Symptom
from genbench.runs.priors import prior_of
from genbench.runs.score import Score

ALIKE = 0.05  # variance between samples over that between real images
NEARER = 0.2  # least `nearness` of reconstructions
OTHER_CLASSES = 0.5  # total variation of the samples' classes to those of training images
LONG = 0.1  # share of the budget
REAL, AT_ONCE = 512, 64  # validation images, and how many of them are reconstructed together
log = logging.getLogger("genbench")


def variance(images: Tensor) -> float:
    """Mean over pixels of the variance between images (N, C, H, W)."""
    return float(images.float().var(dim=0).mean())


def nearness(images: Tensor, reconstructions: Tensor) -> float:
    """1 - E |x_i - r_i|^2 / E |x_i - r_j|^2 over all i and j, for images and reconstructions (N, C, H, W).

    1 for perfect reconstructions, 0 for such as do not depend on the image; NaN where all are alike.
    """
    real, rebuilt = images.float(), reconstructions.float()
    own = (real - rebuilt).square().mean()
    spread = real.var(dim=0, correction=0) + rebuilt.var(dim=0, correction=0)
    any_other = (spread + (real.mean(0) - rebuilt.mean(0)).square()).mean()
    return float(torch.where(any_other > 0, 1 - own / any_other, math.nan))


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
            self._real = variance(self._real_images())
        alike = variance(samples) < ALIKE * self._real
        if alike and (self._alike_before or images >= self.total_images):
            self.warn(
                "samples",
                f"all samples are alike after {images:,} images: the decoder has collapsed. Try a "
                "lower learning rate, a stronger penalty on the discriminator (model.r1_gamma), or "
                "for a VAE a smaller model.beta; after few images, a larger budget",
            )
        self._alike_before = alike

    def look_at_reconstructions(self, model: GenerativeModel, images: int) -> None:
        """Check what the final weights, after `images` images, make of validation images."""
        if not images or images < self.total_images or not isinstance(model, Reconstructs):
            return
        real, labels = self._real_images(), self._real_labels(model)
        with evaluating(model):
            parts = zip(*(torch.split(one, AT_ONCE) for one in (real, *labels)), strict=True)
            moved = ([one.to(model.device) for one in part] for part in parts)
            rebuilt = torch.cat([model.reconstruct(*part).cpu() for part in moved])
        near = nearness(real, rebuilt)
        if near < NEARER:
            carried = self._carried(model, real, *labels)
            self.warn(
                "reconstructions",
                f"reconstructions of {len(real)} validation images are {round(100 * near)}% nearer to "
                "their own image than to any, in squared distance of pixels: the encoder is dead, or the "
                f"decoder does not heed it{carried}. Look at the reconstructions; try a smaller model.beta for a "
                "VAE, a larger model.gamma for a VAE-GAN, a lower learning rate, or a larger budget",
            )

    def look_at_scores(self, scores: Iterable[Score], images: int) -> None:
        """Check the classes of the final weights' samples after `images` images, under the prior of training."""
        for score in scores:
            drawn = score.card.get("fake", {})
            final = (
                score.checkpoint == "final"
                and drawn.get("weights") == "raw"
                and not prior_of(score)
            )
            far = score.quantity == "class_tv" and (score.value or 0) >= OTHER_CLASSES
            if images and final and far:
                self.warn(
                    "classes",
                    f"{score.value:.0%} of the samples would have to be of other classes for these to be as frequent "
                    "as among training images: modes are missing, or most samples are like nothing. Look at them; try "
                    "a stronger penalty on the discriminator (model.r1_gamma), a lower learning rate, or a larger budget",
                )

    def _carried(self, model: GenerativeModel, images: Tensor, *labels: Tensor) -> str:
        """Which of the two it is: what the posteriors of these images say; empty for a model without."""
        if not isinstance(model, HasPosterior):
            return ""
        with evaluating(model):
            words = in_words(model, images.to(model.device), AT_ONCE, *labels)
        return f" ({words})" if words else ""

    def _real_images(self) -> Tensor:
        numbers = chosen(self.data, "validation", REAL)
        return self.data.to_images(torch.as_tensor(self.data.pixels("validation")[numbers]))

    def _real_labels(self, model: GenerativeModel) -> tuple[Tensor, ...]:
        numbers = chosen(self.data, "validation", REAL)
        return labels_of(model.condition, self.data, "validation", numbers, model.device)

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

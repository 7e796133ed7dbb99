"""An exponential moving average of the decoder, on the clock of images.

Karras et al. 2018, https://arxiv.org/abs/1710.10196. The half-life grows with the run up to the
configured one, so that a short run is not averaged with its initial weights (`ema_rampup` of Karras
et al. 2020; the burn-in of R3GAN, Huang et al. 2024).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from genbench.errors import UserMistake
from genbench.losses.ramp import Cosine
from genbench.models.contract import GenerativeModel
from genbench.runs.budget import parse_images
from genbench.training.module import Training


class Averaging(Callback):
    """Keeps averaged weights of the decoder; within `applied` the model decodes with them.

    `half_life` is in images, `ramp` the largest half-life as a share of the images so far. With `burn_in`, a
    share of the budget, it grows over that from 0 along half a cosine, and `ramp` is not heeded.
    """

    def __init__(
        self, half_life: str | int, ramp: float = 0.05, burn_in: float | None = None
    ) -> None:
        self.half_life, self.ramp = parse_images(half_life), ramp
        self.growth = Cosine(0.0, self.half_life, burn_in) if burn_in is not None else None
        if self.half_life <= 0 or ramp <= 0:
            raise UserMistake(
                f"ema.half_life={half_life}, ema.ramp={ramp}: both must be above 0; ema=none is none at all"
            )
        self.average: nn.Module | None = None
        self._loaded: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the current weights, or from the checkpoint's average."""
        self.begin(cast(Training, pl_module))

    def begin(self, run: Training) -> None:
        """Average the decoder of a run after every step from now on."""
        self.average = copy.deepcopy(run.model.decoder).requires_grad_(False)
        if self._loaded is not None:
            self.average.load_state_dict(self._loaded)
        self.average.to(run.device)
        run.after_step.append(self.update)

    @torch.no_grad()
    def update(self, run: Training) -> None:
        """Move the average towards the weights after a step."""
        assert self.average is not None
        half_life = min(self.half_life, self.ramp * run.images_shown)
        if self.growth is not None:
            half_life = self.growth.at(run.images_shown / run.pace.total)
        keep = 0.5 ** (run.pace.batch_size / max(half_life, 1e-9))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(run.model.decoder.parameters()), 1 - keep
        )
        for own, new in zip(self.average.buffers(), run.model.decoder.buffers(), strict=True):
            own.copy_(new)

    @contextmanager
    def applied(self, model: GenerativeModel) -> Iterator[None]:
        """Decode with the averaged weights."""
        assert self.average is not None
        raw, model.decoder = model.decoder, self.average.to(model.device)
        try:
            yield
        finally:
            model.decoder = raw

    def card(self) -> dict[str, Any]:
        """What defines the averaged weights."""
        return {
            "half_life": self.half_life,
            **({"ramp": self.ramp} if self.growth is None else {"burn_in": self.growth.share}),
            "recalibration_batches": 32,  # what all cards of averages have; see `batch_norm` there
        }

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        if self.average is None:
            return {}
        return {"average": self.average.state_dict(), "card": self.card()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them when the fit starts."""
        self._loaded = state_dict.get("average")

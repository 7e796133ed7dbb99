"""A run on disk as an object: its record at once, its model when it is first needed."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.errors import UserMistake
from genbench.library.cards import run_card
from genbench.library.frames import History, Scores
from genbench.runs import trust
from genbench.runs.result import Result, read_result
from genbench.runs.status import Status, read_status

if TYPE_CHECKING:  # torch and numpy are imported where a model is needed
    import numpy as np
    from numpy.typing import NDArray

    from genbench.library.pictures import Pictures
    from genbench.library.weights import Weights
    from genbench.models.contract import GenerativeModel
    from genbench.runs.per_image import ImageValues

SEED = 2_718  # of the latents that `genbench sample` draws; models.drawing has it, with torch


class Run:
    """A run: `path` is its directory. What is on disk is read when it is first asked for, and kept.

    `trusted` lets a run from elsewhere name code of others (`--trust` of the command line), `weights` is
    `raw` or `ema`, `device` is `cpu`, `cuda` or None for a GPU if there is one.
    """

    def __init__(
        self, path: Path, *, trusted: bool = False, weights: str = "raw", device: str | None = None
    ) -> None:
        self.path = Path(path)
        self._trusted, self._weights_kind, self._device = trusted, weights, device

    # --- what is on disk ------------------------------------------------------------------------
    @property
    def id(self) -> str:
        """The name of its directory."""
        return self.path.resolve().name

    @cached_property
    def result(self) -> Result:
        """The record: seed, fingerprint, budget, cost, environment and more. UserMistake if it is damaged."""
        return read_result(self.path)

    @property
    def status(self) -> Status:
        """Whether it is running, how far it is, or how it ended; read anew at every use."""
        return read_status(self.path)

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config, as plain values."""
        return self.result.config

    @property
    def scores(self) -> Scores:
        """Its scores with those of later evaluations, as a list; `.frame()` for pandas."""
        return Scores(self.result.scores)

    @property
    def per_image(self) -> Mapping[str, "ImageValues"]:
        """By name of the score, what it is the mean of: `.values` (N,) of the images with the numbers `.images`.

        Of several evaluations the newest one of the final weights. Empty for runs of earlier versions.
        """
        from genbench.runs.per_image import read_per_image

        return {one.name: one for one in read_per_image(self.path)}

    @cached_property
    def history(self) -> History:
        """Its curves: name -> points (images, value); `.frame()` for pandas."""
        return History.of(self.path)

    def refresh(self) -> "Run":
        """The run with everything to be read again, its weights too."""
        return Run(
            self.path, trusted=self._trusted, weights=self._weights_kind, device=self._device
        )

    # --- its model ------------------------------------------------------------------------------
    @cached_property
    def _weights(self) -> "Weights":
        from genbench.library.weights import Weights

        trust.admitted(self.path, self._trusted)
        return Weights(self.path, weights=self._weights_kind, device=self._device)

    @property
    def model(self) -> "GenerativeModel":
        """The trained model, a torch module in eval mode, built without reading the dataset.

        UserMistake without a final checkpoint, and for a run from elsewhere that names code of others.
        """
        return self._weights.model

    def sample(
        self,
        num: int = 64,
        seed: int = SEED,
        label: str | int | Mapping[str, int] | None = None,
    ) -> "Pictures":
        """Draw images: uint8 (num, H, W, C), with `.grid()`; what `genbench sample --num --seed` writes.

        Of a model that was told labels, `label` is a class by its name or index, or attributes with 0 or 1
        each; None draws labels of training images. UserMistake for a label that is not known.
        """
        return self._weights.sample(num, seed, label)

    def interpolate(self, rows: int = 8, columns: int = 8, seed: int = SEED) -> "Pictures":
        """Draw uint8 images (rows * columns, H, W, C): each row goes from one latent to another by slerp."""
        return self._weights.interpolate(rows, columns, seed)

    def encode(self, images: Any) -> "NDArray[np.float32]":
        """The posterior means (N, latent_dim) of uint8 images (N, H, W, C); UserMistake if it has none."""
        return self._weights.encode(images)

    def reconstruct(self, images: Any) -> "Pictures":
        """Encode uint8 images (N, H, W, C) and decode their means; UserMistake without an encoder."""
        return self._weights.reconstruct(images)

    # --- how it is shown ------------------------------------------------------------------------
    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.path.resolve() == other.path.resolve()

    def __hash__(self) -> int:
        return hash(self.path.resolve())

    def _repr_html_(self) -> str:
        try:
            return run_card(self.path, self.result, self.status)
        except UserMistake as error:
            return run_card(self.path, None, self.status, str(error))

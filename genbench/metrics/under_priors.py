"""What a trained model gives under fitted priors: the fits, and the scores of their samples."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.data.contract import ImageData
from genbench.errors import Notice
from genbench.metrics.evaluation import Evaluation
from genbench.models.contract import GenerativeModel, draws_standard_normal
from genbench.priors.contract import CannotBeFitted, Prior
from genbench.priors.fitting import FittedPrior, kept_or_fitted
from genbench.runs.score import Score


def said_of(priors: Sequence[Prior], model: GenerativeModel) -> str:
    """Under what a run is scored, before it is trained."""
    own = "N(0, I)" if draws_standard_normal(model) else "the model's own prior"
    kinds = ", ".join(dict.fromkeys(prior.kind for prior in priors))
    return f"scored under {own} and {kinds}; pictures while training are of {own}"


def fits(
    evaluation: Evaluation,
    priors: Sequence[Prior],
    model: GenerativeModel,
    data: ImageData,
    run: Path,
) -> list[FittedPrior]:
    """Fit priors to the model's raw weights, or read what `run` keeps of them.

    A prior that cannot be fitted to the codes is left out, with a notice: the run has its other scores.
    """
    found = []
    for prior in priors:
        try:
            with evaluation.watch.timing("prior_fit"):
                found.append(kept_or_fitted(prior, model, data, run))
        except CannotBeFitted as error:
            warnings.warn(f"no scores under it: {error}", Notice, stacklevel=2)
    return found


def scores_under(
    evaluation: Evaluation,
    fitted: Sequence[FittedPrior],
    model: GenerativeModel,
    data: ImageData,
    run: Path | None,
    averaging: Mapping[str, Any] | None = None,
    protocol: Path | None = None,
) -> list[Score]:
    """Scores of samples under each prior; for the other arguments see `Evaluation`.

    Averaged weights of a decoder go with the priors of the raw encoder: it was not averaged.
    """
    scores: list[Score] = []
    for prior in fitted:
        scores += evaluation(model, data, model.device, run, averaging, protocol, prior)
    return scores

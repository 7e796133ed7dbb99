"""The prior that the latents of a score were drawn from, in words. Imports no torch.

The card of a score whose latents are drawn as in training has `fake.latents: prior`. Under another prior
it has there a mapping, which names its kind and what defines it; the card of a likelihood has it as `prior`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from genbench.runs.score import Score, digest

# settings that the name of a prior tells, where they have a value; of other kinds of prior none
TOLD = {"mixture": ("components",), "truncated": ("scale", "threshold")}


ALONE = "under_priors_alone"  # of the file of a protocol: leave out what is drawn as in training


def prior_of(score: Score) -> Mapping[str, Any] | None:
    """What defines the prior of a score's latents; None for those that a model draws in training."""
    card = score.card
    latents = card.get("prior", card.get("fake", {}).get("latents"))
    return latents if isinstance(latents, Mapping) else None


def prior_label(prior: Mapping[str, Any]) -> str:
    """Name a prior: `mixture prior`, `truncated prior (scale=0.7)`."""
    told = _told(prior)
    settings = ", ".join(f"{name}={value}" for name, value in told.items())
    return f"{prior['prior']} prior" + (f" ({settings})" if settings else "")


def prior_labels(priors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name several priors, those of one name by a hash too."""
    names = [prior_label(prior) for prior in priors]
    return [
        name if names.count(name) == 1 else f"{name} [{digest(prior, 6)}]"
        for name, prior in zip(names, priors, strict=True)
    ]


def slug(prior: Mapping[str, Any]) -> str:
    """Name a prior in file names and in keys of scores: `mixture`, `truncated-scale-0.7`."""
    words = [str(prior["prior"]), *(f"{name}-{value}" for name, value in _told(prior).items())]
    return re.sub(r"[^\w.-]+", "-", "-".join(words))


def grid_name(prior: Mapping[str, Any]) -> str:
    """File name of the samples of the final weights under a prior, in a run's folder samples/."""
    return f"under-{slug(prior)}-{digest(prior, 8)}.png"


def score_address(score: Score) -> str:
    """Key of a score among those of its run: `final/fd_x`, under another prior `final/fd_x@mixture`."""
    prior = prior_of(score)
    tail = f"@{slug(prior)}" if prior else ""
    return f"{score.checkpoint}/{score.name}{tail}"


def as_in_training(score: Score) -> Score:
    """The score with the card that it would have, had its latents been drawn as in training.

    So it stands in one column with the scores that were; its row says which prior it has.
    """
    if "fake" not in score.card:  # a likelihood
        return replace(score, card={k: v for k, v in score.card.items() if k != "prior"})
    fake = {**score.card["fake"], "latents": "prior"}
    if "batch_norm" in fake:
        fake["batch_norm"] = {k: v for k, v in fake["batch_norm"].items() if k != "latents"}
    return replace(score, card={**score.card, "fake": fake})


def _told(prior: Mapping[str, Any]) -> dict[str, Any]:
    settings = prior.get("settings", {})
    named = {name: settings.get(name) for name in TOLD.get(str(prior["prior"]), ())}
    return {name: v for name, v in named.items() if v is not None and not isinstance(v, list)}

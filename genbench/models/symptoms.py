"""Signs by which a failing training is known; those that several models share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from genbench.losses.adversarial import AdversarialLoss

WON = 0.02  # discriminator's loss over that at logits of 0
ONE_BIT = math.log(2)  # nats


class Symptom(NamedTuple):
    """A sign of a training that leads nowhere: a tracked mean below a value for a tenth of the budget.

    `warning` says what it means and what to try; `{images}` in it stands for the images so far (steps x batch).
    """

    cause: str  # names it in the record
    tracked: str  # the name under which the model tracks the value
    below: float
    warning: str
    at_end: bool = False  # only the last tenth of the budget counts


def discriminator_has_won(loss: AdversarialLoss, tracked: str) -> Sequence[Symptom]:
    """The discriminator's loss is below a fiftieth of what it is at logits of 0.

    Of a loss that is 0 there, Wasserstein's, nothing can be said so.
    """
    guessing = float(loss.discriminator(torch.zeros(1), torch.zeros(1)))
    if guessing <= 0:
        return ()
    return (
        Symptom(
            "discriminator",
            tracked,
            WON * guessing,
            "the discriminator tells all fakes for a tenth of the budget, until {images} images: its "
            "loss is below a fiftieth of one that guesses, and the decoder learns little. Try a "
            "stronger penalty on it (model.r1_gamma) or a lower learning rate",
        ),
    )


def latents_are_not_used(tracked: str) -> Sequence[Symptom]:
    """The rate of an encoder is below one bit per image at the end.

    Not before: a low rate is how these models begin.
    """
    return (
        Symptom(
            "rate",
            tracked,
            ONE_BIT,
            "the latents carry less than one bit per image over the last tenth of the budget: the "
            "posterior has collapsed onto the prior. Try a smaller model.beta, a lower learning rate, "
            "or a larger budget",
            at_end=True,
        ),
    )

"""What is refused before training."""

from functools import partial

import pytest
import torch

from genbench.errors import UserMistake
from genbench.losses.adversarial import NonSaturating
from genbench.models.gan import GAN
from genbench.networks.conv import ConvDecoder, ConvTrunk
from genbench.networks.heads import Discriminator
from genbench.networks.resnet import ResnetDecoder, ResnetTrunk
from genbench.training.checks import check_parts, check_penalty, check_ranks


def make(trunk_norm, **penalties):
    adam = partial(torch.optim.Adam, lr=1e-3)
    return GAN(
        ConvDecoder(16, 1, 4, 4, "batch"), Discriminator(ConvTrunk(16, 1, 4, trunk_norm)),
        NonSaturating(), 4, 1, penalties.get("r1", 0.0), penalties.get("gp", 0.0), adam, adam,
    )  # fmt: skip


@pytest.mark.parametrize("penalty", ["r1", "gp"])
def test_a_gradient_penalty_on_a_discriminator_with_batch_norm_is_refused(penalty):
    with pytest.raises(UserMistake, match="discriminator normalises over its batch.*trunk_norm"):
        check_penalty(make("batch", **{penalty: 1.0}))
    check_penalty(make("batch"))
    for norm in ("group", "none"):  # the decoder has BatchNorm, and may
        check_penalty(make(norm, **{penalty: 1.0}))


def test_what_is_refused_would_not_be_a_gradient_of_each_image():
    """The logit of one image moves with the pixels of another."""
    torch.manual_seed(0)
    for norm, leaks in (("batch", True), ("group", False), ("none", False)):
        images = torch.rand(4, 1, 16, 16, requires_grad=True)
        discriminator = make(norm).discriminator.train()
        (gradient,) = torch.autograd.grad(discriminator(images)[0], images)
        assert bool(gradient[1:].abs().max() > 1e-9) == leaks


def residual(trunk_norm, r1=0.0):
    adam = partial(torch.optim.Adam, lr=1e-3)
    critic = Discriminator(ResnetTrunk(32, 1, 2, trunk_norm))
    return GAN(ResnetDecoder(32, 1, 4, 2), critic, NonSaturating(), 4, 1, r1, 0.0, adam, adam)


def test_a_gradient_penalty_beside_spectral_norm_is_refused():
    with pytest.raises(UserMistake, match="discriminator has spectral norm.*r1_gamma.*trunk_norm"):
        check_penalty(residual("spectral", r1=1.0))
    check_penalty(residual("spectral"))
    check_penalty(residual("group", r1=1.0))


def test_spectral_norm_is_refused_in_parts_and_not_over_ranks():
    """Parts take more forwards, and each moves the power iteration; ranks take as many as one."""
    with pytest.raises(UserMistake, match="discriminator has spectral norm.*trainer.accumulate"):
        check_parts(residual("spectral"))
    check_parts(residual("group"))
    check_ranks(residual("spectral"))

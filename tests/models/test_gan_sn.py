"""Spectral norm in all of a discriminator's layers."""

import pytest
import torch
from torch import nn

from fixtures.rows import build, images_for
from genbench.errors import UserMistake
from genbench.networks.conv import ConvTrunk
from genbench.networks.heads import SpectralDiscriminator
from genbench.networks.resnet import ResnetTrunk
from genbench.training.checks import check_parts, check_penalty


def trunks():
    return {
        "conv": lambda: ConvTrunk(8, 1, 4, "none"),
        "normed already": lambda: ResnetTrunk(32, 1, 4, "spectral"),
    }


@pytest.mark.parametrize("make", trunks().values(), ids=trunks())
def test_the_largest_singular_value_of_every_layer_comes_to_1(make):
    torch.manual_seed(0)
    discriminator = SpectralDiscriminator(make()).train()
    size = 32 if isinstance(discriminator.trunk, ResnetTrunk) else 8
    for _ in range(200):  # a power iteration in each
        discriminator(torch.randn(2, 1, size, size))
    discriminator.eval()
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert discriminator.head in layers
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(
            1, abs=0.01
        )
        assert len(layer.parametrizations.weight) == 1


def test_a_power_iteration_is_that_of_torch():
    """Of one layer, against the plain iteration from the same vectors."""
    torch.manual_seed(0)
    layer = build("gan-sn").discriminator.trunk.stages[0][0]
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    u, v = norm._u.clone(), norm._v.clone()
    normed = layer.weight.detach()  # in training: one iteration
    u = nn.functional.normalize(weight @ v, dim=0)
    v = nn.functional.normalize(weight.T @ u, dim=0)
    torch.testing.assert_close(normed, (weight / (u @ weight @ v)).detach())


def test_the_row_has_no_penalty_and_takes_its_batch_whole():
    model = build("gan-sn")
    check_penalty(model)
    assert (model.discriminator_steps, model.r1_gamma) == (5, 0)
    with pytest.raises(UserMistake, match="spectral norm"):
        check_parts(model)
    with pytest.raises(UserMistake, match="spectral norm, which bounds its gradient"):
        check_penalty(build("gan-sn", "model.r1_gamma=1"))
    assert all(torch.isfinite(move.loss()) for move in model.step(images_for(model)))

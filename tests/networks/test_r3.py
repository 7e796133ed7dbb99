"""The grouped residual networks of R3GAN."""

import math

import pytest
import torch

from genbench.errors import UserMistake
from genbench.networks.heads import Discriminator, GaussianEncoder
from genbench.networks.r3 import Block, Doubled, Halved, R3Decoder, R3Trunk


@pytest.mark.parametrize(("size", "stages"), [(8, 2), (28, 3), (32, 4), (45, 4), (64, 5)])
def test_both_make_and_take_images_of_any_size(size, stages):
    torch.manual_seed(0)
    decoder, trunk = R3Decoder(size, 3, 5, 8, 1, 4), R3Trunk(size, 3, 8, 1, 4)
    images = decoder(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert len(trunk.features(images)) == stages
    assert trunk(images).shape == (2, trunk.feature_dim)
    assert torch.equal(trunk.features(images)[-1], trunk(images))
    assert Discriminator(trunk)(images).shape == (2,)
    assert [part.shape for part in GaussianEncoder(trunk, 5)(images)] == [(2, 5)] * 2


def test_what_makes_no_network_is_refused():
    for size in (7, 257):
        with pytest.raises(UserMistake, match=f"8 to 256 pixels a side, not {size}"):
            R3Trunk(size, 1, 4, 1, 4)
    with pytest.raises(UserMistake, match="network.blocks=0"):
        R3Decoder(8, 1, 4, 4, 0, 4)


def test_a_block_begins_as_the_identity_and_keeps_the_variance_inside():
    torch.manual_seed(0)
    block, hidden = Block(64, 16, depth=16), torch.randn(8, 64, 16, 16)
    assert torch.equal(block(hidden), hidden)
    first, _, second, _, last = block.branch
    assert second.groups == 128 // 16
    assert not last.weight.any()
    gain = math.sqrt(2 / 1.04) * 16 ** (
        -1 / 4
    )  # two such layers: variance times 2 / sqrt(depth) each
    for layer in (first, second):
        inputs = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(inputs), rel=0.05)


def test_a_blocks_parameters_are_counted_by_hand():
    inner = 2 * 64
    expected = 64 * inner + inner * 16 * 9 + inner * 64 + 2 * inner
    assert sum(p.numel() for p in Block(64, 16, 4).parameters()) == expected


def test_halving_and_doubling_are_those_of_the_filter():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    half = Halved()(ramp)
    assert half.shape == (1, 1, 4, 4)
    torch.testing.assert_close(half[0, 0, 1, 1:], torch.tensor([2.0, 4.0, 6.0]))  # inside
    twice = Doubled(7)(half)
    assert twice.shape == (1, 1, 7, 7)
    torch.testing.assert_close(twice[0, 0, 2, 2:6], torch.tensor([2.0, 3.0, 4.0, 5.0]))
    torch.testing.assert_close(
        Doubled(8)(torch.ones(1, 2, 4, 4))[..., :7, :7], torch.ones(1, 2, 7, 7)
    )


def test_a_penalty_can_be_differentiated_again():
    torch.manual_seed(0)
    trunk = Discriminator(R3Trunk(16, 1, 4, 1, 4))
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(trunk(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in trunk.trunk.begin.parameters()
    )


def test_the_latent_0_can_be_decoded_to_any_image_of_the_first_stage():
    decoder = R3Decoder(8, 1, 4, 4, 1, 4)
    with torch.no_grad():
        decoder.position_bias.normal_()
    begun = []
    decoder.stages[0].register_forward_pre_hook(lambda module, inputs: begun.append(inputs[0]))
    decoder(torch.zeros(1, 4))
    assert torch.equal(begun[0][0], decoder.position_bias)

"""The arena: every size works, and its parts have the sizes of the published networks."""

import pytest
import torch

from genbench.errors import UserMistake
from genbench.networks.conv import ConvDecoder, ConvTrunk, plan
from genbench.networks.heads import Discriminator, GaussianEncoder
from genbench.networks.mlp import MLPDecoder, MLPTrunk


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 9, 16, 28, 31, 32, 45, 64, 96, 127, 128])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_conv_decoder_and_trunk_fit_every_size(size, channels, norm):
    decoder = ConvDecoder(size, channels, latent_dim=4, width=4, norm=norm)
    trunk = ConvTrunk(size, channels, width=4, norm=norm)
    images = decoder(torch.randn(2, 4))
    assert images.shape == (2, channels, size, size)
    assert trunk(images).shape == (2, trunk.feature_dim)
    torch.testing.assert_close(trunk.features(images)[-1].flatten(1), trunk(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 13, 128])
def test_mlp_decoder_and_trunk_fit_every_size(size, channels):
    decoder = MLPDecoder(size, channels, latent_dim=4, width=8, depth=2)
    trunk = MLPTrunk(size, channels, width=8, depth=2)
    images = decoder(torch.randn(2, 4))
    assert images.shape == (2, channels, size, size)
    torch.testing.assert_close(trunk.features(images)[-1], trunk(images))


@pytest.mark.parametrize(
    ("size", "channels", "width", "latent_dim", "trunk", "encoder", "discriminator", "decoder"),
    [
        (8, 1, 256, 16, 82_432, 90_656, 82_689, 86_592),
        (28, 1, 256, 32, 266_752, 283_200, 267_009, 275_728),
        (32, 3, 512, 64, 1_836_032, 1_901_696, 1_836_545, 1_871_872),
    ],
)
def test_mlp_has_the_known_number_of_parameters(
    size, channels, width, latent_dim, trunk, encoder, discriminator, decoder
):
    body = MLPTrunk(size, channels, width, depth=2)
    assert count(body) == trunk
    assert count(GaussianEncoder(body, latent_dim)) == encoder
    assert count(Discriminator(body)) == discriminator
    assert count(MLPDecoder(size, channels, latent_dim, width, depth=2)) == decoder


@pytest.mark.parametrize(
    ("size", "channels", "width", "latent_dim", "trunk", "encoder", "discriminator", "decoder"),
    [
        (8, 1, 32, 16, 544, 16_960, 1_057, 8_769),
        (28, 1, 32, 64, 33_440, 434_976, 36_577, 234_177),
        (32, 3, 64, 128, 659_264, 1_708_096, 663_361, 1_183_619),
        (64, 3, 64, 128, 2_757_440, 4_854_848, 2_765_633, 3_806_083),
        (128, 3, 64, 128, 6_952_768, 9_050_176, 6_960_961, 8_001_411),
    ],
)
def test_conv_has_the_known_number_of_parameters_of_dcgan(
    size, channels, width, latent_dim, trunk, encoder, discriminator, decoder
):
    body = ConvTrunk(size, channels, width, norm="batch")
    assert count(body) == trunk
    assert count(GaussianEncoder(body, latent_dim)) == encoder
    assert count(Discriminator(body)) == discriminator
    assert count(ConvDecoder(size, channels, latent_dim, width, norm="batch")) == decoder


def test_the_plan_halves_down_to_a_base_of_four_to_seven():
    assert plan(28) == [28, 14, 7]
    assert plan(64) == [64, 32, 16, 8, 4]
    assert all(4 <= plan(size)[-1] <= 7 for size in range(8, 129))
    with pytest.raises(UserMistake, match="not 7"):
        plan(7)


def test_a_discriminator_without_batch_norm_treats_images_apart():
    discriminator = Discriminator(ConvTrunk(16, 1, width=4))
    images = torch.randn(6, 1, 16, 16)
    order = torch.randperm(6)
    torch.testing.assert_close(discriminator(images)[order], discriminator(images[order]))
    assert discriminator(images).shape == (6,)

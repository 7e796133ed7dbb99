"""The arena: every size works, and its parts have the sizes of the published networks."""

import pytest
import torch

from genbench.errors import UserMistake
from genbench.networks.conv import ConvDecoder, ConvTrunk, stage_sizes
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
    assert stage_sizes(28) == [28, 14, 7]
    assert stage_sizes(64) == [64, 32, 16, 8, 4]
    assert all(4 <= stage_sizes(size)[-1] <= 7 for size in range(8, 129))
    with pytest.raises(UserMistake, match="not 7"):
        stage_sizes(7)


def test_a_discriminator_without_batch_norm_treats_images_apart():
    discriminator = Discriminator(ConvTrunk(16, 1, width=4))
    images = torch.randn(6, 1, 16, 16)
    order = torch.randperm(6)
    torch.testing.assert_close(discriminator(images)[order], discriminator(images[order]))
    assert discriminator(images).shape == (6,)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_channels_last_changes_no_number_and_no_gradient_of_a_gradient(norm):
    """A copy in the other layout: images, features, and what a gradient penalty would descend."""
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        decoder = ConvDecoder(16, 3, latent_dim=4, width=4, norm=norm).double()
        trunk = ConvTrunk(16, 3, width=4).double()
        decoder.to(memory_format=layout)
        trunk.to(memory_format=layout)
        images = decoder(torch.randn(5, 4, dtype=torch.float64))
        features = trunk(images)
        (slope,) = torch.autograd.grad(features.square().sum(), images, create_graph=True)
        slope.square().sum().backward()
        gradients = [p.grad for p in [*decoder.parameters(), *trunk.parameters()]]
        found[layout] = [images, features, slope, *gradients]
    for expected, laid in zip(*found.values(), strict=True):
        assert (expected is None) == (laid is None)
        if expected is not None:
            torch.testing.assert_close(laid, expected)


def test_activations_and_their_gradients_have_the_layout_of_the_weights():
    """Where they differ, an activation's backward takes up to ten times as long."""
    decoder = ConvDecoder(28, 1, latent_dim=4, width=8, norm="batch").to(
        memory_format=torch.channels_last
    )
    trunk = ConvTrunk(28, 1, width=8).to(memory_format=torch.channels_last)
    laid = []

    def look(tensor):
        laid.append(tensor.is_contiguous(memory_format=torch.channels_last))

    def look_at_both(module, inputs, output):  # a backward hook of a module forbids work in place
        look(output)
        output.register_hook(look)

    for module in [*decoder.modules(), *trunk.modules()]:
        if isinstance(module, torch.nn.ReLU | torch.nn.LeakyReLU):
            module.register_forward_hook(look_at_both)
    trunk(decoder(torch.randn(2, 4))).sum().backward()
    assert len(laid) == 8 and all(laid)

"""The arena: every size works, and its parts have the sizes of the published networks."""

from functools import partial

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
    decoder = ConvDecoder(size, channels, latent_dim=4, width=4, norm=norm, position_bias=True)
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
        (8, 1, 32, 16, 544, 16_960, 1_057, 9_281),
        (28, 1, 32, 64, 33_440, 434_976, 36_577, 237_313),
        (32, 3, 64, 128, 659_264, 1_708_096, 663_361, 1_187_715),
        (64, 3, 64, 128, 2_757_440, 4_854_848, 2_765_633, 3_814_275),
        (128, 3, 64, 128, 6_952_768, 9_050_176, 6_960_961, 8_009_603),
    ],
)
def test_conv_has_the_known_number_of_parameters_of_dcgan(
    size, channels, width, latent_dim, trunk, encoder, discriminator, decoder
):
    body = ConvTrunk(size, channels, width, norm="batch")
    assert count(body) == trunk
    assert count(GaussianEncoder(body, latent_dim)) == encoder
    assert count(Discriminator(body)) == discriminator
    made = ConvDecoder(size, channels, latent_dim, width, norm="batch", position_bias=True)
    assert count(made) == decoder
    published = ConvDecoder(size, channels, latent_dim, width, norm="batch")
    assert decoder - count(published) == made.layers[0].out_features


DECODERS = {
    "mlp": lambda size: MLPDecoder(size, 1, latent_dim=4, width=16, depth=2),
    **{
        f"conv-{norm}": partial(
            ConvDecoder, channels=1, latent_dim=4, width=16, norm=norm, position_bias=True
        )
        for norm in ("batch", "group", "none")
    },
}


def rank_at_the_origin(decoder, size) -> int:
    """Of the Jacobian of the image of z = 0 by all parameters, at random ones."""
    generator = torch.Generator().manual_seed(0)
    decoder = decoder.double().eval()
    with torch.no_grad():  # biases begin at 0, where a ReLU has no gradient
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double() / 4)
    image = decoder(torch.zeros(1, 4, dtype=torch.float64)).flatten()
    rows = []
    for pixel in image:
        parts = torch.autograd.grad(pixel, [*decoder.parameters()], retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    assert len(rows) == size**2
    return int(torch.linalg.matrix_rank(torch.stack(rows)))


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("name", DECODERS)
def test_the_latent_0_can_be_decoded_to_any_image(name, size):
    """Else a VAE spends latents on its mean image, and misses it in samples from the prior."""
    assert rank_at_the_origin(DECODERS[name](size), size) == size**2


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_latent_0_cannot_without_a_bias_for_each_position(norm):
    lacking = ConvDecoder(16, 1, latent_dim=4, width=16, norm=norm)
    assert rank_at_the_origin(lacking, 16) < 128


def test_the_plan_halves_down_to_a_base_of_four_to_seven():
    assert stage_sizes(28) == [28, 14, 7]
    assert stage_sizes(64) == [64, 32, 16, 8, 4]
    assert all(4 <= stage_sizes(size)[-1] <= 7 for size in range(8, 129))
    with pytest.raises(UserMistake, match="not 7"):
        stage_sizes(7)


def mean_squares(trunk) -> list[float]:
    """Of the activations of each stage, and of the head's outputs, for noise as images."""
    images = torch.randn(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        activations = [*trunk.features(images), trunk.head(64)(trunk(images))]
    return [float(each.square().mean()) for each in activations]


def test_an_encoder_keeps_the_variance_of_its_signal():
    """He et al. 2015, eq. 14; borders see fewer inputs, which costs some of it."""
    torch.manual_seed(0)
    found = mean_squares(ConvTrunk(64, 3, width=32, initialisation="he"))
    assert all(0.4 < each < 1.2 for each in found)
    starved = mean_squares(ConvTrunk(64, 3, width=32))
    assert starved[0] < 1 / 7**2 and starved[3] < 1e-3


def test_a_trunk_without_a_named_initialisation_has_that_of_dcgan():
    torch.manual_seed(0)
    trunk = ConvTrunk(32, 3, width=32, norm="group")
    head = trunk.head(64)
    assert float(head.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(trunk.stages[2][0].weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(trunk.stages[2][1].weight.detach().mean()) == pytest.approx(1, rel=0.02)
    with pytest.raises(UserMistake, match="'xavier' is not one of dcgan, he"):
        ConvTrunk(32, 3, width=32, initialisation="xavier")


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

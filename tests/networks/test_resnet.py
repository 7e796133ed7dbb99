"""The residual network: sizes, known counts, its variance, attention and spectral norm."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from genbench.errors import UserMistake
from genbench.networks.heads import Discriminator, GaussianEncoder
from genbench.networks.resnet import ResnetDecoder, ResnetTrunk, SelfAttention, stage_sizes

SPECTRAL = {"norm": "spectral", "attention": 8}


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("attention", ["none", "first", "last"])
@pytest.mark.parametrize("size", [32, 45, 63, 96])
@pytest.mark.parametrize(
    ("decoder_norm", "trunk_norm"),
    [("batch", "spectral"), ("group", "group"), ("none", "none"), ("batch", "batch")],
)
def test_decoder_and_trunk_fit_every_size(size, decoder_norm, trunk_norm, attention):
    at = {"none": None, "first": stage_sizes(size)[1], "last": stage_sizes(size)[-1]}[attention]
    decoder = ResnetDecoder(size, 3, 5, 2, decoder_norm, at)
    trunk = ResnetTrunk(size, 3, 2, trunk_norm, at).eval()
    images = decoder(torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    stages = trunk.features(images)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(s, s) for s in stage_sizes(size)[1:]]
    assert trunk(images).shape == (2, trunk.feature_dim)
    torch.testing.assert_close(stages[-1].flatten(1), trunk(images))
    found = [m for network in (decoder, trunk) for m in network.modules()]
    assert sum(isinstance(m, SelfAttention) for m in found) == (2 if at else 0)


def test_the_plan_halves_down_to_a_base_of_four_to_seven():
    assert stage_sizes(32) == [32, 16, 8, 4]
    assert stage_sizes(45) == [45, 23, 12, 6]
    assert stage_sizes(256) == [256, 128, 64, 32, 16, 8, 4]
    assert all(4 <= stage_sizes(size)[-1] <= 7 for size in range(32, 257))


@pytest.mark.parametrize("size", [8, 31, 257])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserMistake, match=f"32 to 256 pixels a side, not {size}"):
        ResnetTrunk(size, 1, 4)


@pytest.mark.parametrize("network", [ResnetTrunk, lambda *a, **k: ResnetDecoder(*a[:2], 4, 2, **k)])
def test_an_attention_where_there_is_no_stage_names_those_there_are(network):
    with pytest.raises(UserMistake, match="attention=12 .*choose one of 16, 8, 4, or null"):
        network(32, 1, 4, attention=12)


def test_unknown_norms_are_refused_and_the_decoder_has_no_spectral_one():
    with pytest.raises(UserMistake, match="'weight' is not one of batch, group, spectral, none"):
        ResnetTrunk(32, 1, 4, "weight")
    with pytest.raises(UserMistake, match="'spectral' is not one of batch, group, none"):
        ResnetDecoder(32, 1, 4, 4, "spectral")


def convolution(before: int, after: int, kernel: int = 3) -> int:
    return before * after * kernel**2 + after


def block(before: int, inner: int, after: int) -> int:
    shortcut = convolution(before, after, kernel=1)
    return convolution(before, inner) + convolution(inner, after) + shortcut


@pytest.mark.parametrize(("size", "width", "stages"), [(32, 64, 3), (64, 16, 4), (256, 4, 6)])
def test_parameters_are_those_of_the_blocks(size, width, stages):
    widths = [width * multiple for multiple in (1, 2, 4, 8, 8, 8)[:stages]]
    pairs = [*zip(widths, widths[1:], strict=False)]
    trunk = block(3, width, width) + sum(block(a, a, b) for a, b in pairs)
    decoder = block(width, width, width) + sum(block(b, a, a) for a, b in pairs)
    features = 16 * widths[-1]
    body = ResnetTrunk(size, 3, width)
    assert count(body) == trunk
    assert count(GaussianEncoder(body, 10)) == trunk + 20 * features + 20
    assert count(Discriminator(body)) == trunk + features + 1
    assert count(Discriminator(ResnetTrunk(size, 3, width, "spectral"))) == trunk + features + 1
    ends = 11 * features + convolution(width, 3)
    assert count(ResnetDecoder(size, 3, 10, width)) == decoder + ends


def test_a_halved_shortcut_is_the_shortcut_halved():
    """Pooling first is a quarter of the work: no approximation, also at the end of an odd side."""
    (block, *_), images = ResnetTrunk(45, 3, 4).stages[0], torch.randn(2, 3, 45, 45)
    after = F.avg_pool2d(block.shortcut(images), 2, ceil_mode=True, count_include_pad=False)
    branch = F.avg_pool2d(block.branch(images), 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(block(images), branch + after)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_the_latent_0_can_be_decoded_to_any_image(norm):
    """By the bias of the first layer: the rank of its Jacobian at 100 of the pixels."""
    torch.manual_seed(0)
    decoder = ResnetDecoder(32, 1, 4, 8, norm).double().eval()
    with torch.no_grad():
        decoder.begin[0].bias.normal_()
    begun = []
    decoder.begin.register_forward_hook(lambda module, inputs, output: begun.append(output))
    images = decoder(torch.zeros(100, 4, dtype=torch.float64)).flatten(1)
    assert decoder.begin[0].bias.numel() == begun[0][0].numel()
    pixels = torch.randperm(1024)[:100]  # of each copy another one
    (jacobian,) = torch.autograd.grad(images[torch.arange(100), pixels].sum(), begun[0])
    assert torch.linalg.matrix_rank(jacobian.flatten(1)) == 100


# --- initialisation -------------------------------------------------------------------------------


def mean_squares(stages) -> list[float]:
    return [float(stage.detach().square().mean()) for stage in stages]


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_decoder_begins_with_signals_of_equal_size_and_nearly_grey_images(norm):
    torch.manual_seed(0)
    decoder, seen = ResnetDecoder(64, 3, 32, 32, norm), []
    for part in (decoder.begin, *decoder.stages, decoder.end):
        part.register_forward_hook(lambda module, inputs, output: seen.append(output))
    decoder(torch.randn(8, 32))
    *inner, images = mean_squares(seen)
    assert len(inner) == 5 and all(0.5 < size < 1.5 for size in inner)
    assert 0.005 < images < 0.02


def test_a_trunk_without_norm_does_not_starve_its_later_stages():
    """Mean pooling and the padding take something, N(0, 0.02) took all but a fiftieth a stage."""
    torch.manual_seed(0)
    images = F.interpolate(torch.randn(16, 3, 8, 8), scale_factor=8, mode="bicubic")
    trunk = ResnetTrunk(64, 3, 32)
    sizes = mean_squares([images, *trunk.features(images)])
    for before, after in zip(sizes, sizes[1:-1], strict=False):
        assert 0.5 < after / before < 1.5
    assert sizes[-1] / sizes[-2] > 0.2  # rectified
    logits = Discriminator(trunk)(images)
    assert 0.1 < float(logits.detach().std()) < 2


# --- attention ------------------------------------------------------------------------------------


def test_attention_begins_as_nothing_and_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    attention, hidden = SelfAttention(16), torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(attention(hidden), hidden)
    with torch.no_grad():
        attention.gamma.fill_(0.7)
    query = attention.query(hidden).flatten(2).transpose(1, 2)
    key, value = (
        F.max_pool2d(layer(hidden), 2, ceil_mode=True).flatten(2).transpose(1, 2)
        for layer in (attention.key, attention.value)
    )
    seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    expected = hidden + 0.7 * attention.out(seen.transpose(1, 2).unflatten(2, (5, 7)))
    torch.testing.assert_close(attention(hidden), expected)


def test_a_gradient_penalty_passes_through_attention():
    torch.manual_seed(0)
    attention = SelfAttention(4).double()
    with torch.no_grad():
        attention.gamma.fill_(0.7)
    hidden = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(attention, [hidden])


# --- spectral norm --------------------------------------------------------------------------------


def spectral_discriminator(**changes) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(ResnetTrunk(32, 3, 4, **SPECTRAL | changes))


def test_every_weight_has_a_largest_singular_value_of_1():
    discriminator = spectral_discriminator()
    with torch.no_grad():
        for parameter in discriminator.parameters():  # as training would leave them
            parameter.add_(torch.randn_like(parameter) / 10)
        for _ in range(60):
            discriminator(torch.zeros(1, 3, 32, 32))
        layers = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == 3 * 3 + 4 + 1
        for layer in layers:
            largest = torch.linalg.matrix_norm(layer.eval().weight.flatten(1), 2)
            torch.testing.assert_close(largest, torch.ones(()), atol=0.02, rtol=0)


def test_a_forward_takes_one_power_iteration_in_training_and_none_in_evaluation():
    discriminator, images = spectral_discriminator(), torch.randn(2, 3, 32, 32)
    layer = discriminator.trunk.stages[-1][0].branch[1]
    matrix = layer.parametrizations.weight.original.detach().flatten(1)
    u, v = (getattr(layer.parametrizations.weight[0], name).clone() for name in ("_u", "_v"))
    discriminator(images)
    u = F.normalize(matrix @ v, dim=0)
    v = F.normalize(matrix.T @ u, dim=0)
    torch.testing.assert_close(layer.parametrizations.weight[0]._v, v)
    before = copy.deepcopy(discriminator.eval().state_dict())
    discriminator(images)
    after = discriminator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_copies_and_restored_states_compute_the_same_bits():
    discriminator, images = spectral_discriminator(), torch.randn(2, 3, 32, 32)
    discriminator(images)
    restored = spectral_discriminator()
    restored.load_state_dict(discriminator.state_dict())
    twins = [discriminator, copy.deepcopy(discriminator), restored]
    assert all(parametrize.is_parametrized(twin.head) for twin in twins)
    logits = [[twin(images) for _ in range(3)] for twin in twins]
    for others in logits[1:]:
        assert all(map(torch.equal, logits[0], others))


@pytest.mark.parametrize("norm", ["batch", "spectral", "none"])
def test_channels_last_changes_no_number_and_no_gradient_of_a_gradient(norm):
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        decoder = ResnetDecoder(32, 3, 4, 4, "batch", attention=8).double()
        trunk = ResnetTrunk(32, 3, 4, norm, attention=8).double()
        for part in (*decoder.modules(), *trunk.modules()):
            if isinstance(part, SelfAttention):
                nn.init.ones_(part.gamma)
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


def test_activations_have_the_layout_of_the_weights():
    """Where they differ, an activation's backward takes up to ten times as long."""
    decoder, trunk = ResnetDecoder(32, 3, 4, 8, "batch", 8), ResnetTrunk(32, 3, 8, **SPECTRAL)
    laid = []
    for module in [*decoder.modules(), *trunk.modules()]:
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.register_forward_hook(
                lambda module, inputs, output: laid.append(
                    output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    for network in (decoder, trunk):
        network.to(memory_format=torch.channels_last)
    trunk(decoder(torch.randn(2, 4))).sum().backward()
    assert len(laid) == 7 + 6 and all(laid)

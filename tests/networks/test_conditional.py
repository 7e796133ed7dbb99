"""Networks that know labels, against the formulas; without labels nothing of them is there."""

import itertools

import pytest
import torch

from genbench.networks.autoregressive import MaskedPrior
from genbench.networks.conditional import (
    NONE,
    ConditionalDecoder,
    ConditionalPrior,
    ConditionalTrunk,
    Label,
    ProjectionTrunk,
    given,
    in_pieces,
    knowing,
)
from genbench.networks.heads import (
    Discriminator,
    GaussianEncoder,
    SlicingDiscriminator,
    SpectralDiscriminator,
)
from genbench.networks.mlp import MLPDecoder, MLPTrunk

N, CLASSES, WIDTH, LATENT = 6, 3, 5, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.randn(N, 1, 8, 8)


def trunk():
    return MLPTrunk(8, 1, width=7, depth=2)


def test_labels_are_further_arguments_only_where_there_are_some(images):
    assert given(None) == () and given(images)[0] is images
    network = torch.nn.Identity()
    assert knowing(network, None) is network  # so that nothing changes without labels
    assert in_pieces(None, images.chunk(2)) == [None, None]
    assert [len(part) for part in in_pieces(torch.arange(N), images.split(4))] == [4, 2]


def test_classes_are_rows_of_a_table_and_none_is_a_row_of_its_own(images):
    label = Label(CLASSES, WIDTH)
    y = torch.tensor([0, 2, NONE, 1, NONE, 0])
    expected = torch.stack([label.none if k < 0 else label.table.weight[k] for k in y.tolist()])
    assert torch.equal(label(y, images), expected)
    assert torch.equal(label(None, images), label.none.expand(N, WIDTH))


def test_attributes_are_mapped_linearly_from_plus_and_minus_one(images):
    label = Label(2, WIDTH, attributes=True)
    y = torch.tensor([[0, 1], [1, 1], [NONE, NONE], [0, 0], [1, 0], [0, 1]])
    found = label(y, images)
    w, b = label.table.weight, label.table.bias
    torch.testing.assert_close(found[0], b - w[:, 0] + w[:, 1])
    torch.testing.assert_close(found[4], b + w[:, 0] - w[:, 1])
    assert torch.equal(found[2], label.none)


def test_a_decoder_decodes_the_latents_beside_the_embedding():
    inner = MLPDecoder(8, 1, LATENT + WIDTH, width=7, depth=1)
    decoder = ConditionalDecoder(inner, Label(CLASSES, WIDTH), LATENT)
    z, y = torch.randn(N, LATENT), torch.arange(N) % CLASSES
    expected = inner(torch.cat([z, decoder.label.table.weight[y]], 1))
    assert torch.equal(decoder(z, y), expected)
    assert not torch.allclose(decoder(z), expected)


def test_an_encoder_adds_the_embedding_to_its_features(images):
    own = ConditionalTrunk(trunk(), Label(CLASSES, WIDTH))
    encoder, y = GaussianEncoder(own, LATENT), torch.arange(N) % CLASSES
    hidden = own.trunk(images) + own.label.table.weight[y] @ own.project.weight.T
    mu, logvar = encoder.head(hidden).chunk(2, 1)
    found = encoder(images, y)
    torch.testing.assert_close(found, (mu, logvar))


def test_a_discriminator_adds_the_projection_of_miyato_and_koyama(images):
    critic, y = (
        Discriminator(ProjectionTrunk(trunk(), Label(CLASSES, WIDTH))),
        torch.arange(N) % CLASSES,
    )
    h = critic.trunk.trunk(images)
    psi = h @ critic.head.linear.weight[0] + critic.head.linear.bias
    v = critic.head.label.table.weight[y] @ critic.head.project.weight.T
    torch.testing.assert_close(critic(images, y), psi + (v * h).sum(1))
    names = {name for name, _ in critic.named_parameters()}
    assert sum("label.table" in name for name in names) == 1  # one embedding, not two


def test_spectral_norm_is_on_the_projection_and_its_table_too():
    critic = SpectralDiscriminator(ProjectionTrunk(trunk(), Label(CLASSES, WIDTH)))
    for layer in (critic.head.linear, critic.head.project, critic.head.label.table):
        assert torch.nn.utils.parametrize.is_parametrized(layer)


def test_a_label_has_a_direction_of_its_own_in_a_sliced_discriminator(images):
    critic = SlicingDiscriminator(ProjectionTrunk(trunk(), Label(CLASSES, WIDTH)))
    y = torch.arange(N) % CLASSES
    h = critic.trunk.trunk(images)
    head = critic.head
    weight = head.linear.weight[0] + head.label.table.weight[y] @ head.project.weight.T
    torch.testing.assert_close(critic(images, y), (weight * h).sum(1) + head.linear.bias)
    features, direction = critic.apart(images, y)
    omega = weight / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(features, critic(images, y))
    torch.testing.assert_close(direction, (h * weight.norm(dim=1, keepdim=True) * omega).sum(1))
    only = torch.autograd.grad(features.sum(), head.linear.weight, retain_graph=True)[0]
    full = torch.autograd.grad(critic(images, y).sum(), head.linear.weight)[0]
    assert not torch.allclose(only, full)  # omega is held fixed


def test_a_discriminator_of_several_logits_has_no_projection():
    with pytest.raises(AssertionError, match="one logit"):
        ProjectionTrunk(trunk(), Label(CLASSES, WIDTH)).head(2)


def test_a_prior_over_codes_is_one_of_each_label_and_its_draws_follow_it():
    prior = ConditionalPrior(MaskedPrior(3, 4, 16, context=5), Label(2, 5))
    every = torch.tensor([*itertools.product(range(4), repeat=3)])
    shares = [prior(every, torch.full((64,), label)).exp() for label in (0, 1, NONE)]
    for share in shares:
        torch.testing.assert_close(share.sum(), torch.tensor(1.0))
    torch.testing.assert_close(prior(every).exp(), shares[2])
    first = [
        share.view(4, 16).sum(1) for share in shares
    ]  # of the first code, which knows no other
    assert min((first[i] - first[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    labels = torch.arange(20_000) % 2
    drawn = prior.draw(torch.rand(20_000, 3), labels)
    number = (drawn * torch.tensor([16, 4, 1])).sum(1)
    for label in (0, 1):
        found = torch.bincount(number[labels == label], minlength=64) / 10_000
        error = (shares[label] * (1 - shares[label]) / 10_000).sqrt()
        assert ((found - shares[label]).abs() < 5 * error).all()


def test_no_code_of_a_label_depends_on_those_behind_it():
    prior, codes = MaskedPrior(4, 3, 16, context=2), torch.tensor([[0, 1, 2, 0]])
    context = torch.randn(1, 2)
    base = prior.logits(codes, context)[0]
    for token in range(4):
        changed = codes.clone()
        changed[0, token] = (changed[0, token] + 1) % 3
        moved = (prior.logits(changed, context)[0] - base).abs().sum(1) > 0
        assert not moved[: token + 1].any()
        assert moved[token + 1 :].all()
    assert ((prior.logits(codes, -context)[0] - base).abs().sum(1) > 0).all()


def test_a_prior_that_is_told_nothing_has_no_weights_for_it():
    torch.manual_seed(3)
    plain = MaskedPrior(3, 4, 16)
    torch.manual_seed(3)
    told = MaskedPrior(3, 4, 16, context=2)
    assert {name.partition(".")[0] for name in plain.state_dict()} == {"layers"}
    assert all(
        torch.equal(value, told.state_dict()[name]) for name, value in plain.state_dict().items()
    )
    codes = torch.randint(4, (6, 3))
    torch.testing.assert_close(told(codes, torch.zeros(6, 2)), plain(codes))

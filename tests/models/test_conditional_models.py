"""What every model that can be told labels must honour under a condition, because it takes them."""

import copy
import itertools

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fixtures.places import slow_but
from fixtures.rows import (
    QUICK,
    SIZE,
    TRAINED,
    build,
    by_speed,
    composed,
    images_for,
    labels_for,
    owned,
    parameters,
    takes_labels,
    train,
)
from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.models.condition import NONE, Condition, dropped
from genbench.models.contract import Draws, Reconstructs
from genbench.training.checks import check_parts
from genbench.training.conditioning import check_takes_labels, conditional

TOLD = [name for name in TRAINED if takes_labels(name)]
every_model = pytest.mark.parametrize("name", by_speed(TOLD))
CLASS = ("arena.condition=class", "arena.label_dropout=0.3")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def told(model, seed=0):
    images = images_for(model, seed=seed)
    return images, labels_for(model, images, seed)


def test_the_quick_ones_and_all_gans_are_among_them():
    assert {*QUICK, "gan-sn", "gan-san", "r3gan", "iwae", "lsgan", "fsq", "vq"} <= set(TOLD)


@every_model
def test_every_parameter_moves_with_its_own_player_labels_included(name):
    model = build(name, *CLASS)
    batch = told(model)
    recorder = train(model, [batch, batch], total=100)
    received: set[str] = set()
    afters = [before for _, before, _ in recorder.steps[1:]] + [parameters(model)]
    for (player, before, gradients), after in zip(recorder.steps, afters, strict=True):
        moved = {one for one in before if not torch.equal(before[one], after[one])}
        assert moved and moved <= owned(model, player)
        received |= set(gradients)
    trainable = {one for one, p in model.named_parameters() if p.requires_grad}
    assert received == trainable
    assert any("label.table" in one for one in received)


@every_model
def test_a_conditional_run_resumes_bit_for_bit(name, tmp_path):
    whole = build(name, *CLASS, rate=None)
    parts, again = copy.deepcopy(whole), build(name, *CLASS, rate=None)
    batches = [told(whole, number) for number in range(4)]
    train(whole, batches, total=8 * 12)
    begun = train(parts, batches[:2], total=8 * 12)
    begun.training.trainer.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    train(again, batches[2:], total=8 * 12, after=checkpoint)
    first, second = whole.state_dict(), again.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_a_batch_in_parts_keeps_labels_and_their_dropout_with_their_images(name):
    model = build(name, *CLASS)
    try:
        check_parts(model)
    except UserMistake:
        return
    other, batch = copy.deepcopy(model), told(model)
    train(model, [batch], total=100)
    train(other, [batch], total=100, parts=2)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@every_model
def test_samples_and_losses_depend_on_the_label(name):
    model = build(name, "arena.condition=class").eval()
    z = model.latents(4, torch.Generator().manual_seed(0))
    images, labels = told(model)
    others = (labels + 1) % 3

    def losses(*labels):
        model.draws = Draws(0)
        return {move.player: float(move.loss().detach()) for move in model.step(images, *labels)}

    with torch.no_grad():
        one, two = (model.sample(z, torch.full((4,), place)) for place in (0, 1))
        assert one.shape == two.shape and not torch.equal(one, two)
        if isinstance(model, Reconstructs):
            whole = model.reconstruct(images, labels)
            assert whole.shape == images.shape
            assert not torch.equal(whole, model.reconstruct(images, others))
    asked, other = losses(labels), losses(others)
    for player in asked:
        knows = [n for n in owned(model, player) if "label" in n]
        assert not knows or asked[player] != other[player], player


@pytest.mark.parametrize("name", ["vae", "vae-gan"])
def test_attributes_are_trained_on_as_classes_are(name):
    model = build(name, "arena.condition=attributes")
    recorder = train(model, [told(model)], total=100)
    received = {one for _, _, gradients in recorder.steps for one in gradients}
    assert received == {one for one, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("network", ["conv", pytest.param("infogan", marks=pytest.mark.slow)])
def test_convolutional_networks_have_a_conditional_form_without_a_file_of_their_own(network):
    model = build("vae-gan", "arena.condition=class", f"network={network}", "network.width=8")
    images, labels = told(model)
    for move in model.step(images, labels):
        move.loss().backward()
    assert model.decoder.label.table.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("network", ["resnet", "r3"])
def test_residual_networks_have_one_too(network):
    cfg = composed("gan", f"network={network}", "network.width=8", "dataset.image_size=32")
    condition = Condition("class", ("a", "b"), torch.arange(2))
    plain = OmegaConf.to_container(cfg.model, resolve=True)
    model = instantiate(OmegaConf.create(conditional(plain, condition, 3)))
    z, y = torch.randn(2, model.latent_dim), torch.arange(2)
    images = model.sample(z, y)
    assert images.shape == (2, 1, 32, 32)
    assert model.discriminator(images, y).shape == (2,)


@pytest.mark.parametrize("name", slow_but(["vae", "fsq", "vq"], "vae"))
def test_the_learned_decoder_separates_the_classes_of_a_toy_set(name):
    """Three flat greys: a few steps suffice for the label to decide the grey of a sample."""
    model = build(name, "arena.condition=class", rate=None)
    labels = torch.arange(60) % 3
    images = (labels - 1.0)[:, None, None, None].expand(60, 1, 8, 8) * 0.8
    train(model.train(), [(images, labels)] * 150, total=9000)
    with torch.no_grad():
        z = model.latents(50, torch.Generator().manual_seed(1))
        greys = [float(model.eval().sample(z, torch.full((50,), k)).mean()) for k in range(3)]
    assert greys[0] < -0.5 and abs(greys[1]) < 0.3 and greys[2] > 0.5


TINY = {
    "fsq": ("arena.latent_dim=2", "model.levels=3"),
    "vq": ("arena.latent_dim=2", "model.prior.tokens=2", "model.codebook.codes=3"),
}
of_codes = pytest.mark.parametrize("name", TINY)


@of_codes
def test_the_bound_of_a_model_of_codes_is_one_on_the_evidence_given_the_label(name):
    """log p(x | y) by summing over all codes."""
    model = build(name, *TINY[name], "arena.condition=class").eval()
    images, labels = told(model)
    with torch.no_grad():
        terms = []
        for codes in itertools.product(range(3), repeat=2):
            numbers = torch.tensor([codes]).expand(12, 2)
            decoded = model.decoder(model.alphabet[numbers].flatten(1), labels)
            terms.append(model.likelihood.log_prob(images, decoded) + model.prior(numbers, labels))
        rate, distortion = model.elbo(images, torch.zeros(12, 2), labels)
        other = model.elbo(images, torch.zeros(12, 2), (labels + 1) % 3)
    assert (-(rate + distortion) <= torch.logsumexp(torch.stack(terms), 0) + 1e-4).all()
    assert not torch.allclose(rate + distortion, other.rate + other.distortion)


@of_codes
def test_samples_of_a_label_are_codes_that_the_prior_draws_for_it(name):
    """The latents are noise, of which each quantile of a code is as likely: one hand in all rows of a grid."""
    model = build(name, *TINY[name], "arena.condition=class").eval()
    z = model.latents(30, torch.Generator().manual_seed(0))
    assert torch.equal(z, torch.randn(30, 2, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(30) % 3
    with torch.no_grad():
        uniform = torch.distributions.Normal(0, 1).cdf(z)
        codes = model.alphabet[model.prior.draw(uniform, labels)].flatten(1)
        expected = model.likelihood.image(model.decoder(codes, labels))
        torch.testing.assert_close(model.sample(z, labels), expected)
        images, labels = told(model)
        codes = model.alphabet[model.tokens(images, labels)].flatten(1)
        expected = model.likelihood.image(model.decoder(codes, labels))
        torch.testing.assert_close(model.reconstruct(images, labels), expected)
        noise = torch.rand(12, 1, SIZE, SIZE)
        z = model.latents(12, torch.Generator().manual_seed(1))
        assert model.draw(z, noise, labels).shape == images.shape


def test_a_prior_over_codes_that_takes_no_context_is_refused():
    condition = Condition("class", ("a", "b"), torch.arange(2))
    prior = {"_target_": "torch.nn.Identity", "tokens": 2, "codes": 3}
    with pytest.raises(UserMistake, match="prior has no argument context"):
        conditional({"decoder": {"_target_": "x", "latent_dim": 2}, "prior": prior}, condition, 3)


def test_the_share_of_labels_that_are_dropped_is_the_dropout():
    condition = Condition("class", ("a", "b"), torch.arange(2), dropout=0.25)
    draws = Draws(3)
    labels = torch.ones(20_000, dtype=torch.int64)
    found = dropped(labels, condition, lambda n: draws(torch.rand, n, ()), 1)
    share = float((found == NONE).double().mean())
    assert abs(share - 0.25) < 0.02  # six standard deviations
    rows = dropped(torch.ones(50, 4, dtype=torch.int8), condition, lambda n: torch.arange(n) / n, 1)
    assert rows[:12].eq(NONE).all() and rows[13:].eq(1).all()  # an image has all of them or none


def test_without_dropout_nothing_is_drawn():
    condition = Condition("class", ("a", "b"), torch.arange(2))

    def never(n):
        raise AssertionError("a draw would move the others")

    labels = torch.arange(2)
    assert dropped(labels, condition, never, 1) is labels
    assert dropped(None, None, never, 1) is None


def test_a_model_that_takes_no_labels_is_refused_with_a_sentence():
    for name in set(TRAINED) - set(TOLD):
        plain = {"_target_": composed(name).model._target_}
        with pytest.raises(UserMistake, match=r"takes no labels: choose arena.condition=none"):
            check_takes_labels(plain, "class")


def test_an_encoder_or_a_decoder_of_other_arguments_is_refused():
    condition = Condition("class", ("a", "b"), torch.arange(2))
    decoder = {"_target_": "x", "latent_dim": 2}
    with pytest.raises(UserMistake, match="decoder has no argument latent_dim"):
        conditional({"decoder": {"_target_": "x"}}, condition, 3)
    with pytest.raises(UserMistake, match="encoder has no argument trunk"):
        conditional({"decoder": decoder, "encoder": {"_target_": "x"}}, condition, 3)


def test_data_that_gives_no_labels_says_so():
    with pytest.raises(UserMistake, match="gives no labels with its training images"):
        ImageData.hand_out(object.__new__(type("Mine", (), {})), torch.zeros(1))

"""The autoencoder of latent diffusion: its adaptive weight in closed form, its losses by plain autograd."""

import copy
import math

import pytest
import torch
from hydra.utils import instantiate
from torch.nn import functional as F

from fixtures.evaluation import make_evaluation
from fixtures.rows import (
    assert_gradients,
    build,
    composed,
    gradients_of,
    images_for,
    train,
)
from fixtures.training import score_again
from genbench.errors import UserMistake
from genbench.losses.adaptive import gradient_ratio, last_weight
from genbench.losses.perceptual import PerceptualDistance
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.extractors.random_conv import RandomConv
from genbench.metrics.held_apart import check_apart
from genbench.networks.patches import PatchDiscriminator

PAIRS = ["mlp-digits", "conv-digits", "r3-digits", "infogan-mnist", "conv-mnist", "resnet-cifar10"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network(pair):
    """Decoder and trunk of a network for a dataset."""
    name, dataset = pair.split("-")
    cfg = composed("gan", f"network={name}", f"dataset={dataset}", "network.width=8")
    return instantiate(cfg.network.decoder), instantiate(cfg.network.trunk), cfg.dataset


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_norms():
    """Of losses that are linear in w: |a| / (|b| + 1e-4)."""
    w = torch.nn.Parameter(torch.randn(2, 2))
    a, b = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.3], [-0.4, 0.0]])
    ratio = gradient_ratio((a * w).sum(), (b * w).sum(), w)
    torch.testing.assert_close(ratio.item(), 5 / (0.5 + 1e-4))
    assert not ratio.requires_grad


def test_the_adaptive_weight_of_no_adversarial_gradient_is_bounded():
    w = torch.nn.Parameter(torch.ones(3))
    assert gradient_ratio(2 * w.sum(), (0 * w).sum(), w).item() == 1e4
    assert gradient_ratio((0 * w).sum(), w.sum(), w).item() == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_the_last_weight_is_that_of_the_layer_that_is_called_last(pair):
    decoder, _, _ = network(pair)
    called = []
    for layer in list(decoder.modules())[1:]:
        if any(p.dim() > 1 for p in layer.parameters(recurse=False)):
            layer.register_forward_hook(lambda module, *_: called.append(module))
    decoder(torch.randn(2, decoder.latent_dim))
    assert last_weight(decoder) is called[-1].weight


@pytest.mark.parametrize("pair", PAIRS)
def test_a_patch_discriminator_has_a_logit_for_each_position(pair):
    _, trunk, dataset = network(pair)
    judge = PatchDiscriminator(trunk, dataset.image_size, dataset.channels)
    images = torch.randn(2, dataset.channels, dataset.image_size, dataset.image_size)
    side = {"conv-digits": 4, "conv-mnist": 7, "resnet-cifar10": 4}.get(pair, 1)
    assert judge(images).shape == (2, side**2)


def test_a_patch_does_not_see_what_is_far_away():
    _, trunk, _ = network("conv-mnist")
    judge = PatchDiscriminator(trunk, 28, 1)
    images = torch.randn(1, 1, 28, 28)
    changed = images.clone()
    changed[..., -8:, -8:] += 1
    moved = (judge(images) - judge(changed)).view(7, 7).abs() > 0
    assert moved[-2:, -2:].all() and not moved[:4].any() and not moved[:, :4].any()


def test_the_perceptual_distance_is_that_of_normed_rectified_maps():
    distance = PerceptualDistance(LeNet("lenet-digits-v1"))
    images, others = torch.rand(3, 1, 8, 8) * 2 - 1, torch.rand(3, 1, 8, 8) * 2 - 1
    other = LeNet("lenet-digits-v1")
    other.prepare()
    first, _, _, second = other.network.trunk[:4]

    def maps(x):
        one = F.relu(first((x + 1) / 2))
        return [F.normalize(each, dim=1) for each in (one, F.relu(second(one)))]

    expected = sum(
        (a - b).square().sum((1, 2, 3)) / 64
        for a, b in zip(maps(images), maps(others), strict=True)
    )
    torch.testing.assert_close(distance(images, others), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(distance(images, images), torch.zeros(3))


def test_its_network_is_no_part_of_a_model():
    distance = PerceptualDistance(RandomConv())
    assert not [*distance.parameters()] and not distance.state_dict()
    assert distance.sha256 == RandomConv().card["sha256"]
    grey = torch.zeros(2, 1, 8, 8, requires_grad=True)  # no position has a norm
    (gradient,) = torch.autograd.grad(distance(grey, torch.rand(2, 1, 8, 8)).sum(), grey)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("done", [0.2, 0.3])
def test_both_players_follow_their_losses_before_and_after_the_start(done):
    model = build("ae-kl", "model.kl_weight=0.1")
    images, before = images_for(model), copy.deepcopy(model)
    batches = [images] * (2 if done == 0.2 else 3)  # shares 0, 0.15, 0.3 of the budget
    recorder = train(model, batches, total=80)
    (_, at_discriminator, of_discriminator), (_, at, of_autoencoder) = recorder.steps[-2:]

    def weights(values):
        with torch.no_grad():
            for name, p in before.named_parameters():
                p.copy_(values[name])

    def fake():
        before.draws.begin(len(batches) - 1)
        mu, logvar = before.encoder(images)
        z = mu + (logvar / 2).exp() * before.noise(12, before.latent_dim)
        return torch.tanh(before.decoder(z)), mu, logvar

    weights(at_discriminator)
    made, _, _ = fake()
    judge = before.discriminator
    loss = F.relu(1 - judge(images)).mean() + F.relu(1 + judge(made.detach())).mean()
    assert_gradients(of_discriminator, gradients_of(loss, before, "discriminator"))

    weights(at)
    made, mu, logvar = fake()
    l_rec = (images - made).abs().sum((1, 2, 3)).mean()
    l_rec = l_rec + 64 * before.perceptual(made, images).mean()
    rate = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()
    loss = l_rec + 0.1 * rate
    if done == 0.3:
        adversarial = -judge(made).mean()
        last = before.decoder.layers[-2].weight
        of_each = [
            torch.autograd.grad(one, last, retain_graph=True)[0].norm()
            for one in (l_rec, adversarial)
        ]
        loss = loss + 0.5 * (of_each[0] / (of_each[1] + 1e-4)).item() * adversarial
    assert_gradients(of_autoencoder, gradients_of(loss, before, "encoder", "decoder"))


def test_weights_that_are_none_are_refused():
    for override in ("model.start=1.5", "model.kl_weight=-1", "model.weight=x"):
        with pytest.raises(Exception, match=override.partition("=")[0]):
            build("ae-kl", override)


def test_a_score_in_the_network_of_the_loss_is_refused(tmp_path):
    model = build("ae-kl")
    same, other = RandomConv(), LeNet("lenet-digits-v1")
    words = r"AEKL measures images in random-conv-v1, and a score in the same weights .*another extractor"
    with pytest.raises(UserMistake, match=words):
        check_apart(model, make_evaluation(tmp_path, extractor=same))
    check_apart(model, make_evaluation(tmp_path, extractor=other))
    check_apart(build("ae-kl", "model.perceptual=null"), make_evaluation(tmp_path, extractor=same))
    check_apart(build("gan"), make_evaluation(tmp_path, extractor=same))


def test_a_weight_of_0_has_no_perceptual_network():
    model = build("ae-kl", "model.perceptual_weight=0")
    assert model.loss_networks == {} and "distance" not in model.objective()
    assert math.isfinite(train(model, [images_for(model)]).training.means()["train/absolute_error"])


@pytest.mark.slow
def test_a_run_is_not_scored_in_the_network_of_its_loss(start):
    run, code = start("model=ae-kl", "evaluation=none")
    assert code == 0
    with pytest.raises(UserMistake, match="would be one of what it was trained on"):
        score_again(run, "evaluation=quick", "extractor=random-conv-v1")

"""R3GAN's losses against plain autograd, and its burn-in."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from fixtures.rows import assert_gradients as assert_equal
from fixtures.rows import build, gradients_of, images_for, input_gradient_square, train
from genbench.errors import UserMistake
from genbench.losses.ramp import Cosine
from genbench.training.acceleration import check_changes


def test_both_players_follow_the_relativistic_loss_with_both_penalties():
    torch.manual_seed(0)
    model = build("r3gan")
    before, images = copy.deepcopy(model), images_for(model)
    (_, _, d_gradients), (_, middle, g_gradients) = train(model, [images]).steps

    def draw():
        before.draws.begin(0)
        return torch.tanh(before.decoder(before.noise(len(images), before.latent_dim)))

    fake, critic = draw().detach(), before.discriminator
    margins = critic(images) - critic(fake)
    penalties = input_gradient_square(critic, images) + input_gradient_square(critic, fake)
    loss = -F.logsigmoid(margins).mean() + 10.0 / 2 * penalties  # gamma begins at 10
    assert_equal(d_gradients, gradients_of(loss, before, "discriminator"))
    before.load_state_dict(middle)
    loss = -F.logsigmoid(critic(draw()) - critic(images)).mean()
    assert_equal(g_gradients, gradients_of(loss, before, "decoder"))


def test_gamma_and_beta2_follow_the_budget():
    model = build("r3gan", rate=None)
    seen, images = [], images_for(model)
    model.discriminator.register_forward_hook(
        lambda *_: seen.append(model.gamma.of(model.progress).item())
    )
    recorder = train(model, [images] * 5, total=12 * 20)  # the burn-in is the first 4 steps
    gammas = seen[:: len(seen) // 5]
    expected = [1.0 + 9.0 * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(5)]
    assert gammas == pytest.approx(expected, abs=1e-6)
    for seat in recorder.training.seats.values():
        assert seat.optimizer.param_groups[0]["betas"] == (0.0, 0.99)
    assert model.changes(0.1)["betas"] == (0.0, pytest.approx(0.945))
    assert model.progress == 0  # outside of training


def test_a_ramp_is_the_same_for_numbers_and_tensors_and_refuses_what_is_none():
    ramp = Cosine(2.0, 1.0, 0.5)
    assert [ramp.at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([2, 1.5, 1, 1])
    for progress in (0.0, 0.1, 0.4, 0.9):
        assert ramp.of(torch.tensor(progress)).item() == pytest.approx(ramp.at(progress))
    with pytest.raises(UserMistake, match="share=0 of a ramp is not a share of the budget"):
        Cosine(1.0, 2.0, 0)


def test_a_cuda_graph_would_keep_its_betas():
    with pytest.raises(UserMistake, match="changes the discriminator and the generator's"):
        check_changes(build("r3gan"))
    check_changes(build("gan"))

"""What every model must honour, whatever it is: all of configs/model, each because it exists.

Who is moved and in which direction, seeds, resuming, parts of a batch, half precision. Two ranks are in
tests/training/test_ranks.py, a GPU's devices in test_fake_gpu.py.
"""

import ast
import copy
import importlib
import inspect
import math

import pytest
import torch

from fixtures.rows import (
    SIZE,
    TRAINED,
    build,
    by_speed,
    composed,
    images_for,
    owned,
    parameters,
    train,
)
from genbench.errors import UserMistake
from genbench.models.contract import Draws, Reconstructs
from genbench.training.checks import check_parts, check_ranks

every_model = pytest.mark.parametrize("name", by_speed(TRAINED))


def test_they_are_found():
    assert {"vae", "gan", "vae-gan", "wgan-gp"} < set(TRAINED)
    assert not {"noise", "replay", "blur", "mode-drop"} & set(TRAINED)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@every_model
def test_a_step_moves_only_its_own_player_and_the_counted_one_is_last(name):
    model = build(name)
    batch = images_for(model)
    recorder = train(model, [batch, batch], total=100)
    afters = [before for _, before, _ in recorder.steps[1:]] + [parameters(model)]
    for (player, before, _), after in zip(recorder.steps, afters, strict=True):
        moved = {one for one in before if not torch.equal(before[one], after[one])}
        assert moved
        assert moved <= owned(model, player)
    players = list(model.players())
    expected = players[:-1] * model.discriminator_steps + players[-1:]
    assert [player for player, _, _ in recorder.steps] == 2 * expected
    assert players[-1] == model.counted
    training = recorder.training
    assert training.trainer.global_step == training.steps == 2
    assert training.moves == {one: 2 * expected.count(one) for one in players}
    assert all(p.requires_grad for p in model.parameters())


@every_model
def test_every_parameter_has_a_player_and_gets_a_gradient(name):
    model = build(name)
    recorder = train(model, [images_for(model)], total=100)
    received = {one for _, _, gradients in recorder.steps for one in gradients}
    trainable = {one for one, p in model.named_parameters() if p.requires_grad}
    assert received == trainable


@every_model
def test_a_small_step_lowers_the_loss_of_the_player_that_takes_it(name):
    """Direction: of each player's last move in a step, at the random numbers of that step."""
    model = build(name).eval()  # nothing that counts forwards
    batch = images_for(model, 64)
    for player, own in model.players().items():
        its = [*{id(p): p for p in own.parameters() if p.requires_grad}.values()]
        kept = copy.deepcopy(model.state_dict())

        def loss(player=player):
            model.draws = Draws(0)
            return [move.loss() for move in model.step(batch) if move.player == player][-1]

        before = loss()
        gradients = torch.autograd.grad(before, its)
        square = sum(gradient.square().sum() for gradient in gradients)
        expected = 1e-3 * before.abs()  # what the loss falls by, were it linear
        with torch.no_grad():
            for p, gradient in zip(its, gradients, strict=True):
                p -= expected / square * gradient
        # of a loss with detached factors (gan-san) more falls than its gradient says
        assert 0.5 * expected < before - loss() < 2.5 * expected
        model.load_state_dict(kept)


@every_model
def test_equal_seeds_make_equal_runs_whatever_is_drawn_elsewhere(name):
    quiet = build(name, rate=None)
    disturbed = copy.deepcopy(quiet)
    batch = images_for(quiet)
    train(quiet, [batch, batch], total=100)
    train(disturbed, [batch, batch], disturb=True, total=100)
    first, second = quiet.state_dict(), disturbed.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, tmp_path):
    """With the settings of the config: optimizers, and what changes with the budget."""
    whole = build(name, rate=None)
    parts, again = copy.deepcopy(whole), build(name, rate=None)
    batches = [images_for(whole, seed=number) for number in range(4)]
    train(whole, batches, total=8 * 12)
    begun = train(parts, batches[:2], total=8 * 12)
    begun.training.trainer.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    resumed = train(again, batches[2:], total=8 * 12, after=checkpoint)
    assert resumed.training.steps == 4
    first, second = whole.state_dict(), again.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_a_batch_in_parts_makes_the_same_step_or_is_refused(name):
    model = build(name)
    try:
        check_parts(model)
    except UserMistake as refused:
        why = ("spectral norm", f"{type(model).__name__} normalises over its batch")
        assert model.compares_images or any(own in str(refused) for own in why)
        return
    other, batch = copy.deepcopy(model), images_for(model)
    train(model, [batch], total=100)
    train(other, [batch], total=100, parts=2)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@every_model
def test_losses_that_compare_images_are_refused_where_ranks_or_parts_would_split_a_batch(name):
    model = build(name)
    if not model.compares_images:
        check_ranks(model)
        return
    for check, remedy in ((check_ranks, "devices=1"), (check_parts, "accumulate=1")):
        with pytest.raises(UserMistake, match=f"compares the images of a batch .*{remedy}"):
            check(model)


@every_model
def test_losses_in_bf16_are_close_to_those_in_float32(name):
    model = build(name, rate=1e-4)
    half, batch = copy.deepcopy(model), images_for(model)
    full = train(model, [batch, batch], total=100).training.means()
    mixed = train(half, [batch, batch], total=100, precision="bf16-mixed").training.means()
    assert full.keys() == mixed.keys()
    assert all(p.dtype == torch.float32 for p in half.parameters())
    for tracked, value in full.items():
        assert math.isclose(mixed[tracked], value, rel_tol=0.1, abs_tol=0.1), tracked
    assert full != mixed  # it did compute in bf16


@every_model
def test_samples_and_reconstructions_are_images_in_range(name):
    model = build(name).eval()
    with torch.no_grad():
        z = model.latents(5, torch.Generator().manual_seed(0))
        assert torch.equal(z, model.latents(5, torch.Generator().manual_seed(0)))
        made = [model.sample(z), model.sample(10 * z)]
        if isinstance(model, Reconstructs):
            made.append(model.reconstruct(images_for(model)[:5]))
    for images in made:
        assert images.shape == (5, 1, SIZE, SIZE)
        assert images.abs().max() <= 1


@pytest.mark.slow
def test_a_row_imports_no_other_row():
    rows = {composed(name).model._target_.rpartition(".")[0] for name in TRAINED}
    for row in rows:
        tree = ast.parse(inspect.getsource(importlib.import_module(row)))
        taken = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not taken & (rows - {row}), row

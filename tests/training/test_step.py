"""Steps of real runs: their random numbers, and which players a move changes."""

import pytest
import torch

from fixtures.callbacks import Watch
from fixtures.places import slow_but
from fixtures.training import go, make

# moves of one step, in order
MOVES = {
    "vae": ["autoencoder"],
    "gan": ["discriminator", "generator"],
    "wgan-gp": ["discriminator"] * 5 + ["generator"],
    "vae-gan": ["discriminator", "autoencoder"],
}
# draws of noise in one step: one for each batch of fakes, and for each batch that is encoded
DRAWS = {"vae": 1, "gan": 1, "wgan-gp": 5, "vae-gan": 2}
STEPS, BATCH, LATENT = 3, 64, 16
QUICK = ("wgan-gp", "vae-gan")  # which between them have everything that the others have
MODELS = [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in MOVES]
SHORT = [
    f"budget.images={STEPS * BATCH}",
    "trainer.samples=0",
    "+callbacks.watch._target_=fixtures.callbacks.Watch",
    # hardly anything is scored
    "evaluation.num_samples=64",
    "evaluation.likelihoods.bounds.max_images=10",
    *(f"evaluation.metrics.{name}=null" for name in ("kernel", "neighbours", "copy_rate")),
]


@pytest.fixture(scope="module")
def watched(tmp_path_factory, cache):
    """Train for three steps, the same settings once; (moves, draws of `noise`, of `uniform`)."""
    kept = {}

    def watched(*overrides, again=False):
        if again or overrides not in kept:
            run = make(tmp_path_factory.mktemp("run"), cache, *SHORT, *overrides)
            assert go(run) == 0
            kept[overrides] = [*Watch.turns], [*Watch.draws["noise"]], [*Watch.draws["uniform"]]
        return kept[overrides]

    return watched


def rows(draws):
    """The set of all rows of some draws."""
    return {tuple(row) for draw in draws for row in draw.flatten(1).tolist()}


@pytest.mark.parametrize("model", MODELS)
def test_no_latent_is_drawn_twice_by_any_step_or_any_move_within_a_step(watched, model):
    _, noise, _ = watched(f"model={model}")
    assert [draw.shape for draw in noise] == [(BATCH, LATENT)] * STEPS * DRAWS[model]
    assert len(rows(noise)) == BATCH * STEPS * DRAWS[model]
    everything = torch.cat(noise)
    assert everything.mean().abs() < 0.1
    assert (everything.std() - 1).abs() < 0.1


def test_no_mixture_of_real_and_fake_is_drawn_twice(watched):
    _, _, uniform = watched("model=wgan-gp")
    assert [draw.shape for draw in uniform] == [(BATCH, 1, 1, 1)] * STEPS * 5
    values = torch.cat(uniform).flatten()
    assert len(values.unique()) > 0.99 * len(values)  # torch.rand has 2 ** 24 values


@pytest.mark.slow
@pytest.mark.parametrize("model", slow_but(MOVES, "gan"))
def test_equal_seeds_draw_equal_noise_and_another_seed_draws_none_of_it(watched, model):
    _, first, _ = watched(f"model={model}")
    _, again, _ = watched(f"model={model}", again=True)
    _, other, _ = watched(f"model={model}", "seed=1")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not rows(first) & rows(other)


@pytest.mark.parametrize("model", slow_but(MOVES, "wgan-gp"))
def test_the_parts_of_a_batch_draw_the_noise_of_the_whole_batch(watched, model):
    _, whole, _ = watched(f"model={model}")
    _, parts, _ = watched(f"model={model}", "trainer.accumulate=2")
    assert {len(draw) for draw in parts} == {BATCH // 2}
    assert rows(parts) == rows(whole)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_while_a_player_moves_all_others_are_frozen_and_get_no_gradient(watched, model, accumulate):
    parts = [f"trainer.accumulate={accumulate}"] if accumulate > 1 else []
    turns, _, _ = watched(f"model={model}", *parts)
    assert [turn.player for turn in turns] == MOVES[model] * STEPS
    for turn in turns:
        assert turn.trainable == {turn.player}
        assert turn.received == {turn.player}

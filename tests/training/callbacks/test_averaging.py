"""Averaged weights: the average itself, its BatchNorm, and that training does not change."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fixtures.training import make
from genbench import train
from genbench.errors import UserMistake
from genbench.runs.result import read_result
from genbench.training.callbacks.averaging import Averaging
from genbench.training.module import Pace


class Decoding(nn.Module):
    """As much of a model as an average needs."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.device = decoder, torch.device("cpu")

    def latents(self, n, generator):
        return torch.randn(n, 4, generator=generator)

    def sample(self, z):
        return self.decoder(z)


def begin(decoder, **arguments):
    """As much of a run as an average needs, and its average."""
    run, averaging = (
        SimpleNamespace(
            model=Decoding(decoder),
            pace=Pace(batch_size=64),
            images_shown=0,
            device=torch.device("cpu"),
            after_step=[],
        ),
        Averaging(**arguments),
    )
    averaging.on_fit_start(None, run)
    assert run.after_step == [averaging.update]
    return run, averaging


def test_after_a_half_life_half_of_the_old_weights_is_left():
    run, averaging = begin(nn.Linear(4, 1), half_life=640, ramp=1e9)
    start = run.model.decoder.weight.detach().clone()
    with torch.no_grad():
        run.model.decoder.weight.add_(1.0)
    for _ in range(10):
        run.images_shown += 64
        averaging.update(run)
    torch.testing.assert_close(averaging.average.weight.detach(), start + 0.5)


def test_a_short_run_forgets_its_initial_weights():
    run, averaging = begin(nn.Linear(4, 1), half_life="10M", ramp=0.05)
    with torch.no_grad():
        run.model.decoder.weight.add_(1.0)
    for _ in range(100):
        run.images_shown += 64
        averaging.update(run)
    torch.testing.assert_close(
        averaging.average.weight, run.model.decoder.weight, atol=1e-3, rtol=0
    )


def test_averaged_weights_are_used_only_inside_the_context():
    run, averaging = begin(nn.Linear(4, 1), half_life=64, ramp=1.0)
    raw = run.model.decoder
    with averaging.applied(run.model):
        assert run.model.decoder is averaging.average
    assert run.model.decoder is raw


def test_a_half_life_must_be_above_zero():
    with pytest.raises(UserMistake, match="half_life=0"):
        Averaging(0)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], ["network=conv", "network.width=4"]], ids=["mlp", "conv"])
def test_the_average_is_scored_beside_the_raw_weights_and_changes_nothing(tmp_path, cache, extra):
    settings = ["model=vae-gan", "budget.images=2560", *extra]
    plain, averaged = (
        make(tmp_path, cache, *settings, *ema, run_id=name)
        for name, ema in (("plain", []), ("averaged", ["ema=standard"]))
    )
    assert train.main([str(plain)]) == 0
    assert train.main([str(averaged)]) == 0

    def by_weights(run):
        found = {}
        for score in read_result(run).scores:
            weights = score.card.get("fake", {}).get("weights", "raw")
            found[score.name, weights] = (score.value, score.protocol)
        return found

    first, second = by_weights(plain), by_weights(averaged)
    assert all(second[key] == value for key, value in first.items())
    extra_scores = {key: value for key, value in second.items() if key not in first}
    assert ("fd_lenet-digits-v1", "ema") in extra_scores
    assert all(weights == "ema" for _, weights in extra_scores)
    raw, ema = (second["fd_lenet-digits-v1", weights] for weights in ("raw", "ema"))
    assert raw[0] != ema[0]
    assert raw[1] != ema[1]  # another protocol: never in one column


def test_the_average_is_saved_in_and_restored_from_a_checkpoint():
    run, averaging = begin(nn.Linear(4, 1), half_life=64, ramp=1.0)
    run.images_shown = 64
    averaging.update(run)
    again = Averaging(64, 1.0)
    again.load_state_dict(copy.deepcopy(averaging.state_dict()))
    again.on_fit_start(None, run)
    assert torch.equal(again.average.weight, averaging.average.weight)

"""What real images have in place of samples, for a whole run."""

from fixtures.evaluation import CPU, Squares, make_decoder, make_evaluation, values
from genbench.metrics.frechet import FrechetDistance
from genbench.models.noise import Noise


def make_noise(data):
    model = Noise()
    model.observe(data)
    return model


def test_floors_are_computed_once_for_all_weights_of_a_run(tmp_path, monkeypatch):
    computed = []
    real = FrechetDistance.floors
    monkeypatch.setattr(
        FrechetDistance, "floors", lambda self, *args: computed.append(args) or real(self, *args)
    )
    evaluation, data = make_evaluation(tmp_path), Squares()
    raw = values(evaluation(make_decoder(), data, CPU))
    evaluation(make_decoder(), data, CPU, averaging={})
    best = values(evaluation(make_noise(data), data, CPU))
    assert len(computed) == 1
    assert raw["fd_floor_small"] == best["fd_floor_small"] is not None

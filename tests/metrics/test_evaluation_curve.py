"""Quality and time over the number of evaluations of a model that integrates its samples."""

import pytest
import torch

from fixtures.evaluation import CPU, Squares, make_decoder, make_evaluation, values
from fixtures.rows import build
from genbench.comparison.family import depends_on_model
from genbench.errors import UserMistake
from genbench.metrics.evaluation_curve import EvaluationCurve, taking


def test_the_distance_at_the_models_own_number_is_its_distance(tmp_path):
    torch.manual_seed(0)
    model = build("flow-matching", "network.width=8", "model.evaluations=3")
    curve = EvaluationCurve(enabled=True, numbers=[1, 3])
    found = make_evaluation(tmp_path, evaluations=curve)(model, Squares(), CPU)
    scores, cards = values(found), {score.name: score.card for score in found}
    assert scores["fd_evaluations_3_small"] == pytest.approx(scores["fd_small"], rel=1e-6)
    assert scores["fd_evaluations_1_small"] != scores["fd_evaluations_3_small"]
    assert cards["fd_evaluations_1_small"]["fake"]["evaluations"] == 1
    by_name = {score.name: score for score in found}
    assert depends_on_model(by_name["fd_evaluations_1_small"])
    for number in (1, 3):  # a time is of the machine: no test is one of it
        assert not depends_on_model(by_name[f"milliseconds_evaluations_{number}"])
    assert model.evaluations == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_it_is_of_models_that_integrate_and_off_by_default(tmp_path, enabled):
    torch.manual_seed(0)
    model = make_decoder() if enabled else build("flow-matching", "network.width=8")
    curve = EvaluationCurve(enabled=enabled, numbers=[1])
    found = make_evaluation(tmp_path, evaluations=curve)(model, Squares(), CPU)
    assert not [name for name in values(found) if "evaluations" in name]


def test_the_models_own_number_comes_back_after_a_mistake():
    model = build("flow-matching", "network.width=8")
    with pytest.raises(UserMistake), taking(model, 7):
        assert model.evaluations == 7
        raise UserMistake("x")
    assert model.evaluations == 20
    with pytest.raises(UserMistake, match="numbers=0"):
        EvaluationCurve(enabled=True, numbers=[0])
    with pytest.raises(UserMistake, match="numbers=3: give whole numbers in a list"):
        EvaluationCurve(enabled=True, numbers=3)

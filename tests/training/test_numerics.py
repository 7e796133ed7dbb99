"""TF32 and determinism: what is set while a run trains, and that it is as before afterwards."""

import pytest
import torch

from fixtures.trainers import engine
from genbench.errors import UserMistake
from genbench.models.undisturbed import undisturbed
from genbench.runs.method import fingerprint
from genbench.training.callbacks.contract import RunCallback
from genbench.training.numerics import check_tf32, computing


def flags():
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic


@pytest.mark.parametrize(
    ("tf32", "matmul", "convolutions"),
    [("auto", "highest", True), ("true", "high", True), ("false", "highest", False)],
)
def test_float32_is_rounded_as_it_is_said(tf32, matmul, convolutions):
    before = flags()
    with computing(tf32, False):
        assert flags() == (matmul, convolutions, before[2])
    with computing(tf32, True):
        assert flags() == (matmul, convolutions, True)
    assert flags() == before


def test_other_words_are_refused():
    assert [check_tf32(value) for value in (True, False, "auto")] == ["true", "false", "auto"]
    with pytest.raises(UserMistake, match="trainer.tf32=maybe is not one of auto, true, false"):
        check_tf32("maybe")


def test_a_run_trains_with_its_settings(tmp_path, cache):
    seen = []

    class Look(RunCallback):
        def after_batch(self, run, since):
            seen.append(flags())

    made = engine(tmp_path, cache, "trainer.tf32=true", "trainer.deterministic=true")
    made.trainer.callbacks.append(Look())
    before = flags()
    made.fit(resume=False)
    assert set(seen) == {("high", True, True)}
    assert flags() == before
    assert made.peak_memory > 0


def test_tf32_is_part_of_the_method_where_it_is_chosen():
    config = {
        "model": {"_target_": "genbench.models.vae.VAE"},
        "dataset": {},
        "budget": {"images": 10},
        "trainer": {"precision": "32-true"},
    }
    older = fingerprint(config)

    def chosen(value):
        return fingerprint({**config, "trainer": {"precision": "32-true", "tf32": value}})

    assert chosen("auto") == older
    assert len({older, chosen(True), chosen(False)}) == 3
    assert chosen(True) == chosen("true")


def test_scores_are_computed_in_float32_however_a_run_trains():
    model, before = torch.nn.Linear(2, 2), flags()
    with computing("true", False), undisturbed(model, torch.device("cpu"), 0):
        assert flags() == ("highest", False, True)
    assert flags() == before

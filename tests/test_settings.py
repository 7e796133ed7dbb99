"""Values out of range: a sentence before training."""

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fixtures.places import slow_but
from fixtures.settings import outcome
from genbench.errors import GenbenchError, UserMistake
from genbench.training.endings import explain

OUT_OF_RANGE = [
    ("seed=1.5", "seed=1.5: give a whole number from 0"),
    ("seed=-1", "seed=-1: give a whole number from 0"),
    ("model.optimizer.lr=-1", "autoencoder's optimizer cannot be made: Invalid learning rate"),
    (
        "model.optimizer.betas=[0.5]",
        "autoencoder's optimizer cannot be made: list index out of range",
    ),
    ("network.width=0", "network.width=0: give a whole number from 1 on"),
    ("arena.latent_dim=0", "arena.latent_dim=0: give a whole number from 1 on"),
    ("arena.latent_dim=65", "arena.latent_dim=65 is above the 64 values of an image of digits"),
    ("evaluation.batch_size=1.5", "evaluation.batch_size=1.5: give a whole number from 1 on"),
    ("schedule.hold=1", "schedule.hold=1 is not a share of the budget"),
    ("model.optimizer.betas=[0.9,1.5]", "Invalid beta parameter at index 1: 1.5"),
]


@pytest.mark.parametrize(
    ("override", "sentence"), slow_but(OUT_OF_RANGE, OUT_OF_RANGE[2], OUT_OF_RANGE[6])
)
def test_values_out_of_range_are_refused_before_training(tmp_path, override, sentence):
    overrides = ["model=vae", "schedule=cosine", override]
    ended = outcome(overrides, tmp_path, False)
    assert isinstance(ended, UserMistake), ended
    assert sentence in str(ended)


@pytest.mark.parametrize(
    ("block", "kind", "sentence"),
    [
        ({"_target_": "nowhere.X"}, UserMistake, "a: nowhere.X cannot be made of its settings"),
        (
            {"_target_": "genbench.networks.mlp.MLPTrunk", "width": 3},
            UserMistake,
            "missing 3 required positional arguments",
        ),
        ({"_target_": "os.stat", "path": "/not/there"}, GenbenchError, "no such file or directory"),
    ],
)
def test_a_class_that_cannot_be_made_is_told_in_a_sentence(block, kind, sentence):
    with pytest.raises(InstantiationException) as raised:
        instantiate({"a": block})
    ended = explain(raised.value, OmegaConf.create({"paths": {"outputs": "here"}}))
    assert type(ended) is kind
    assert sentence in str(ended) and "\n" not in str(ended)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    slow_but(
        [
            (("model=vae-gan", "model.feature_stage=5"), "this discriminator has 2 stages"),
            (("model=vae-gan", "model.feature_stage=0.5"), "give a whole number"),
            (("model=vq", "model.prior.codes=128"), "are not the 64 of model.codebook"),
            (("model=mode-drop", "model.seed=null"), "model.seed=None: give a whole number"),
        ]
    ),
)
def test_settings_of_models_that_do_not_fit_are_a_sentence(tmp_path, overrides, sentence):
    ended = outcome([*overrides, "budget.images=64"], tmp_path, True)
    assert isinstance(ended, UserMistake), ended
    assert sentence in str(ended)

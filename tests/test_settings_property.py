"""Any value of any setting: a run that starts, or a sentence that refuses it.

Needs hypothesis. GENBENCH_EXAMPLES=1000 tries so many values instead of the few of every day.
"""

import contextlib
import math
import os
import warnings
from pathlib import Path

import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from genbench import train
from genbench.errors import Diverged, UserMistake
from genbench.launch import mistakes, task
from genbench.launch.settings import check_values
from genbench.training import trainer
from genbench.training.endings import explain

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
EXAMPLES = int(os.environ.get("GENBENCH_EXAMPLES", "20"))
BASES = {  # several rows and networks, each with what others leave out
    "vae": ["model=vae", "schedule=cosine"],
    "gan": ["model=gan", "network=conv", "ema=standard"],
    "vae-gan": ["model=vae-gan", "selection=fd", "selection.num_samples=16"],
}
SMALL = ["trainer=smoke", "budget.images=128", "evaluation.num_samples=16", "logger=csv"]
# what names a folder, a run or a class, and Hydra's own
NOT_TRIED = ("choices", "paths", "study", "tags", "run_id", "search", "tuned", "versions", "hydra")
PREPARED = ("trainer.devices", "trainer.compile", "dataset.cache_gb")  # starting them takes long
VALUES = st.one_of(
    st.integers(-3, 4),
    st.floats(-2, 2, width=16),
    st.sampled_from([math.nan, math.inf, -math.inf, "x", "null", "true", "[1]", "1e3"]),
)


def composed(overrides, folder):
    """The resolved config of overrides, checked as those of a command line are."""
    places = [f"paths.outputs={folder}", f"paths.cache={folder}/cache"]
    with mistakes.explained(overrides):
        cfg = compose("train", [*SMALL, *places, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        del cfg.hydra
        check_values(overrides)
        return OmegaConf.create(task.resolve(cfg))


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif not key.startswith("_") and prefix.split(".")[0] not in NOT_TRIED:
            yield f"{prefix}{key}"


def outcome(overrides, folder, fits):
    """None for a run that starts, else what ends it."""
    try:
        made = train.prepare(folder / "run", composed(overrides, folder), None, False, [])
        if fits and made.engine.world_size == 1:
            made.engine.checkpoints.save = lambda *_: None
            made.engine.fit(resume=False)
    except Exception as error:
        return explain(error, OmegaConf.create({"paths": {"outputs": str(folder)}}))
    return None


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Base and name of every setting."""
    folder = tmp_path_factory.mktemp("settings")
    trainer.quieten_lightning()
    found = []
    for base, overrides in BASES.items():
        plain = OmegaConf.to_container(composed(overrides, folder))
        names = [name for name in leaves(plain) if name not in NOT_TRIED]
        found += [(base, name) for name in names]
    return found, folder


@pytest.mark.slow
def test_every_value_starts_a_run_or_is_answered_by_a_sentence(settings):
    found, folder = settings

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.sampled_from(found), VALUES)
    def holds(setting, value):
        base, name = setting
        override = f"{name}={value}"
        with contextlib.chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended = outcome([*BASES[base], override], folder, name not in PREPARED)
        fine = ended is None or isinstance(ended, UserMistake | Diverged)
        assert fine, f"{base}: {override}: {ended}"
        assert "\n" not in str(ended or ""), ended

    holds()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed=1.5", "seed=1.5: give a whole number from 0"),
        ("seed=-1", "seed=-1: give a whole number from 0"),
        ("model.optimizer.lr=-1", "autoencoder's optimizer cannot be made: Invalid learning rate"),
        ("network.width=0", "network.width=0: give a whole number from 1 on"),
        ("arena.latent_dim=0", "arena.latent_dim=0: give a whole number from 1 on"),
        ("arena.latent_dim=65", "arena.latent_dim=65 is above the 64 values of an image of digits"),
        ("evaluation.batch_size=1.5", "evaluation.batch_size=1.5: give a whole number from 1 on"),
        ("schedule.hold=1", "schedule.hold=1 is not a share of the budget"),
        ("model.optimizer.betas=[0.9,1.5]", "Invalid beta parameter at index 1: 1.5"),
    ],
)
def test_values_out_of_range_are_refused_before_training(tmp_path, override, sentence):
    overrides = ["model=vae", "schedule=cosine", override]
    ended = outcome(overrides, tmp_path, False)
    assert isinstance(ended, UserMistake), ended
    assert sentence in str(ended)

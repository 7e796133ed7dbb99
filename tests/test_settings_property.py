"""Any value of any setting: a run that starts, or a sentence that refuses it.

Needs hypothesis. GENBENCH_EXAMPLES=1000 tries so many values instead of the few of every day.
"""

import contextlib
import math
import os
import warnings

import pytest
from omegaconf import OmegaConf

from fixtures.settings import composed, outcome
from genbench.errors import Diverged, UserMistake
from genbench.training import trainer

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
EXAMPLES = int(os.environ.get("GENBENCH_EXAMPLES", "20"))
BASES = {  # several rows and networks, each with what others leave out
    "vae": ["model=vae", "schedule=cosine"],
    "gan": ["model=gan", "network=conv", "ema=standard"],
    "vae-gan": ["model=vae-gan", "selection=fd", "selection.num_samples=16"],
}
# what names a folder, a run or a class, and Hydra's own
NOT_TRIED = ("choices", "paths", "study", "tags", "run_id", "search", "tuned", "versions", "hydra")
PREPARED = ("trainer.devices", "trainer.compile", "dataset.cache_gb")  # starting them takes long
VALUES = st.one_of(
    st.integers(-3, 4),
    st.floats(-2, 2, width=16),
    st.sampled_from([math.nan, math.inf, -math.inf, "x", "null", "true", "[1]", "1e3"]),
)


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif not key.startswith("_") and prefix.split(".")[0] not in NOT_TRIED:
            yield f"{prefix}{key}"


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

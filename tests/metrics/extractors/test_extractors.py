"""Every extractor has a config, a card and a line in the status."""

import json
import shutil

import pytest
import torch
from hydra import compose
from hydra.utils import instantiate
from safetensors.torch import load_file

from fixtures.extractors import LENETS, NAMES, WEIGHTS
from genbench.launch.settings import composing
from genbench.metrics import extractors
from genbench.metrics.extractors import SHIPPED, alternatives, status
from genbench.runs.paths import config_root


def test_the_status_lists_every_extractor_and_finds_fetched_weights(tmp_path):
    found = {entry.name: entry for entry in status(tmp_path)}
    assert set(found) == {*NAMES, "random-conv-v1", "inception-2015"}
    assert all(found[name].present for name in {*found} - {"inception-2015"})
    assert not found["inception-2015"].present
    cached = tmp_path / "extractors" / extractors.INCEPTION_FILE
    cached.parent.mkdir()
    cached.touch()
    assert "is not whole" in status(tmp_path)[-1].where
    with cached.open("wb") as file:
        file.truncate(extractors.INCEPTION_BYTES)
    assert status(tmp_path)[-1] == ("inception-2015", True, str(cached))


def test_the_status_names_weights_that_are_not_those_of_their_card(tmp_path):
    folder = tmp_path / "extractors"
    folder.mkdir()
    shutil.copy(SHIPPED / "lenet-digits-v1.json", folder / "mine.json")
    for content in (None, b"else"):
        if content:
            (folder / "mine.safetensors").write_bytes(content)
        (found,) = (entry for entry in status(tmp_path) if entry.name == "mine")
        assert not found.present
        assert "not what its card describes" in found.where


CARD = {
    "name", "sha256", "layer", "feature_dim", "input_size", "resize", "channels", "value_range",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(p.stem for p in (config_root() / "extractor").glob("*")))
def test_every_extractor_is_built_from_its_config_and_has_a_card(name):
    with composing():
        cfg = compose("train", [f"extractor={name}"])
        extractor = instantiate(cfg.extractor)
    assert extractor.name.startswith(name)
    assert set(extractor.card) == CARD
    digest = extractor.card[
        "sha256"
    ]  # of files that the user brings it is known when they are read
    assert digest is None if name in ("lenet", "convnet", "dinov2") else len(digest) == 64
    json.dumps(extractor.card)


def test_weights_are_stored_in_float32_or_rounded_to_half_of_it():
    for path in WEIGHTS:
        expected = torch.float32 if path.stem in LENETS else torch.float16
        assert {weight.dtype for weight in load_file(path).values()} == {expected}


def test_what_fits_the_images_is_offered_first():
    assert alternatives(8, 1).startswith("extractor=lenet-digits-v1 ")
    offers = [offer.split(" (")[0] for offer in alternatives(32, 3).split("), ")]
    shipped = ["extractor=convnet-cifar10-v2", "extractor=convnet-cifar10-v1"]
    assert offers == [*shipped, "extractor=random-conv-v1", "evaluation=none"]
    assert "cifar10" not in alternatives(64, 3)
    assert "evaluation=none" not in alternatives(64, 3, trained=True)

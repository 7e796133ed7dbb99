"""The small classifiers: their weights against their cards."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from fixtures.extractors import LENETS, draw_pixels
from genbench.commands import extractor as extractor_module
from genbench.errors import UserMistake
from genbench.metrics.extractors import SHIPPED, read_card, sha256_of, training
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.frechet import distance, moments
from genbench.metrics.inception_score import inception_score

DATA = Path(os.environ.get("GENBENCH_DATA", "data"))  # read here: no test sees it


def images_of(dataset, cache):
    """A dataset and its labelled splits; skipped where it is not at hand."""
    if dataset != "digits" and not (DATA / "MNIST").is_dir():
        pytest.skip(f"{dataset} is not at hand")
    data, _ = extractor_module.compose_data(
        dataset, [f"paths.data={DATA.absolute()}", f"paths.cache={cache}"]
    )
    return data, training.label(data)


def by_cost(name):
    """Reading a large dataset takes longer than all other tests here."""
    large = read_card(SHIPPED / f"{name}.safetensors")["trained_on"]["n"] > 10_000
    return pytest.param(name, marks=[pytest.mark.slow] if large else [])


def by_our_metrics(network, splits):
    test = splits["test"]
    real = moments(training.look(network, splits["train"].images).features)
    sets = {
        "fd_train_test": test.images,
        "fd_blur": training.blurred(test),
        "fd_noise": training.uniform(test),
    }
    found = {
        name: distance(real, moments(training.look(network, images).features))
        for name, images in sets.items()
    }
    return {**found, "is_test": inception_score(training.look(network, test.images).logits)}


@pytest.mark.parametrize("name", [by_cost(name) for name in LENETS])
def test_shipped_weights_are_small_and_give_the_numbers_of_their_card(name, tmp_path):
    path = SHIPPED / f"{name}.safetensors"
    assert path.stat().st_size < 1 << 20
    card, extractor = read_card(path), LeNet(name)
    extractor.prepare()
    assert extractor.name == card["name"] == name
    assert extractor.card["sha256"] == card["sha256"] == sha256_of(path)
    assert sum(p.numel() for p in extractor.parameters()) == card["parameters"]
    data, splits = images_of(card["trained_on"]["dataset"], tmp_path)
    for part, split in (("trained_on", "train"), ("tested_on", "test")):
        assert data.card(split)["fingerprint"] == card[part]["fingerprint"]
    assert training.goldens(extractor.network, splits) == pytest.approx(card["goldens"], rel=1e-5)
    assert by_our_metrics(extractor.network, splits) == pytest.approx(card["goldens"], rel=1e-5)
    found = training.accuracy(extractor.network, splits["test"])
    assert found == pytest.approx(card["accuracy"]["test"], abs=1e-3)
    assert found > 0.985


def test_the_digits_have_a_classifier_of_64_features():
    extractor = LeNet("lenet-digits-v1")
    pixels = draw_pixels(n=5, channels=1, size=8, levels=17)
    found = extractor(pixels, 17)
    assert found.features.shape == (5, 64)
    assert found.logits.shape == (5, 10)
    assert sum(p.numel() for p in extractor.parameters()) == 38_282
    assert torch.equal(found.features, extractor((pixels * 15), 241).features)  # levels are scaled


@pytest.mark.parametrize("name", LENETS)
def test_an_extractor_never_trains(name):
    extractor = LeNet(name)
    extractor.prepare()
    parent = torch.nn.ModuleList([extractor]).train()
    assert parent.training
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())


def test_a_changed_weight_is_refused(tmp_path):
    for suffix in ("safetensors", "json"):
        shutil.copy(SHIPPED / f"lenet-digits-v1.{suffix}", tmp_path)
    path = tmp_path / "lenet-digits-v1.safetensors"
    LeNet(str(path)).prepare()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserMistake, match="is not what its card describes"):
        LeNet(str(path)).prepare()


@pytest.mark.parametrize("broken", [None, "{", "[1]", "{}"])
def test_weights_without_a_card_are_refused(broken, tmp_path):
    path = Path(shutil.copy(SHIPPED / "lenet-digits-v1.safetensors", tmp_path))
    if broken:
        path.with_suffix(".json").write_text(broken)
    with pytest.raises(UserMistake, match="is not there with its card lenet-digits-v1.json"):
        LeNet(str(path)).prepare()


def test_an_unknown_classifier_is_answered_with_those_that_there_are():
    with pytest.raises(UserMistake, match=r"lenet-cats-v1.*lenet-digits-v1, lenet-mnist-v1"):
        LeNet("lenet-cats-v1").prepare()


def test_without_a_path_the_sentence_says_how_to_train_one():
    with pytest.raises(UserMistake, match=r"extractor.path is not set.*--dataset"):
        LeNet(None).prepare()


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="lenet-digits-v1 reads images"):
        LeNet("lenet-digits-v1")(draw_pixels(channels=1, size=28), 256)

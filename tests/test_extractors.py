"""Feature networks: their graphs against independent ones, their weights against their cards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose
from hydra.utils import instantiate
from PIL import Image
from safetensors.torch import load_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from genbench.errors import UserMistake
from genbench.metrics import extractors
from genbench.metrics.extractors import (
    INCEPTION_SHA256,
    SHIPPED,
    inception,
    read_card,
    sha256_of,
    status,
    training,
)
from genbench.metrics.extractors.inception import Inception, pil_bicubic, tf1_bilinear
from genbench.metrics.extractors.lenet import LeNet
from genbench.mistakes import composing, config_root

WEIGHTS = sorted(SHIPPED.glob("*.safetensors"))
NAMES = [path.stem for path in WEIGHTS]
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data"


def draw_pixels(n=3, channels=3, size=32, levels=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = n, channels, size, size
    return torch.randint(0, levels, shape, generator=generator, dtype=torch.uint8)


# --- the 2015 Inception ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    """Weights of the published file's names and shapes, drawn so that no layer fades out."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    state = {}
    for name, weight in inception.Network().state_dict().items():
        block = name.removesuffix(".weight")
        if name.startswith("fc."):
            state[name] = normal(*weight.shape) * 0.05
        elif name.endswith(".weight"):
            n = len(weight)
            state[f"{block}.conv.weight"] = normal(*weight.shape) * (2 / weight[0].numel()) ** 0.5
            state[f"{block}.bn.weight"] = normal(n) * 0.1 + 1.1
            state[f"{block}.bn.bias"] = normal(n) * 0.1
            state[f"{block}.bn.running_mean"] = normal(n) * 0.1
            state[f"{block}.bn.running_var"] = normal(n).abs() + 0.5
            state[f"{block}.bn.num_batches_tracked"] = torch.tensor(0)
    return state


@pytest.fixture(scope="module")
def network(published):
    extractor = Inception(resize="tf1-bilinear", path=None, cache="nowhere")
    extractor.load(published)
    return extractor


def test_the_inception_graph_is_that_of_torch_fidelity(published, network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(published, path)
    reference = FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
    )
    pixels = draw_pixels()
    features, logits = reference(pixels)
    found = network(pixels, 256)
    assert float(features.std()) > 0.1
    assert float((found.features - features).norm() / features.norm()) < 1e-5
    assert float((found.logits - logits).norm() / logits.norm()) < 1e-5
    assert found.features.dtype == torch.float32


def test_grey_images_are_repeated_and_levels_stretched(network):
    grey = draw_pixels(n=2, channels=1, size=8, levels=17)
    colour = (grey.float() * 255 / 16).expand(-1, 3, -1, -1)
    expected = network.network((tf1_bilinear(colour) - 128) / 128).features
    assert torch.allclose(network(grey, 17).features, expected, rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_batch(network, monkeypatch):
    pixels = draw_pixels(n=3)
    whole = network(pixels, 256).features
    monkeypatch.setattr(inception, "BATCH_ON_CPU", 2)
    assert torch.allclose(network(pixels, 256).features, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, 28, 32, 299, 400])
def test_resizing_as_tensorflow_1_is_that_of_torch_fidelity_bit_for_bit(size):
    images = draw_pixels(size=size).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(
        images, size=(299, 299), align_corners=False
    )
    assert torch.equal(tf1_bilinear(images), expected)


@pytest.mark.parametrize("size", [8, 28, 32, 299, 400])
def test_resizing_as_pillow_is_that_of_pillow(size):
    images = draw_pixels(n=1, size=size).float()
    for found, channel in zip(pil_bicubic(images)[0], images[0], strict=True):
        expected = Image.fromarray(channel.numpy()).resize((299, 299), Image.Resampling.BICUBIC)
        assert np.allclose(found.numpy(), np.asarray(expected).clip(0, 255), atol=1e-3)


def test_the_two_resizes_have_names_and_cards_of_their_own():
    plain, clean = (
        Inception(resize=resize, path=None, cache="nowhere") for resize in inception.RESIZES
    )
    assert plain.name == "inception-2015"
    assert clean.name == "inception-2015-clean"
    assert plain.card != clean.card
    assert plain.card["sha256"] == INCEPTION_SHA256
    with pytest.raises(UserMistake, match="extractor.resize='area'"):
        Inception(resize="area", path=None, cache="nowhere")


def test_other_weights_than_the_pinned_ones_are_refused(published, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(published, path)
    with pytest.raises(UserMistake, match="is not the Inception of 2015"):
        Inception(resize="tf1-bilinear", path=str(path), cache=str(tmp_path)).prepare()
    with pytest.raises(UserMistake, match="there is no such file"):
        Inception(resize="tf1-bilinear", path="absent.pth", cache=str(tmp_path)).prepare()


def test_without_a_network_there_is_a_sentence_and_no_other_extractor(tmp_path):
    with pytest.raises(UserMistake, match=r"cannot be fetched.*extractor\.path="):
        inception.fetch(tmp_path / "cache" / "weights.pth", (tmp_path / "absent").as_uri())
    assert not list((tmp_path / "cache").glob("*weights*"))


def test_what_is_fetched_is_whole_or_not_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "cache" / "weights.pth"
    source.write_bytes(b"weights")
    with pytest.raises(UserMistake, match="is not the Inception"):
        inception.fetch(target, source.as_uri())
    assert not list(target.parent.glob("*weights*"))
    assert not list(target.parent.glob(".*.tmp"))
    inception.fetch(target, source.as_uri(), sha256_of(source))
    assert target.read_bytes() == b"weights"
    source.unlink()
    inception.fetch(target, source.as_uri())  # it is there: nobody looks for the source


# --- small classifiers ----------------------------------------------------------------------------


def images_of(dataset, cache):
    """A dataset's labelled splits; skipped where it is not at hand."""
    if dataset != "digits" and not (MNIST / "MNIST").is_dir():
        pytest.skip(f"{dataset} is not at hand")
    return training.read(dataset, str(MNIST), cache=str(cache))


def by_cost(name):
    """Reading a large dataset takes longer than all other tests here."""
    large = read_card(SHIPPED / f"{name}.safetensors")["trained_on"]["n"] > 10_000
    return pytest.param(name, marks=[pytest.mark.slow] if large else [])


@pytest.mark.parametrize("name", [by_cost(name) for name in NAMES])
def test_shipped_weights_are_small_and_give_the_numbers_of_their_card(name, tmp_path):
    path = SHIPPED / f"{name}.safetensors"
    assert path.stat().st_size < 1 << 20
    card, extractor = read_card(path), LeNet(name)
    assert extractor.name == card["name"] == name
    assert extractor.card["sha256"] == card["sha256"] == sha256_of(path)
    assert sum(p.numel() for p in extractor.parameters()) == card["parameters"]
    data, splits = images_of(card["trained_on"]["dataset"], tmp_path)
    for part, split in (("trained_on", "train"), ("tested_on", "test")):
        assert data.card(split)["fingerprint"] == card[part]["fingerprint"]
    assert training.goldens(extractor.network, splits) == pytest.approx(card["goldens"], rel=1e-5)
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


@pytest.mark.parametrize("name", NAMES)
def test_an_extractor_never_trains(name):
    extractor = LeNet(name)
    parent = torch.nn.ModuleList([extractor]).train()
    assert parent.training
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())


def test_no_extractor_moves_the_global_generator(published):
    before = torch.get_rng_state()
    LeNet("lenet-digits-v1")
    Inception(resize="tf1-bilinear", path=None, cache="nowhere").load(published)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_changed_weight_is_refused(tmp_path):
    for suffix in ("safetensors", "json"):
        shutil.copy(SHIPPED / f"lenet-digits-v1.{suffix}", tmp_path)
    path = tmp_path / "lenet-digits-v1.safetensors"
    assert LeNet(str(path)).name == "lenet-digits-v1"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserMistake, match="is not what its card describes"):
        LeNet(str(path))


def test_an_unknown_classifier_is_answered_with_those_that_there_are():
    with pytest.raises(UserMistake, match=r"extractor.weights=lenet-cats-v1.*lenet-digits-v1"):
        LeNet("lenet-cats-v1")


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="lenet-digits-v1 reads images"):
        LeNet("lenet-digits-v1")(draw_pixels(channels=1, size=28), 256)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_again_gives_the_numbers_of_the_card(tmp_path):
    command = ["lenet-digits-v1", "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]
    assert training.main(command) == 0
    path = tmp_path / "lenet-digits-v1.safetensors"
    again, card = read_card(path), read_card(SHIPPED / path.name)
    assert again["goldens"] == pytest.approx(card["goldens"], rel=1e-2)
    assert again["recipe"] == card["recipe"]


def test_training_makes_the_same_bits_again_and_leaves_settings_alone():
    generator = torch.Generator().manual_seed(0)
    pixels = draw_pixels(n=64, channels=1, size=8, levels=17)
    labels = torch.randint(0, 3, (64,), generator=generator)
    torch.manual_seed(5)
    before, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    first, second = (
        training.train(training.Labelled(pixels, labels, 17), 3, epochs=2).state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["digits", "lenet-digits", "lenet-v1"])
def test_a_name_that_names_no_dataset_is_refused(name):
    with pytest.raises(UserMistake, match="is no name like lenet-mnist-v1"):
        training.main([name])


# --- what is at hand ------------------------------------------------------------------------------


def test_the_status_lists_every_extractor_and_finds_fetched_weights(tmp_path):
    found = {entry.name: entry for entry in status(tmp_path)}
    assert set(found) == {*NAMES, "inception-2015"}
    assert all(found[name].present for name in NAMES)
    assert not found["inception-2015"].present
    cached = tmp_path / "extractors" / extractors.INCEPTION_FILE
    cached.parent.mkdir()
    cached.touch()
    assert status(tmp_path)[-1] == ("inception-2015", True, str(cached))


@pytest.mark.parametrize("name", sorted(p.stem for p in (config_root() / "extractor").glob("*")))
def test_every_extractor_is_built_from_its_config_and_has_a_card(name):
    with composing(config_root()):
        cfg = compose("train", [f"extractor={name}"])
        extractor = instantiate(cfg.extractor)
    assert extractor.name == name
    assert {"name", "sha256", "layer", "dimensions", "input", "resize"} <= set(extractor.card)
    assert len(extractor.card["sha256"]) == 64
    json.dumps(extractor.card)


def test_weights_are_stored_in_float32():
    for path in WEIGHTS:
        assert {weight.dtype for weight in load_file(path).values()} == {torch.float32}

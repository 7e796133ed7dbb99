"""Feature networks: their graphs against independent ones, their weights against their cards."""

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
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

from genbench.commands import extractor as extractor_module
from genbench.errors import GenbenchError, UserMistake
from genbench.launch.settings import composing
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
from genbench.metrics.extractors.inception import Inception
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.extractors.resizing import pil_bicubic, tf1_bilinear
from genbench.metrics.frechet import distance, moments
from genbench.metrics.inception_score import inception_score
from genbench.runs.paths import config_root

WEIGHTS = sorted(SHIPPED.glob("*.safetensors"))
NAMES = [path.stem for path in WEIGHTS]
DATA = Path(os.environ.get("GENBENCH_DATA", "data"))  # read here: no test sees it


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


def test_a_folded_convolution_that_gives_other_numbers_is_refused(published):
    other = {
        **published,
        "Mixed_6c.branch7x7_2.bn.bias": published["Mixed_6c.branch7x7_2.bn.bias"] + 0.01,
    }
    with torch.device("meta"):
        network = inception.Network()
    network.load_state_dict(inception.folded(published), assign=True)
    inception.check_folded(network, published)
    with pytest.raises(GenbenchError, match=r"Mixed_6c.branch7x7_2 of the Inception"):
        inception.check_folded(network, other)


def test_autocast_around_an_extractor_changes_no_bit(network):
    classifier = LeNet("lenet-digits-v1")
    for extractor, pixels, levels in (
        (network, draw_pixels(n=1), 256),
        (classifier, draw_pixels(n=4, channels=1, size=8, levels=17), 17),
    ):
        alone = extractor(pixels, levels)
        with torch.autocast("cpu", torch.bfloat16):
            inside = extractor(pixels, levels)
        assert inside.features.dtype == inside.logits.dtype == torch.float32
        assert torch.equal(inside.features, alone.features)
        assert torch.equal(inside.logits, alone.logits)


def test_images_of_two_channels_are_refused(network):
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        network(draw_pixels(channels=2), 256)


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
    assert [path.name for path in target.parent.iterdir()] == [".lock"]
    inception.fetch(target, source.as_uri(), sha256_of(source))
    assert target.read_bytes() == b"weights"
    source.unlink()
    inception.fetch(target, source.as_uri())  # it is there: nobody looks for the source


class CutShort(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 600)

    def log_message(self, *arguments):
        pass


def test_a_download_that_ends_early_says_so_and_where_the_file_belongs(tmp_path):
    with HTTPServer(("127.0.0.1", 0), CutShort) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        target = tmp_path / "weights.pth"
        with pytest.raises(UserMistake, match="ended after 600 of 1,000 bytes") as found:
            inception.fetch(target, f"http://127.0.0.1:{server.server_port}/weights.pth")
    assert f"put it at {target}" in str(found.value)
    assert not list(tmp_path.glob("*weights*"))


# --- small classifiers ----------------------------------------------------------------------------


def images_of(dataset, cache):
    """A dataset and its labelled splits; skipped where it is not at hand."""
    if dataset != "digits" and not (DATA / "MNIST").is_dir():
        pytest.skip(f"{dataset} is not at hand")
    data, _ = extractor_module.compose_data(
        dataset, [f"paths.data={DATA.absolute()}", f"paths.cache={cache}"]
    )
    return data, training.label(dataset, data)


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


@pytest.mark.parametrize("name", [by_cost(name) for name in NAMES])
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


@pytest.mark.parametrize("name", NAMES)
def test_an_extractor_never_trains(name):
    extractor = LeNet(name)
    extractor.prepare()
    parent = torch.nn.ModuleList([extractor]).train()
    assert parent.training
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())


def test_no_extractor_moves_the_global_generator(published):
    before = torch.get_rng_state()
    LeNet("lenet-digits-v1").prepare()
    Inception(resize="tf1-bilinear", path=None, cache="nowhere").load(published)
    assert torch.equal(torch.get_rng_state(), before)


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


# --- training -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_again_gives_the_numbers_of_the_card(tmp_path):
    command = ["lenet-digits-v1", "--out", str(tmp_path), f"paths.cache={tmp_path / 'cache'}"]
    assert extractor_module.train_extractor(command) == 0
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


def test_a_classifier_of_own_pictures_goes_to_the_cache_and_is_read_from_there(tmp_path, capsys):
    draw = np.random.RandomState(0)
    for kind, brightness in (("dark", 0), ("light", 128)):
        (tmp_path / "cats" / kind).mkdir(parents=True)
        for i in range(20):
            picture = draw.randint(brightness, brightness + 128, (4, 4), np.uint8)
            Image.fromarray(picture).save(tmp_path / "cats" / kind / f"{i}.png")
    cache = tmp_path / "cache"
    settings = {
        "dataset.root": tmp_path / "cats",
        "dataset.name": "cats",
        "dataset.image_size": 4,
        "dataset.channels": 1,
        "dataset.test": 10,
        "paths.cache": cache,
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    assert (
        extractor_module.train_extractor(
            ["--dataset", "image-folder", "--epochs", "30", *overrides]
        )
        == 0
    )
    (path,) = (cache / "extractors").glob("*.safetensors")
    assert path.stem == f"cats-lenet-{sha256_of(path)[:8]}"
    assert str(path) in capsys.readouterr().out
    card = read_card(path)
    assert card["classes"] == 2
    assert card["accuracy"]["test"] == 1
    assert LeNet(str(path))(draw_pixels(channels=1, size=4), 256).logits.shape == (3, 2)
    assert status(cache)[-2] == (path.stem, True, f"trained here, {path.parent}")


def test_a_dataset_whose_classes_nobody_knows_is_refused(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "0.png")
    for i in range(1, 9):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{i}.png")
    settings = [f"dataset.root={tmp_path}", "dataset.image_size=4", "dataset.channels=1"]
    shares = ["dataset.validation=3", "dataset.test=3", f"paths.cache={tmp_path / 'cache'}"]
    with pytest.raises(UserMistake, match="no classes are known for dataset image-folder"):
        extractor_module.train_extractor(["--dataset", "image-folder", *settings, *shares])


@pytest.mark.parametrize("name", ["digits", "lenet-digits", "lenet-v1"])
def test_a_name_that_names_no_dataset_is_refused(name):
    with pytest.raises(UserMistake, match="is no name like lenet-mnist-v1"):
        extractor_module.train_extractor([name])


def test_a_dataset_or_a_setting_that_is_none_is_answered_by_a_sentence():
    with pytest.raises(UserMistake, match="digitz"):
        extractor_module.train_extractor(["--dataset", "digitz"])
    with pytest.raises(UserMistake, match="colour"):
        extractor_module.train_extractor(["--dataset", "digits", "dataset.colour=1"])


def test_a_name_or_a_dataset_is_needed_and_not_both():
    for command in ([], ["lenet-digits-v1", "--dataset", "digits"]):
        with pytest.raises(UserMistake, match="or --dataset NAME"):
            extractor_module.train_extractor(command)


# --- what is at hand ------------------------------------------------------------------------------


def test_the_status_lists_every_extractor_and_finds_fetched_weights(tmp_path):
    found = {entry.name: entry for entry in status(tmp_path)}
    assert set(found) == {*NAMES, "inception-2015"}
    assert all(found[name].present for name in NAMES)
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
    assert digest is None if name in ("lenet", "dinov2") else len(digest) == 64
    json.dumps(extractor.card)


def test_weights_are_stored_in_float32():
    for path in WEIGHTS:
        assert {weight.dtype for weight in load_file(path).values()} == {torch.float32}

"""The residual classifier: folding of its norms, and training on images that two classes tell apart."""

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.extractors import draw_pixels
from genbench.errors import UserMistake
from genbench.metrics.extractors import convnet_training, read_card, sha256_of
from genbench.metrics.extractors.convnet import ConvNet, Network, folded
from genbench.metrics.extractors.convnet_training import Shifted
from genbench.metrics.extractors.lenet import LeNet

CPU = torch.device("cpu")

DATA = Path(os.environ.get("GENBENCH_DATA", "data"))  # read here: no test sees it


def two_classes(n):
    """Images of 8 x 8 whose upper or lower half is bright, with noise."""
    pixels = draw_pixels(n=n, size=8) // 2
    labels = torch.arange(n) % 2
    for number, label in enumerate(labels):
        pixels[number, :, 4 * label : 4 * label + 4] += 100
    return pixels, labels


def fit(pixels, labels, epochs=8, seed=0, flip=True):
    return convnet_training.train(
        pixels, labels, 2, levels=256, epochs=epochs, flip=flip, device=CPU, seed=seed, half=False
    )


def test_folding_the_norms_changes_no_feature_beyond_rounding():
    torch.manual_seed(0)
    network, images = Network(3, 10, norm=True), draw_pixels(n=8).float() / 255
    for parameter in network.parameters():  # norms that do something
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        network(images)  # moves the running statistics
        expected, found = network.eval()(images), folded(network)(images)
    assert expected.features.std() > 0
    assert torch.allclose(found.features, expected.features, rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_residual_classifier_learns():
    network = fit(*two_classes(64), epochs=30)
    test, expected = two_classes(32)
    with torch.no_grad():
        found = network(test.float() / 255).logits.argmax(1)
    assert (found == expected).float().mean() > 0.9


def test_training_again_makes_the_same_bits_and_another_seed_others():
    first, again, other = (
        torch.cat([p.flatten() for p in fit(*two_classes(16), epochs=2, seed=seed).parameters()])
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("flip", [True, False])
def test_an_epoch_shows_every_image_once_shifted_and_mirrored(flip):
    pixels = draw_pixels(n=12, size=16, seed=1)
    images = Shifted(pixels, 256, flip, CPU)
    padded = np.pad(pixels.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)], mode="reflect")
    seen, mirrored = [], 0
    for shown, rows in images.epoch(np.random.RandomState(0), 4):
        assert shown.shape == (4, 3, 16, 16)
        for image, row in zip(shown.mul(255).round().byte().numpy(), rows.tolist(), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(padded[row], (16, 16), (1, 2))
            straight = (windows == image[:, None, None]).all((0, 3, 4)).any()
            turned = (windows == image[:, None, None, :, ::-1]).all((0, 3, 4)).any()
            assert straight or turned
            mirrored += not straight
            seen.append(row)
    assert sorted(seen) == list(range(12))
    assert (mirrored > 0) == flip


def test_images_too_small_for_it_are_refused():
    with pytest.raises(UserMistake, match="8 pixels a side or more, not 4"):
        fit(draw_pixels(n=4, size=4), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(("wrong", "right"), [(LeNet, "convnet"), (ConvNet, "lenet")])
def test_a_file_of_another_architecture_is_refused(wrong, right):
    name = {"convnet": "convnet-cifar10-v1", "lenet": "lenet-mnist-v1"}[right]
    with pytest.raises(UserMistake, match=f"choose extractor={right}"):
        wrong(name).prepare()


@pytest.mark.parametrize(("version", "accuracy"), [("v1", 0.84), ("v2", 0.88)])
def test_the_shipped_ones_read_photographs_of_32_pixels_in_float32(version, accuracy):
    extractor = ConvNet(f"convnet-cifar10-{version}")
    found = extractor(draw_pixels(n=4), 256)
    assert found.features.shape == (4, extractor.card["feature_dim"]) == (4, 128)
    assert found.logits.shape == (4, 10)
    assert found.features.dtype == torch.float32
    card = read_card(extractor.path)
    assert card["accuracy"]["test"] > accuracy
    assert card["sha256"] == sha256_of(extractor.path) == extractor.card["sha256"]
    assert card["parameters"] == sum(p.numel() for p in extractor.parameters())
    assert extractor.path.stat().st_size < 3e6


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_its_accuracy_on_a_twentieth_of_the_test_images_is_that_of_its_card(version):
    """CIFAR-10 as JPEG, where it is at hand: a folder for each class in a zip."""
    archive = DATA / "cifar10-jpeg.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not at hand")
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if re.match(r"test/\w+/.+jpg$", name))
        kinds = sorted({name.split("/")[1] for name in names})
        names = names[::20]
        pictures = [np.asarray(Image.open(opened.open(name))) for name in names]
    labels = torch.tensor([kinds.index(name.split("/")[1]) for name in names])
    extractor = ConvNet(f"convnet-cifar10-{version}")
    found = extractor(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), 256).logits.argmax(
        1
    )
    accuracy = read_card(extractor.path)["accuracy"]["test"]
    deviation = (accuracy * (1 - accuracy) / len(names)) ** 0.5
    assert (found == labels).double().mean().item() == pytest.approx(accuracy, abs=3 * deviation)

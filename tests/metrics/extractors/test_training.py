"""Training a classifier: reproducible, and on a dataset of the user's own."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.extractors import draw_pixels
from genbench.commands import extractor as extractor_module
from genbench.errors import UserMistake
from genbench.metrics.extractors import SHIPPED, read_card, sha256_of, status, training
from genbench.metrics.extractors.lenet import LeNet


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
    with pytest.raises(UserMistake, match=f"no classes are known for dataset {tmp_path.name}: "):
        extractor_module.train_extractor(["--dataset", "image-folder", *settings, *shares])


@pytest.mark.parametrize("name", ["digits", "lenet-digits", "lenet-v1"])
def test_a_name_that_names_no_dataset_is_refused(name):
    with pytest.raises(UserMistake, match="is not a name like lenet-mnist-v1"):
        extractor_module.train_extractor([name])


def test_a_dataset_or_a_setting_that_is_none_is_answered_by_a_sentence():
    with pytest.raises(UserMistake, match="digitz"):
        extractor_module.train_extractor(["--dataset", "digitz"])
    with pytest.raises(UserMistake, match="colour"):
        extractor_module.train_extractor(["--dataset", "digits", "dataset.colour=1"])


def test_a_name_or_a_dataset_is_needed_and_one_architecture():
    with pytest.raises(UserMistake, match="or --dataset NAME"):
        extractor_module.train_extractor([])
    with pytest.raises(UserMistake, match="names a lenet, not --architecture convnet"):
        extractor_module.train_extractor(["lenet-digits-v1", "--architecture", "convnet"])


def test_a_lenet_is_not_trained_on_a_gpu():
    with pytest.raises(UserMistake, match="--architecture convnet takes a GPU"):
        extractor_module.train_extractor(["lenet-digits-v1", "--device", "cuda"])

"""Labels that a model can be told: classes, attributes, and how they come with training images."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch

from fixtures.data import make_digits, make_images
from fixtures.stand_ins import make_celeba
from fixtures.worlds import make_shapes
from genbench.data.attributes import of_factors
from genbench.data.factors import Factors
from genbench.data.folders import CelebA
from genbench.data.sources import Cifar
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake
from genbench.models.condition import condition_of

FACES = {"image_size": 64, "channels": 3, "crop": 140, "validation": None, "test": None}


def write_cifar(folder, kind):
    key, meta = ("labels", "batches.meta") if kind == "CIFAR10" else ("fine_labels", "meta")
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = files if kind == "CIFAR10" else ["train", "test"]
    folder.mkdir(parents=True)
    for number, name in enumerate(files):
        rows = np.random.default_rng(number).integers(0, 256, (4, 3072), dtype=np.uint8)
        content = {"data": rows, key: [number, 0, 1, number], "coarse_labels": [9] * 4}
        (folder / name).write_bytes(pickle.dumps(content))
    names = {key.replace("labels", "label_names"): [f"name {i}" for i in range(6)]}
    (folder / meta).write_bytes(pickle.dumps(names))
    return len(files)


@pytest.mark.parametrize(
    ("kind", "folder"), [("CIFAR10", "cifar-10-batches-py"), ("CIFAR100", "cifar-100-python")]
)
def test_the_classes_of_cifar_are_those_of_its_batches_by_their_names(tmp_path, kind, folder):
    files = write_cifar(tmp_path / "data" / folder, kind)
    source = partial(Cifar, torchvision_class=kind, title="CIFAR")
    data = make_images(tmp_path, source, validation=2, test=None, image_size=32, channels=3)
    assert data.labels("test").tolist() == [files - 1, 0, 1, files - 1]
    every = np.concatenate([[n, 0, 1, n] for n in range(files - 1)])
    assert np.array_equal(data.labels("train"), every[data.source.split("train")])
    assert data.class_names[2] == "name 2"
    (tmp_path / "data" / folder / ("batches.meta" if kind == "CIFAR10" else "meta")).unlink()
    assert data.labels("train") is None


def test_attributes_of_celeba_come_from_kaggles_list_too_and_a_damaged_one_says_so(tmp_path):
    folder = make_celeba(tmp_path / "data")
    data = make_images(tmp_path, CelebA, **FACES)
    found = data.attributes("train")
    assert found.values.shape == (8, 40) and set(found.values.ravel()) == {0, 1}
    text = folder / "list_attr_celeba.txt"
    _, head, *rows = text.read_text().splitlines()
    comma = [",".join(["image_id", *head.split()]), *(",".join(row.split()) for row in rows)]
    (folder / "list_attr_celeba.csv").write_text("\n".join(comma) + "\n")
    text.unlink()
    again = make_images(tmp_path, CelebA, **FACES).attributes("train")
    assert again.names == found.names and np.array_equal(again.values, found.values)
    (folder / "list_attr_celeba.csv").write_text("\n".join(comma[:-2]) + "\n")
    with pytest.raises(UserMistake, match=r"list_attr_celeba.csv does not list 40 attributes"):
        make_images(tmp_path, CelebA, **FACES).attributes("train")
    (folder / "list_attr_celeba.csv").unlink()
    assert make_images(tmp_path, CelebA, **FACES).attributes("train") is None


def test_every_value_of_several_factors_is_an_attribute():
    factors = Factors(("f", "g"), (("a", "b"), ("x", "y", "z")), np.array([[0, 2], [1, 0]]))
    found = of_factors(factors)
    assert found.names == ("f:a", "f:b", "g:x", "g:y", "g:z")
    assert found.values.tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    assert of_factors(factors._replace(names=("f",))) is None  # a class


def test_shapes_have_attributes_and_digits_have_classes(tmp_path):
    shapes = make_shapes(tmp_path, pictures=40)
    condition = condition_of("attributes", 0.0, shapes)
    assert "shape:square" in condition.names
    assert (condition.training.sum(1) == 6).all()  # one value of each factor
    digits = make_digits(tmp_path)
    condition = condition_of("class", 0.1, digits)
    assert condition.names == tuple("0123456789") and condition.dropout == 0.1
    for split in SPLITS:
        assert condition.of(digits, split).tolist() == digits.labels(split).tolist()
    with pytest.raises(UserMistake, match=r"attributes of some: choose arena.condition=class"):
        condition_of("attributes", 0.0, digits)
    with pytest.raises(UserMistake, match=r"classes of .*: choose arena.condition=attributes"):
        condition_of("class", 0.0, shapes)


@pytest.mark.parametrize(
    ("kind", "dropout", "words"),
    [
        ("klass", 0.0, "condition=klass is not one of none, class, attributes"),
        ("class", 1.0, "label_dropout=1.0 hides every label"),
        ("class", -0.1, "label_dropout=-0.1: give a number"),
    ],
)
def test_other_settings_are_refused(tmp_path, kind, dropout, words):
    with pytest.raises(UserMistake, match=words):
        condition_of(kind, dropout, make_digits(tmp_path))


@pytest.mark.parametrize("resident", [True, False])
def test_labels_come_with_their_images_in_every_order_and_batch(tmp_path, resident):
    data = make_digits(tmp_path, device_resident=resident)
    data.prepare_data()
    plan = {"seed": 3, "batch_size": 50, "pieces": 2, "steps": 20}
    data.plan(**plan, steps_per_batch=3)
    plain = [data.training_images(batch) for batch in data.train_dataloader()]
    data.hand_out(torch.arange(len(data.pixels("train"))))  # an image's label is its number
    batches = [*data.train_dataloader()]
    pixels = torch.from_numpy(data.pixels("train").copy())
    for batch, before in zip(batches, plain, strict=True):
        images, numbers = data.training_images(batch), data.training_labels(batch)
        assert torch.equal(images, before)  # the order is what it was
        assert torch.equal(images, data.to_images(pixels[numbers]))
    whole = torch.cat([data.training_labels(batch) for batch in batches])
    parts = []
    for rank in range(2):
        parts.append(torch.cat([b.labels for b in data.train_dataloader(rank, 2)]).view(-1, 25))
    assert torch.equal(torch.stack(parts, 1).flatten(), whole)  # ranks take rows of each piece

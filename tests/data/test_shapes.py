"""The world of shapes: its bytes, its factors, and combinations that are held out."""

import hashlib
import math

import numpy as np
import pytest

from fixtures.data import make_images
from fixtures.worlds import make_shapes
from genbench.data.classes import Classes
from genbench.data.factors import Factors, matching, of_classes
from genbench.data.shape_drawing import UNIT, Look, drawn
from genbench.data.shapes import COLOURS, VALUES
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "sha256"),
    [
        (32, "170573489857f932"),
        (20, "45aa880bddafa636"),
    ],
)
def test_pictures_are_the_same_bytes_on_every_machine(tmp_path, size, sha256):
    source = make_shapes(tmp_path, image_size=size).source
    pictures = np.stack([source.picture(number) for number in range(50)])
    assert hashlib.sha256(pictures.tobytes()).hexdigest()[:16] == sha256


@pytest.mark.parametrize("degrees", [0, 17, 45])
@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("square", 2.0),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("ellipse", math.pi / 2),
        ("cross", 4 * (2 * 15 / 16 * 5 / 16 - (5 / 16) ** 2)),
    ],
)
def test_a_shape_covers_its_area_around_its_centre(shape, area, degrees):
    look = Look(shape, UNIT * 40 // 100, UNIT * 55 // 100, UNIT // 4, degrees, WHITE, BLACK)
    share = drawn(look, 64)[..., 0] / 255
    assert share.sum() / 64**2 == pytest.approx(area / 16, rel=0.005)
    places = (np.arange(64) + 0.5) / 64
    assert share.sum(0) @ places / share.sum() == pytest.approx(0.40, abs=0.001)
    assert share.sum(1) @ places / share.sum() == pytest.approx(0.55, abs=0.001)


def test_edges_are_mixed_of_both_colours_and_no_pixel_is_outside_of_them():
    look = Look("ellipse", UNIT // 2, UNIT // 2, UNIT // 3, 30, (200, 100, 0), (0, 100, 50))
    picture = drawn(look, 16).astype(int)
    assert (picture[..., 1] == 100).all()
    assert 0 < np.mean((picture[..., 0] > 0) & (picture[..., 0] < 200)) < 0.5
    assert np.abs(picture[..., 0] / 200 - (1 - picture[..., 2] / 50)).max() < 0.02


def test_a_factor_says_what_a_picture_looks_like(tmp_path):
    source = make_shapes(tmp_path).source
    factors = source.factors()
    assert factors.names == ("shape", "colour", "size", "rotation", "position", "background")
    for number in range(40):
        shape, colour, size, rotation, position, _ = (
            VALUES[name][label]
            for name, label in zip(factors.names, factors.labels[number], strict=True)
        )
        look = source.look(number)
        assert look.shape == shape
        assert np.abs(np.subtract(look.colour, COLOURS[colour])).max() <= 16
        assert (look.radius > 0.19 * UNIT) == (size == "large")
        assert abs(look.degrees - int(rotation)) <= 5
        assert (look.y < UNIT / 2) == position.startswith("upper")
        assert (look.x < UNIT / 2) == position.endswith("left")


def test_factors_are_uniform_and_independent_and_no_two_pictures_are_equal(tmp_path):
    data = make_shapes(tmp_path, pictures=4000)
    labels, sizes = data.source.factors().labels, data.source.factors().sizes
    for i, size in enumerate(sizes):
        assert np.bincount(labels[:, i]) / 4000 == pytest.approx(np.full(size, 1 / size), abs=0.03)
        for j in range(i):
            pairs = np.bincount(labels[:, i] * sizes[j] + labels[:, j]) / 4000
            assert pairs == pytest.approx(np.full(size * sizes[j], 1 / size / sizes[j]), abs=0.025)
    pixels = np.concatenate([data.pixels(split)[:300] for split in SPLITS])
    assert len(np.unique(pixels.reshape(len(pixels), -1), axis=0)) == len(pixels)


def test_a_larger_world_begins_with_the_same_pictures(tmp_path):
    few, many = (make_shapes(tmp_path, pictures=n).source for n in (30, 60))
    assert all(np.array_equal(few.picture(i), many.picture(i)) for i in (0, 29))
    assert np.array_equal(few.factors().labels, many.factors().labels[:30])


def test_a_holdout_leaves_combinations_out_of_training_and_validation_alone(tmp_path):
    without = make_shapes(tmp_path, holdout=["shape:square+colour:red", "rotation:60"])
    whole = make_shapes(tmp_path)
    for split in SPLITS:
        labels = whole.factors(split).labels
        held = (labels[:, 0] == 0) & (labels[:, 1] == 0) | (labels[:, 3] == 2)
        stays = np.ones(len(held), bool) if split == "test" else ~held
        assert 0 < held.sum() < len(held)
        assert np.array_equal(without.pixels(split), whole.pixels(split)[stays])
        assert np.array_equal(without.factors(split).labels, labels[stays])


@pytest.mark.parametrize(
    ("holdout", "sentence"),
    [
        ("form:square", "there is no factor form: choose one of shape, colour"),
        (["shape:star"], "shape is never star: choose one of square, triangle"),
        (["square"], "'square' is no factor and value: write shape:square"),
        (["size:small", "size:large"], "leaves no train pictures: hold fewer"),
    ],
)
def test_a_holdout_that_cannot_be_is_refused_in_a_sentence(tmp_path, holdout, sentence):
    with pytest.raises(UserMistake, match=sentence):
        make_shapes(tmp_path, holdout=holdout).prepare_data()


def test_a_holdout_of_pictures_of_which_nothing_is_known_is_refused(tmp_path):
    class Unknown(make_images(tmp_path).source.__class__):
        def factors(self):
            return None

    with pytest.raises(UserMistake, match="nothing is known of the factors"):
        make_images(tmp_path, Unknown, holdout="class:7").prepare_data()


def test_classes_are_one_factor():
    factors = of_classes(Classes(np.array([1, 0, 1]), ("cat", "dog")))
    assert factors.names == ("class",)
    assert matching(factors, "class:dog", "x").tolist() == [True, False, True]


def test_combinations_are_numbered_as_digits_of_mixed_radix():
    labels = np.array([[0, 0], [0, 2], [1, 0], [1, 2]])
    factors = Factors(("a", "b"), (("x", "y"), ("p", "q", "r")), labels)
    assert factors.combinations().tolist() == [0, 2, 3, 5]

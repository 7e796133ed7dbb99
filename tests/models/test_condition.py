"""What is drawn, asked for and drawn as rows under a condition."""

import numpy as np
import pytest
import torch

from genbench.errors import UserMistake
from genbench.models.condition import Condition, asked, example, labels_of, parsed_attributes

CLASSES = Condition("class", ("cat", "dog", "7"), torch.tensor([0, 0, 0, 1]))
FACES = Condition(
    "attributes", ("Smiling", "Male"), torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.int8)
)


def test_labels_of_samples_have_the_frequencies_of_training_images_and_a_seed_of_their_own():
    drawn = CLASSES.draw(8000, 0)
    assert abs(float((drawn == 0).double().mean()) - 0.75) < 0.03
    assert not (drawn == 2).any()  # no training image has it
    torch.manual_seed(5)
    assert torch.equal(drawn, CLASSES.draw(8000, 0))
    assert not torch.equal(drawn, CLASSES.draw(8000, 1))


def test_a_class_is_asked_for_by_its_name_before_its_index():
    assert asked(CLASSES, "dog", 3, 0).tolist() == [1, 1, 1]
    assert asked(CLASSES, "7", 1, 0).tolist() == [2]
    assert asked(CLASSES, "0", 1, 0).tolist() == [0]
    assert asked(CLASSES, None, 3, 0) is None
    for wrong in ("cow", "3", "none"):
        with pytest.raises(UserMistake, match=f"no class '{wrong}': choose one of cat, dog, 7"):
            asked(CLASSES, wrong, 3, 0)
    dropping = Condition("class", ("cat", "dog"), torch.arange(2), dropout=0.1)
    assert asked(dropping, "none", 2, 0).tolist() == [-1, -1]


def test_attributes_that_are_not_named_are_as_training_images_have_them():
    assert parsed_attributes("Smiling=1, Male=0") == {"Smiling": 1, "Male": 0}
    assert asked(FACES, {"Male": 1}, 4, 0).tolist() == [[0, 1]] * 4
    with pytest.raises(UserMistake, match="no training image has Smiling=1,Male=1"):
        asked(FACES, {"Smiling": 1, "Male": 1}, 4, 0)
    with pytest.raises(UserMistake, match="no attribute 'Blond': choose among Smiling, Male"):
        asked(FACES, {"Blond": 1}, 4, 0)
    with pytest.raises(UserMistake, match="'Male' is no attribute and 0 or 1"):
        parsed_attributes("Smiling=1,Male")


def test_the_other_kind_and_a_model_without_labels_are_refused():
    with pytest.raises(UserMistake, match="knows attributes, not classes"):
        asked(FACES, "cat", 1, 0)
    with pytest.raises(UserMistake, match="knows classes, not attributes"):
        asked(CLASSES, {"Male": 1}, 1, 0)
    with pytest.raises(UserMistake, match="trained without labels"):
        asked(None, "cat", 1, 0)


def test_a_grid_has_a_row_for_each_class_or_for_the_commonest_attributes():
    assert CLASSES.rows().tolist() == [0, 1, 2]
    assert FACES.rows().tolist() == [[1, 0], [0, 1]]
    many = Condition("class", tuple(map(str, range(100))), torch.arange(100))
    assert many.rows().tolist() == [*range(16)]


def test_nothing_is_added_to_a_call_without_a_condition():
    assert example(None, 3) == ()
    assert labels_of(None, None, "test", np.arange(3), torch.device("cpu")) == ()

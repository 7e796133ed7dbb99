"""Rules for values: what each refuses, and what the sentence says."""

import math

import pytest

from genbench.errors import UserMistake
from genbench.ranges import number, whole


@pytest.mark.parametrize("value", [1.5, -1, "3", True, None, math.nan])
def test_a_whole_number_is_nothing_else(value):
    with pytest.raises(UserMistake, match=r"seed=.*: give a whole number from 0 on"):
        whole("seed", value, 0)


def test_bounds_are_allowed_and_named():
    whole("levels", 2, 2, 256)
    whole("levels", 256, 2, 256)
    whole("seed", -5, None)
    with pytest.raises(UserMistake, match="levels=257: give a whole number from 2 to 256"):
        whole("levels", 257, 2, 256)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, "x", True, None])
def test_a_number_is_finite_and_in_its_range(value):
    number("model.beta", 0)
    with pytest.raises(UserMistake, match=r"model\.beta=.*: give a number from 0 on"):
        number("model.beta", value)


def test_a_number_may_have_to_be_above_its_bound():
    number("rate", 0.1, above=True)
    with pytest.raises(UserMistake, match="rate=0: give a number above 0"):
        number("rate", 0, above=True)

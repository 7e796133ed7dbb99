import pytest

from fixtures.features import one_hot
from genbench.metrics.class_balance import total_variation


def test_class_balance_is_the_mass_that_would_have_to_move():
    balanced, missing = one_hot(range(10), 5.0), one_hot(range(9), 5.0)
    assert total_variation(balanced, balanced) == 0
    assert total_variation(missing, balanced) == pytest.approx(0.1)
    assert total_variation(one_hot([0], 5.0), one_hot([1], 5.0)) == 1

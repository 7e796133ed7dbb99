"""How the seconds of an evaluation were spent."""

import pytest

from fixtures.evaluation import CPU, Squares, make_decoder, make_evaluation, make_vae
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics import copy_rate, stopwatch
from genbench.metrics.copy_rate import CopyRate
from genbench.metrics.reconstruction import Reconstruction


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return now


def test_a_part_has_what_is_not_timed_within_it(clock):
    watch = stopwatch.Stopwatch()
    with watch.timing("outer"):
        clock[0] += 1
        with watch.timing("inner"):
            clock[0] += 10
            watch.add("elsewhere", 4)
        clock[0] += 2
        with watch.timing("inner"):
            clock[0] += 20
    assert watch.rounded() == {"elsewhere": 4, "inner": 26, "outer": 3}
    assert sum(watch.seconds.values()) == clock[0] - 100


def test_seconds_are_counted_where_a_part_fails(clock):
    watch = stopwatch.Stopwatch()
    with pytest.raises(ValueError, match="broken"), watch.timing("part"):
        clock[0] += 5
        raise ValueError("broken")
    assert watch.rounded() == {"part": 5}


def test_an_evaluation_names_its_parts_and_leaves_selection_apart(tmp_path):
    evaluation = make_evaluation(tmp_path, reconstruction=Reconstruction())
    model = make_vae(DiscretizedLogistic(17))
    evaluation.validation_distance(Squares(), model, 20, 7)
    assert evaluation.watch.rounded() == {}
    assert evaluation.validation_distance.seconds > 0
    evaluation(model, Squares(), CPU)
    parts = {"features", "sample", "CopyRate", "FrechetDistance", "reconstruction", "psnr", "ssim"}
    assert parts | {"rfd", "bounds"} <= set(evaluation.watch.seconds)


def test_the_nearness_of_held_out_images_is_computed_once_for_all_weights(tmp_path, monkeypatch):
    compared = []
    real = copy_rate.nearest
    monkeypatch.setattr(
        copy_rate, "nearest", lambda x, train: compared.append(len(x)) or real(x, train)
    )
    evaluation = make_evaluation(tmp_path, metrics={"copies": CopyRate()}, likelihoods={})
    first = [s.value for s in evaluation(make_decoder(), Squares(), CPU)]
    assert [s.value for s in evaluation(make_decoder(), Squares(), CPU)] == first
    assert compared == [60, 100, 100]
    evaluation(make_decoder(), Squares(seed=1), CPU)
    assert compared == [60, 100, 100, 60, 100]

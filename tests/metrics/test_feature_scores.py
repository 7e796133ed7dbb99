"""Statuses, intervals, protocols and names of scores on features."""

import pytest

from fixtures.evaluation import Small, Squares, make_vae, run
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics.feature_scores import score_name
from genbench.metrics.frechet import FrechetDistance
from genbench.runs.score import Score


def by_quantity(scores):
    return {score.quantity: score for score in scores}


def test_what_is_not_computed_is_not_called_nonfinite(tmp_path):
    found = by_quantity(run(tmp_path, metrics={"fd": FrechetDistance(bootstrap=0)}))
    assert found["fd_bc"].value is None
    assert found["fd_bc"].status == "not computed: evaluation.metrics.frechet.bootstrap=0"
    assert found["fd"].status == "ok"


def test_the_bootstrap_is_no_part_of_the_distance_and_is_part_of_its_corrected_form(tmp_path):
    few, more = (
        by_quantity(run(tmp_path, metrics={"fd": FrechetDistance(bootstrap=count)}))
        for count in (3, 4)
    )
    assert {name for name in few if few[name].protocol != more[name].protocol} == {"fd_bc"}
    assert few["fd"].value == more["fd"].value


def test_the_corrected_distance_is_blank_where_images_are_too_few_for_it(tmp_path):
    found = by_quantity(run(tmp_path, num_samples=79))  # of 8 features
    assert found["fd_bc"].status == "too few images: 79 are below 10 x 8 features"
    assert found["fd_bc"].value is None
    assert by_quantity(run(tmp_path, num_samples=80))["fd_bc"].value is not None
    data = Squares(sizes=(70, 40, 60))
    assert "70 are below" in by_quantity(run(tmp_path, data=data))["fd_bc"].status


def test_every_interval_says_what_it_covers(tmp_path):
    for score in run(tmp_path, make_vae(DiscretizedLogistic(17))):
        assert (score.low is None) == (score.interval == "")
        assert Score.from_dict(score.to_dict()) == score


@pytest.mark.parametrize(
    ("resize", "quantity", "num_samples", "name"),
    [
        ("tf1-bilinear", "fd", 10_000, "fid"),
        ("tf1-bilinear", "fd", 50_000, "fid"),
        ("tf1-bilinear", "fd", 9_999, "fd_inception-2015"),
        ("tf1-bilinear", "fd_bc", 50_000, "fid_bc"),
        ("tf1-bilinear", "kid", 10_000, "kid"),
        ("tf1-bilinear", "kid", 2_000, "kid_inception-2015"),
        ("tf1-bilinear", "is_heldout", 10_000, "is_heldout"),
        ("tf1-bilinear", "precision", 50_000, "precision_inception-2015"),
        ("pil-bicubic", "fd", 10_000, "fid_clean"),
        ("pil-bicubic", "fd", 2_000, "fd_inception-2015"),
        ("pil-bicubic", "fd_floor", 10_000, "fid_clean_floor"),
        ("torch-bilinear", "fd", 50_000, "fd_inception-2015"),
    ],
)
def test_the_names_of_the_papers_are_for_their_features_and_numbers_of_images(
    resize, quantity, num_samples, name
):
    paper = Small("inception-2015", resize, "6726825d" + "0" * 56)
    assert score_name(quantity, paper, num_samples) == name
    other = Small("inception-2015", resize, "6726825e" + "0" * 56)
    assert score_name(quantity, other, num_samples) == f"{quantity}_inception-2015"

"""Differences by image, against the arithmetic written out."""

import math

import numpy as np
import pytest

from fixtures.comparison import elbo, fd, run
from genbench.comparison.paired import paired
from genbench.errors import UserMistake
from genbench.runs.per_image import FILENAME, ImageValues, write_per_image

GENERATOR = np.random.default_rng(0)
HARD = GENERATOR.normal(-100, 30, 500)  # what an image costs any model
OTHER = {"quantity": "elbo", "heldout": {"n": 6, "split": "test"}}


@pytest.fixture
def scored(finished):
    """Write a run with an ELBO of each image."""

    def scored(values, images=None, **config):
        score = elbo(float(np.mean(values)))
        made = finished([fd(5.0), score], **config)
        numbers = np.arange(len(values)) if images is None else images
        own = ImageValues(score.name, "final", score.protocol, "value", numbers, np.array(values))
        write_per_image(made / FILENAME, [own])
        return made

    return scored


def test_the_mean_and_its_error_are_those_of_the_differences():
    own, other = np.array([1.0, 5, 4]), np.array([0.0, 2, 2])
    difference, error, n = paired(own, other)
    assert (difference, n) == (2, 3) and error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(paired(own[:1], other[:1])[1])


def test_seeds_are_averaged_and_what_all_models_find_hard_drops_out(scored, tmp_path, capsys):
    gained = GENERATOR.normal(1, 2, (2, 500))
    for seed in range(2):
        scored(HARD, seed=seed, model="vae")
        scored(HARD + gained[seed], seed=seed, model="iwae")
    printed = run(
        capsys, "--outputs", str(tmp_path), "--pair-images", "--versus", "vae", "--format", "csv"
    )
    head, line = (row.split(",") for row in printed.splitlines())
    found = dict(zip(head, line, strict=True))
    assert (found["row"], found["against"], found["score"]) == ("iwae", "vae", "elbo_gaussian")
    mean = gained.mean(0)
    assert float(found["difference"]) == pytest.approx(mean.mean(), rel=1e-4)
    assert float(found["se"]) == pytest.approx(mean.std(ddof=1) / math.sqrt(500), rel=1e-4)
    assert float(found["se"]) < HARD.std() / math.sqrt(500) / 10
    text = run(capsys, "--outputs", str(tmp_path), "--pair-images", "--format", "md")
    assert "paired by image" in text and "not other seeds" in text and "| 500 | 2 and 2 |" in text


def test_other_images_and_other_protocols_are_never_paired(scored, finished, tmp_path, capsys):
    scored(HARD, model="vae")
    scored(HARD[:400], images=np.arange(400), model="iwae")
    finished([elbo(-80.0)], model="aae")
    with pytest.raises(UserMistake, match="no two rows have values of the same images"):
        run(capsys, "--outputs", str(tmp_path), "--pair-images")
    with pytest.raises(UserMistake, match="leave out --at"):
        run(capsys, "--outputs", str(tmp_path), "--pair-images", "--wide")

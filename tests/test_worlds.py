"""A run on a world whose truth is known has its scores, beside those of every dataset."""

import pytest

from genbench.comparison.family import depends_on_model
from genbench.runs.result import read_result


@pytest.mark.slow
def test_a_run_on_stacked_digits_counts_modes(start):
    small = "dataset.source.counts={train: 300, validation: 60, test: 100}"
    samples = "evaluation.truth.modes.num_samples=500"
    directory, code = start("dataset=stacked-digits", "model=vae", small, samples)
    assert code == 0
    result = read_result(directory)
    found = {score.name: score for score in result.scores}
    assert 1 <= found["modes_lenet-digits-v1"].value <= 500
    assert found["modes_lenet-digits-v1"].card["fake"]["n"] == 500
    assert found["fd_random-conv-v1"].card["fake"]["n"] == 256
    assert "modes" in result.cost["scoring_seconds"]


@pytest.mark.slow
def test_a_run_on_shapes_has_scores_of_factors_and_of_its_encoder(start):
    small = ["dataset.source.pictures=1200", "dataset.validation=150", "dataset.test=350"]
    wanted = "evaluation.truth.disentanglement.enabled=true"
    held = "dataset.holdout=[shape:square+colour:red]"
    directory, code = start("dataset=shapes", "model=vae", "network.width=4", *small, wanted, held)
    assert code == 0
    result = read_result(directory)
    found = {score.quantity: score for score in result.scores}
    assert 0 <= found["invented"].value <= 1
    assert found["combinations_covered"].name == "combinations_covered_factors-shapes-v1"
    assert found["factor_tv_position"].higher_is_better is False
    assert 0 <= found["mig"].value <= 1
    assert 0 <= found["dci_informativeness"].value <= 1
    directed = [score for score in result.scores if score.higher_is_better is not None]
    assert all(depends_on_model(score) for score in directed)
    assert {"mig", "dci"} <= result.cost["scoring_seconds"].keys()

"""Scores against those of torch-fidelity and torchmetrics, on the same features."""

import warnings

import pytest
import torch

from fixtures.features import draw, frechet
from genbench.metrics.inception_score import inception_score
from genbench.metrics.kernel import kernel_distance


@pytest.mark.parametrize("d", [16, 64])
def test_three_scores_agree_with_torch_fidelity_on_the_same_features(d):
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    x, y = draw(600, d), draw(600, d, seed=1, scale=1.1, shift=0.1)
    statistics = [fid.fid_features_to_statistics(part) for part in (x, y)]
    theirs = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert frechet(x, y) == pytest.approx(theirs, rel=1e-6)
    theirs = kid.kernel_mmd(
        x.numpy(),
        y.numpy(),
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
    )
    assert kernel_distance(x, y) == pytest.approx(theirs, rel=1e-6)
    theirs = isc.isc_features_to_metric(x, splits=1, shuffle=False)["inception_score_mean"]
    assert inception_score(x) == pytest.approx(theirs, rel=1e-6)


class Identity(torch.nn.Module):
    num_features = 16

    def forward(self, x):
        return x


def test_three_scores_agree_with_torchmetrics_on_the_same_features():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore as TheirScore
        from torchmetrics.image.kid import poly_mmd

        x, y = draw(500, 16), draw(500, 16, seed=1, scale=1.1, shift=0.1)
        with torch.random.fork_rng():
            fid = FrechetInceptionDistance(feature=Identity()).set_dtype(torch.float64)
            fid.update(x, real=True)
            fid.update(y, real=False)
            score = TheirScore(feature=Identity(), splits=1).set_dtype(torch.float64)
            score.features.append(x)
            theirs = float(fid.compute()), float(poly_mmd(x, y)), float(score.compute()[0])
    ours = frechet(x, y), kernel_distance(x, y), inception_score(x)
    assert ours == pytest.approx(theirs, rel=1e-6)

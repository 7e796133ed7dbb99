"""Which pictures explain the scores of an evaluation."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.evaluation import CPU, Squares, make_decoder, make_evaluation, make_vae
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics.copy_rate import CopyRate
from genbench.metrics.gallery import WorstReconstructions
from genbench.metrics.prdc import NeighbourScores, neighbourhoods, prdc
from genbench.metrics.reconstruction import Reconstruction
from genbench.models.batch_statistics import recalibrated
from genbench.models.drawing import evaluating
from genbench.models.reconstruction import psnr
from genbench.runs.gallery import CAPTIONS, CARD, read_gallery


def tiles(path, rows):
    """The pictures of a sheet, enlarged four times when they are written: level indices."""
    sheet = np.asarray(Image.open(path))[..., 0]
    cut = [
        sheet[2 + row * 34 : 34 + row * 34, 2 + column * 34 : 34 + column * 34]
        for row in range(rows)
        for column in range(8)
    ]
    return torch.from_numpy(np.stack(cut)[:, ::4, ::4].astype(np.float64) * 16 / 255).round()


def kept(folder, model, data=None, **changes):
    """The gallery of an evaluation with its scores, and the evaluation."""
    folder.mkdir(exist_ok=True)
    evaluation = make_evaluation(folder / "cache", **({"gallery": True} | changes))
    scores = evaluation(model, data or Squares(), CPU, folder)
    return read_gallery(folder), {score.quantity: score.value for score in scores}, evaluation


def test_samples_are_ranked_by_their_distance_to_the_training_images(tmp_path):
    model, data = make_decoder(), Squares()
    gallery, _, evaluation = kept(tmp_path, model, data)
    sheets = {sheet.kind: sheet for sheet in gallery.sheets}
    assert [*sheets] == [kind for kind in CAPTIONS if kind in sheets]
    with recalibrated(model), evaluating(model):
        pixels = data.to_pixels(model.sample(model.latents(100, torch.Generator().manual_seed(0))))
    features = evaluation.extractor(pixels, 17).features
    real = evaluation.extractor(torch.from_numpy(data.pixels("train")), 17).features
    distance, place = torch.cdist(features.double(), real.double()).min(1)
    order = distance.argsort()
    for kind, which in (("best", order[:16]), ("worst", order.flip(0)[:16])):
        assert torch.equal(tiles(sheets[kind].path, 2), pixels[which, 0].double())
        shown = torch.tensor([float(text) for text in sheets[kind].texts])
        assert torch.allclose(shown, distance[which].float(), rtol=0.01)
    assert sheets["median"].texts[8] == f"{distance.sort().values[50]:.3g}"
    copied = tiles(sheets["copied"].path, 2)
    for sample, neighbour in zip(copied[:8], copied[8:], strict=True):
        (number,) = [n for n in range(100) if torch.equal(pixels[n, 0].double(), sample)][:1]
        assert torch.equal(
            torch.from_numpy(data.pixels("train"))[place[number], 0], neighbour.byte()
        )
    assert gallery.of == {
        "split": "test", "n": 100, "seed": 0, "extractor": "small", "weights": "raw",
    }  # fmt: skip


def test_what_counts_is_what_the_scores_count(tmp_path):
    gallery, scores, _ = kept(tmp_path, make_decoder())
    notes = {sheet.kind: sheet.note for sheet in gallery.sheets}
    assert notes["copied"] == f"{round(scores['copy_rate'] * 100)} of 100 count as copies"
    assert notes["uncovered"] == f"{round((1 - scores['coverage']) * 100)} of 100"
    copies = next(sheet for sheet in gallery.sheets if sheet.kind == "copied").texts
    assert sum("*" in text for text in copies) == min(8, round(scores["copy_rate"] * 100))


def test_scores_are_the_same_with_a_gallery_and_none_is_kept_unasked(tmp_path):
    _, scores, evaluation = kept(tmp_path / "with", make_decoder())
    assert evaluation.watch.seconds["gallery"] > 0
    none, plain, _ = kept(tmp_path / "without", make_decoder(), gallery=False)
    assert none is None
    assert scores == plain
    evaluation(make_decoder(), Squares(), CPU, None)  # without a folder


def test_a_real_image_is_as_far_as_coverage_says():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 3, generator=generator), torch.randn(60, 3, generator=generator) + 1
    scores, reach = neighbourhoods(x, y, 5)
    assert scores == prdc(x, y, 5)
    assert float((reach <= 1).double().mean()) == scores.coverage
    apart = torch.cdist(x.double(), x.double()).sort().values[:, 5]
    assert torch.allclose(reach.sqrt(), torch.cdist(x.double(), y.double()).min(1).values / apart)
    twice = torch.zeros(7, 2)
    assert neighbourhoods(twice, twice, 5)[1].tolist() == [0.0] * 7  # 0 / 0


def test_the_worst_reconstructions_are_those_of_the_lowest_psnr(tmp_path):
    data, model = Squares(sizes=(120, 40, 60)), make_vae(DiscretizedLogistic(17))
    gallery, _, _ = kept(tmp_path, model, data, reconstruction=Reconstruction())
    (sheet,) = [one for one in gallery.sheets if one.kind == "reconstructions"]
    originals = torch.from_numpy(data.pixels("test"))
    with evaluating(model):
        rebuilt = data.to_pixels(model.reconstruct(data.to_images(originals)))
    values = psnr(rebuilt, originals, 17)
    assert list(sheet.texts) == [f"{value:.3g}" for value in values.sort().values[:8].tolist()]
    pairs = tiles(sheet.path, 2).byte()
    for original, own, text in zip(pairs[:8], pairs[8:], sheet.texts, strict=True):
        (number,) = [n for n in range(60) if torch.equal(originals[n, 0], original)]
        assert torch.equal(rebuilt[number, 0], own)
        assert f"{values[number]:.3g}" == text


def test_the_worst_of_batches_are_the_worst_of_all():
    psnr_values = torch.randperm(50, generator=torch.Generator().manual_seed(0)).double()
    images = psnr_values.byte()[:, None, None, None]
    worst = WorstReconstructions()
    for part in torch.arange(50).split(7):
        worst.offer(images[part], images[part] + 100, psnr_values[part])
    assert worst.psnr.tolist() == [*range(8)]
    assert worst.pairs.flatten(1).tolist() == [[n + 100, n] for n in range(8)]


@pytest.mark.parametrize("broken", ["pictures", "metrics"])
def test_what_cannot_be_shown_is_left_out(tmp_path, broken):
    model = make_decoder(broken=broken == "pictures")  # NaN
    metrics = {} if broken == "metrics" else {"a": CopyRate(), "b": NeighbourScores()}
    kept(tmp_path, make_decoder())
    assert (tmp_path / "gallery" / "best.png").exists()
    gallery, *_ = kept(tmp_path, model, metrics=metrics)
    assert gallery.sheets == []
    assert not list((tmp_path / "gallery").glob("*.png"))  # none of before
    (tmp_path / "gallery" / CARD).write_text(json.dumps({"version": 2}))
    assert read_gallery(tmp_path) is None

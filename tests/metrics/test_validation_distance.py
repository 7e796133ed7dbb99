"""What selects checkpoints: the distance to the validation split, of latents of its own."""

import torch

from fixtures.evaluation import Squares, make_decoder, make_evaluation
from genbench.metrics.frechet import distance, moments
from genbench.models.undisturbed import undisturbed


def test_it_is_that_to_validation_images_of_latents_by_its_own_seed(tmp_path):
    model, data = make_decoder().eval(), Squares(sizes=(120, 90, 60))
    evaluation = make_evaluation(tmp_path)
    found = evaluation.validation_distance(data, model, 100, seed=7)

    def features(pixels):
        return moments(evaluation.extractor(pixels, data.levels).features)

    with undisturbed(model, model.device, 7):
        z = model.latents(100, torch.Generator().manual_seed(7))
        fake = features(data.to_pixels(model.sample(z)))
    own = {
        split: distance(features(torch.from_numpy(data.pixels(split))), fake)
        for split in data.splits
    }
    assert abs(found - own["validation"]) < 1e-5 * found
    assert all(abs(found - own[split]) > 1e-3 * found for split in ("train", "test"))

"""Scores of reconstructions, against closed forms and independent formulas."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.data import make_images
from fixtures.evaluation import (
    CPU,
    Small,
    Squares,
    make_decoder,
    make_evaluation,
    make_vae,
    protocols,
    run,
    values,
)
from genbench.comparison.family import depends_on_model
from genbench.data.folders import Folder
from genbench.data.subsets import chosen
from genbench.errors import UserMistake
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics.feature_scores import score_name
from genbench.metrics.frechet import distance, moments
from genbench.metrics.reconstruction import Reconstruction, ssim
from genbench.models.contract import GenerativeModel
from genbench.models.drawing import draw_reconstructions
from genbench.models.reconstruction import psnr, validation_psnr

OF_MODEL = ["psnr", "ssim", "rfd_small", "fd_reconstructed_small"]
NAMES = [*OF_MODEL, "fd_originals_small"]


class Copies(GenerativeModel):
    """Gives images back, each multiplied by `factor`; notes the greys that it has seen."""

    latent_dim = 4

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.seen = factor, set()

    def players(self):
        return {}

    def step(self, images):
        pass

    def sample(self, z):
        return z.new_zeros(len(z), 1, 8, 8)

    def reconstruct(self, images):
        assert not torch.is_grad_enabled()
        self.seen |= {round(float(grey), 2) for grey in images[:, 0, 0, 0]}
        return images * self.factor


def rebuilt(folder, model, max_images=None, **changes):
    given = {
        "metrics": {},
        "likelihoods": {},
        "reconstruction": Reconstruction(max_images=max_images),
    }
    return run(folder, model, **(given | changes))


def draw(n=5, size=16, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = n, channels, size, size
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_psnr_is_that_of_each_images_mean_squared_error():
    originals = torch.full((3, 1, 4, 4), 100, dtype=torch.uint8)
    pixels = originals.clone()
    pixels[0] += 5
    pixels[1, 0, :2] -= 10  # half of the pixels
    expected = [20 * math.log10(255 / 5), 10 * math.log10(255**2 / 50)]
    found = psnr(pixels, originals, 256).tolist()
    assert found[:2] == pytest.approx(expected)
    pixels[2, 0, 0, 0] += 1
    assert psnr(pixels, originals, 256)[2] == found[2] == 10 * math.log10(255**2 * 16)


def reference_ssim(x, y):
    """Wang et al. 2004, eq. 13 with a Gaussian window, one image and channel at a time."""
    place = np.arange(11) - 5
    row = np.exp(-(place**2) / (2 * 1.5**2))
    window = np.outer(row, row) / row.sum() ** 2
    x, y = (np.pad(part / 255, 5, mode="reflect") for part in (x, y))
    found = []
    for i in range(len(x) - 10):
        for j in range(len(x) - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            both = (window * (a - ma) * (b - mb)).sum()
            found.append(
                (2 * ma * mb + 0.01**2)
                * (2 * both + 0.03**2)
                / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))
            )
    return float(np.mean(found))


@pytest.mark.parametrize("size", [6, 8, 16])
def test_ssim_is_that_of_wang_et_al(size):
    originals = draw(n=2, size=size)
    pixels = (originals.float() * 0.6 + draw(n=2, size=size, seed=1) * 0.4).to(torch.uint8)
    found = ssim(pixels, originals, 256).tolist()
    for image in range(2):
        pairs = [(pixels[image, c].numpy(), originals[image, c].numpy()) for c in range(3)]
        expected = np.mean([reference_ssim(*(part.astype(float) for part in p)) for p in pairs])
        assert found[image] == pytest.approx(expected, abs=2e-5)
    assert ssim(originals[:1], originals[:1], 256).tolist() == pytest.approx([1.0])


def test_a_perfect_model_has_the_best_scores(tmp_path):
    found = {score.name: score for score in rebuilt(tmp_path, Copies())}
    assert [*found] == NAMES
    assert found["psnr"].value == pytest.approx(10 * math.log10(16**2 * 64))
    assert found["ssim"].value == pytest.approx(1)
    assert found["rfd_small"].value == pytest.approx(0, abs=1e-5)
    assert [found[name].higher_is_better for name in NAMES] == [True, True, False, None, None]
    assert [name for name in NAMES if depends_on_model(found[name])] == OF_MODEL
    without_loss = found["fd_originals_small"].value
    assert found["fd_reconstructed_small"].value == pytest.approx(without_loss, abs=1e-5)


def test_rfd_is_the_distance_of_reconstructions_to_their_own_originals(tmp_path):
    data, extractor = Squares(), Small()
    for count in (None, 40):
        which = chosen(data, "test", count or 60)
        originals = torch.from_numpy(data.pixels("test")[which])
        pixels = data.to_pixels(data.to_images(originals) * 0.5)
        pair = [moments(extractor(part, 17).features) for part in (originals, pixels)]
        scores = {s.name: s for s in rebuilt(tmp_path, Copies(0.5), max_images=count)}
        assert scores["rfd_small"].value == pytest.approx(distance(*pair), rel=1e-5)
        expected = float(psnr(pixels, originals, 17).mean())
        assert scores["psnr"].value == pytest.approx(expected)
        for score in scores.values():
            assert score.card["heldout"].get("subset", {}).get("n") == count
            if score.name in OF_MODEL:
                assert score.card["reconstructed"]["latents"] == "posterior mean"


def test_two_more_distances_are_those_to_the_training_images(tmp_path):
    data, extractor = Squares(), Small()
    which = chosen(data, "test", 40)
    originals = torch.from_numpy(data.pixels("test")[which])
    pixels = data.to_pixels(data.to_images(originals) * 0.5)
    train = moments(extractor(torch.from_numpy(data.pixels("train")), 17).features)
    scores = {s.name: s for s in rebuilt(tmp_path, Copies(0.5), max_images=40)}
    for name, part in (("fd_reconstructed_small", pixels), ("fd_originals_small", originals)):
        expected = distance(train, moments(extractor(part, 17).features))
        assert scores[name].value == pytest.approx(expected, rel=1e-5)
        assert scores[name].card["real"]["split"] == "train"


def test_no_batch_size_changes_them_and_every_encoder_shares_their_protocol(tmp_path):
    model = make_vae(DiscretizedLogistic(17))
    first = rebuilt(tmp_path, model, batch_size=7)
    assert values(rebuilt(tmp_path, model, batch_size=60)) == pytest.approx(values(first), rel=1e-5)
    assert protocols(rebuilt(tmp_path, Copies())) == protocols(first)
    others = protocols(rebuilt(tmp_path, model, max_images=40))
    assert not set(others.values()) & set(protocols(first).values())
    on_validation = rebuilt(tmp_path, model, split="validation")
    assert [score.name for score in on_validation] == [f"{name}_validation" for name in NAMES]


def test_a_model_without_an_encoder_has_no_such_score(tmp_path):
    assert rebuilt(tmp_path, make_decoder()) == []
    assert validation_psnr(make_decoder(), Squares(), 9) is None


def test_averaged_weights_have_none_since_the_encoder_is_not_averaged(tmp_path):
    evaluation = make_evaluation(
        tmp_path, metrics={}, likelihoods={}, reconstruction=Reconstruction()
    )
    assert evaluation(Copies(), Squares(), CPU, averaging={"half_life": 1}) == []


def test_a_reconstruction_that_is_nan_leaves_no_value(tmp_path):
    scores = rebuilt(tmp_path, Copies(math.nan))
    assert [score.name for score in scores] == NAMES
    *of_model, originals = scores
    assert {(score.value, score.status) for score in of_model} == {(None, "nonfinite")}
    assert originals.value is not None
    assert validation_psnr(Copies(math.nan), Squares(), 9) is None


def test_the_papers_name_is_for_the_papers_features_and_number_of_images():
    inception = Small("inception-2015", "tf1-bilinear", "6726825d" + "0" * 56)
    assert score_name("rfd", inception, 10_000) == "rfid"
    assert score_name("rfd", inception, 2_000) == "rfd_inception-2015"
    assert score_name("rfd", Small(), 10_000) == "rfd_small"


def test_a_subset_of_one_image_is_refused():
    with pytest.raises(UserMistake, match="reconstruction.max_images=1: it must be 2 or more"):
        Reconstruction(max_images=1)


# --- a folder whose files are sorted by class ---------------------------------------------------


@pytest.fixture
def sorted_folder(tmp_path):
    """Ten classes of twelve pictures in each split, each class a grey of its own."""
    for split in ("train", "validation", "test"):
        for label in range(10):
            folder = tmp_path / "pictures" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(12):
                Image.new("L", (8, 8), label * 25).save(folder / f"{number}.png")
    data = make_images(tmp_path, Folder, root=str(tmp_path / "pictures"))
    data.prepare_data()
    return data


def test_every_class_of_a_sorted_folder_is_among_those_that_are_reconstructed(
    tmp_path, sorted_folder
):
    data = sorted_folder
    greys = {round(label * 25 / 255 * 2 - 1, 2) for label in range(10)}
    first = data.to_images(torch.from_numpy(data.pixels("validation")[:32].copy()))
    assert len({round(float(grey), 2) for grey in first[:, 0, 0, 0]}) == 3  # the danger is there
    drawn = Copies()
    draw_reconstructions(drawn, data, 32)
    assert drawn.seen == greys
    compared = Copies()
    validation_psnr(compared, data, 60)
    assert compared.seen == greys
    scored = Copies()
    scores = rebuilt(tmp_path, scored, data=data, max_images=50)
    assert scored.seen == greys
    assert scores[0].card["heldout"]["subset"]["n"] == 50

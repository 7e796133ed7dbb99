"""LPIPS with AlexNet's weights at hand, without them, and with a file that is something else."""

import importlib.resources

import pytest
import torch
from torch.nn import functional as F

from fixtures.evaluation import CPU, Squares, make_evaluation
from genbench.errors import UserMistake
from genbench.metrics import lpips
from genbench.metrics.contract import Extractor, Features
from genbench.metrics.extractors import sha256_of
from genbench.metrics.lpips import LPIPS
from genbench.metrics.reconstruction import Reconstruction
from genbench.models.noise import Noise

# features.<n> of torchvision's AlexNet: channels in and out, kernel
CONVOLUTIONS = {
    0: (3, 64, 11),
    3: (64, 192, 5),
    6: (192, 384, 3),
    8: (384, 256, 3),
    10: (256, 256, 3),
}


class Photographs(Squares):
    image_size, channels, levels = 32, 3, 256

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.splits = {
            name: torch.randint(0, 256, (12, 3, 32, 32), generator=generator).byte().numpy()
            for name in self.splits
        }


class Means(Extractor):
    """The mean of each channel."""

    name, card = "means", {"name": "means", "sha256": "2" * 64, "resize": "none"}

    def forward(self, pixels, levels):
        means = pixels.float().mean((2, 3))
        return Features(means, means[:, :0])


class Shifts(Noise):
    """Gives images back with half of their contrast."""

    latent_dim = 4

    def latents(self, n, generator):
        return torch.randn(n, 4, generator=generator)

    def sample(self, z):
        return z.new_zeros(len(z), 3, 32, 32)

    def reconstruct(self, images):
        return images * 0.5


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file like the published one, with other numbers and without the classifier."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, (inside, out, kernel) in CONVOLUTIONS.items():
        shape = out, inside, kernel, kernel
        scale = (2 / (inside * kernel**2)) ** 0.5
        state[f"features.{place}.weight"] = torch.randn(shape, generator=generator) * scale
        state[f"features.{place}.bias"] = torch.randn(out, generator=generator) * 0.1
    path = tmp_path_factory.mktemp("weights") / lpips.FILE
    torch.save(state, path)
    return path


@pytest.fixture
def pinned(weights, monkeypatch):
    """The file, whose sha256 is the one that is asked for."""
    monkeypatch.setattr(lpips, "SHA256", sha256_of(weights))
    return weights


def reference(one, other, state):
    """Zhang et al. 2018, eq. 1, of images in [-1, 1]."""
    folder = importlib.resources.files("torchmetrics") / "functional/image/lpips_models"
    linear = torch.load(str(folder / "alex.pth"), map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    features = [(x - shift) / scale for x in (one, other)]
    total = torch.zeros(len(one))
    for layer, (place, (_, _, kernel)) in enumerate(CONVOLUTIONS.items()):
        weight, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
        stride, padding = (4, 2) if place == 0 else (1, kernel // 2)
        if layer in (1, 2):
            features = [F.max_pool2d(x, 3, 2) for x in features]
        features = [F.relu(F.conv2d(x, weight, bias, stride, padding)) for x in features]
        a, b = (x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt() for x in features)
        by_channel = linear[f"lin{layer}.model.1.weight"].view(1, -1, 1, 1)
        total += (by_channel * (a - b).square()).sum(1).mean((1, 2))
    return total


def test_it_is_the_papers_distance(tmp_path, pinned):
    metric = LPIPS(path=str(pinned))
    random = torch.random.get_rng_state()
    metric.prepare(Photographs(), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), random)
    pixels = torch.from_numpy(Photographs().pixels("test"))
    one, other = pixels[:4], pixels[4:8]
    with torch.no_grad():
        found = metric(one, other, 256)
        assert metric(one, one, 256).tolist() == [0, 0, 0, 0]
    state = torch.load(pinned, weights_only=True)
    expected = reference(*(part.float() * (2 / 255) - 1 for part in (one, other)), state)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    grey = one[:, :1]
    assert metric(grey, grey, 256).tolist() == [0, 0, 0, 0]


def test_weights_are_found_in_the_cache_and_stand_in_the_card(tmp_path, pinned):
    (tmp_path / "extractors").mkdir()
    (tmp_path / "extractors" / lpips.FILE).write_bytes(pinned.read_bytes())
    metric = LPIPS()
    reconstruction = Reconstruction(lpips=metric)
    evaluation = make_evaluation(
        tmp_path, num_samples=12, extractor=Means(), metrics={}, reconstruction=reconstruction
    )
    data = Photographs()
    evaluation.prepare(data)
    scores = {score.name: score for score in evaluation(Shifts(), data, CPU)}
    assert [*scores][:4] == ["psnr", "ssim", "lpips", "rfd_means"]
    assert scores["lpips"].higher_is_better is False
    assert scores["lpips"].card["estimator"]["sha256"] == sha256_of(pinned)
    originals = torch.from_numpy(data.pixels("test"))
    with torch.no_grad():
        expected = metric(data.to_pixels(data.to_images(originals) * 0.5), originals, 256).mean()
    assert scores["lpips"].value == pytest.approx(float(expected), rel=1e-5)


def test_without_weights_there_is_no_lpips_and_nothing_is_fetched(tmp_path, monkeypatch):
    def fetched(*args, **kwargs):
        raise AssertionError("fetched")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetched)
    metric = LPIPS()
    metric.prepare(Photographs(), tmp_path)
    assert metric.network is None
    assert not list(tmp_path.iterdir())


def test_they_are_fetched_where_that_is_asked_for(tmp_path, pinned, monkeypatch):
    def fetched(url, path, hash_prefix, progress):
        assert (url, hash_prefix) == (lpips.URL, sha256_of(pinned))
        (tmp_path / "new" / lpips.FILE).write_bytes(pinned.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetched)
    monkeypatch.setattr(lpips, "load", lambda path: path)
    metric = LPIPS(fetch=True)
    metric.prepare(Photographs(), tmp_path / "new")
    assert metric.network == tmp_path / "new" / lpips.FILE

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserMistake, match=r"cannot be fetched \(no network\): download https"):
        LPIPS(fetch=True).prepare(Photographs(), tmp_path / "other")


def test_another_file_is_refused(tmp_path, weights):
    with pytest.raises(UserMistake, match="is not torchvision's AlexNet"):
        LPIPS(path=str(weights)).prepare(Photographs(), tmp_path)
    with pytest.raises(UserMistake, match="lpips.path=.*nowhere: there is no such file"):
        LPIPS(path=str(tmp_path / "nowhere")).prepare(Photographs(), tmp_path)


def test_images_that_alexnet_cannot_read_have_none(tmp_path):
    metric = LPIPS()
    metric.prepare(Squares(), tmp_path)
    assert metric.network is None
    with pytest.raises(UserMistake, match=r"squares \(1 x 8 x 8\): .* 31 pixels a side"):
        LPIPS(fetch=True).prepare(Squares(), tmp_path)

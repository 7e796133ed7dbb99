"""Inversion: finds the latent of a generated picture, tells its cost, goes on where it was."""

import math

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from fixtures.evaluation import CPU, Squares, configure, make_evaluation, make_vae, values
from genbench.data.subsets import chosen
from genbench.errors import UserMistake
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics import inversion
from genbench.metrics.inversion import Inversion, invert
from genbench.metrics.likelihood import LikelihoodRequest
from genbench.models.contract import GenerativeModel, Player


class Generator(GenerativeModel):
    """A small decoder without an encoder; `sampled` counts the latents that it has decoded."""

    latent_dim = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.decoder = nn.Sequential(
            nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
        )
        for layer in (self.decoder[0], self.decoder[2]):
            nn.init.normal_(layer.weight, std=0.4)
        self.sampled = 0

    def players(self):
        return {"generator": Player([self.decoder], torch.optim.Adam)}

    def step(self, images):
        yield from ()

    def sample(self, z):
        self.sampled += len(z)
        return self.decoder(z)


class OtherPrior(Generator):
    def latents(self, n, generator):
        return torch.zeros(n, 4)


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_latent_of_a_generated_picture_is_found():
    model, z = Generator(), noise(6, 4)
    with torch.no_grad():
        images = model.sample(z)
        found = invert(model.sample, images, noise(4, 6, 4, seed=2), 800, 0.05)
    torch.testing.assert_close(found, z, atol=0.02, rtol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_image_depends_on_another_and_more_starts_are_no_worse():
    model, z = Generator(), noise(5, 4)
    with torch.no_grad():
        images = model.sample(z) + 0.3 * noise(5, 1, 8, 8, seed=3)
        starts = noise(4, 5, 4, seed=2)
        together = invert(model.sample, images, starts, 40, 0.05)
        alone = invert(model.sample, images[2:3], starts[:, 2:3], 40, 0.05)
        torch.testing.assert_close(together[2:3], alone, atol=1e-4, rtol=0)
        single = invert(model.sample, images, starts[:1], 40, 0.05)
        errors = [
            (model.sample(one) - images).square().mean((1, 2, 3)) for one in (together, single)
        ]
    assert bool((errors[0] <= errors[1] + 1e-6).all())


class Drawn(Squares):
    """Held-out images that a model has generated."""

    def __init__(self, model):
        super().__init__()
        with torch.no_grad():
            images = model.sample(noise(60, 4))
        self.splits["test"] = self.to_pixels(images).numpy()


def scored(folder, model, data, setting, directory=None):
    evaluation = make_evaluation(folder, metrics={}, likelihoods={}, inversion=setting)
    return evaluation(model, data, CPU, directory)


def test_a_gan_gives_pictures_of_its_own_back_and_those_of_others_not(tmp_path, capsys):
    model = Generator()
    own = scored(tmp_path, model, Drawn(model), {"images": 20, "steps": 200})
    assert [score.name for score in own] == ["inversion_psnr", "inversion_norm"]
    found = values(own)
    assert found["inversion_psnr"] > 35  # 42 dB is one level in one value
    assert 0.5 < found["inversion_norm"] < 1.5
    assert own[0].card["heldout"]["subset"]["n"] == 20
    printed = capsys.readouterr().err
    assert "inversion: 16,000 decodings with gradient, about" in printed
    others = values(scored(tmp_path, model, Squares(), {"images": 20, "steps": 200}))
    assert others["inversion_psnr"] < 20


def test_it_goes_on_where_it_was_and_only_for_these_weights(tmp_path, monkeypatch):
    model, data, setting = Generator(), Squares(), {"images": 20, "steps": 5}
    whole = values(scored(tmp_path, model, data, setting))
    monkeypatch.setattr(inversion, "BLOCK", 8)
    assert values(scored(tmp_path, model, data, setting)) == pytest.approx(whole, rel=1e-4)
    block, calls = Inversion._block, []

    def stops(self, request, part):
        calls.append(part.start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return block(self, request, part)

    monkeypatch.setattr(Inversion, "_block", stops)
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path, model, data, setting, tmp_path)
    assert values(scored(tmp_path, model, data, setting, tmp_path)) == pytest.approx(
        whole, rel=1e-4
    )
    assert calls == [0, 8, 16, 16]
    scored(tmp_path, model, data, setting, tmp_path)
    assert len(calls) == 4
    nn.init.zeros_(model.decoder[0].bias)
    scored(tmp_path, model, data, setting, tmp_path)
    assert len(calls) == 7


def test_it_never_shares_a_column_with_an_encoder(tmp_path):
    names = [
        s.name for s in scored(tmp_path, make_vae(DiscretizedLogistic(17)), Squares(), {"steps": 2})
    ]
    assert names == ["inversion_psnr", "inversion_norm"]


def test_another_prior_an_untrained_model_and_the_default_have_none(tmp_path):
    assert scored(tmp_path, OtherPrior(), Squares(), True) == []
    assert scored(tmp_path, Generator(), Squares(), False) == []
    model = Generator()
    model.players = dict
    assert scored(tmp_path, model, Squares(), True) == []


def test_images_that_are_nan_leave_no_value(tmp_path):
    model = Generator()
    nn.init.constant_(model.decoder[0].weight, math.nan)
    scores = scored(tmp_path, model, Squares(), {"images": 3, "steps": 2})
    assert {(score.value, score.status) for score in scores} == {(None, "nonfinite")}


def test_the_images_are_those_of_the_fixed_permutation(tmp_path):
    data = Squares()
    request = LikelihoodRequest(Generator(), data, CPU, 0, 32)
    originals, _, starts = Inversion()._begin(request, range(1, 3))
    expected = data.pixels("test")[chosen(data, "test", 3)[1:]]
    assert (originals.numpy() == expected).all()
    assert starts.shape == (4, 2, 4)


def test_the_command_line_asks_for_it_with_true_or_with_settings(tmp_path):
    for given, images in (("true", 32), ("{images:64}", 64)):
        cfg = configure(tmp_path, f"evaluation.inversion={given}")
        made = instantiate(cfg.evaluation)
        assert made.likelihoods["inversion"].images == images
    assert "inversion" not in instantiate(configure(tmp_path).evaluation).likelihoods


@pytest.mark.parametrize("setting", [{"image": 3}, 3, {"images": 0}, {"learning_rate": 0}])
def test_what_is_no_setting_is_refused(setting):
    with pytest.raises(UserMistake, match="evaluation.inversion"):
        Inversion.of(setting)

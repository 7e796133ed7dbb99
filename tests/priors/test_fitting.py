"""A prior belongs to the weights of one checkpoint, and is kept with the run."""

import json

import pytest
import torch

from fixtures.priors import Clusters, Linear, make_gan
from genbench.errors import UserMistake
from genbench.models.contract import GenerativeModel
from genbench.models.noise import Noise
from genbench.models.weights import weights_hash
from genbench.priors import fitting
from genbench.priors.aggregated import Aggregated
from genbench.priors.contract import CannotBeFitted
from genbench.priors.fitting import check_priors, drawing_from, fit, kept_or_fitted, read_fit
from genbench.priors.flow import Flow
from genbench.priors.mixture import Mixture
from genbench.priors.truncated import Truncated


@pytest.fixture(scope="module")
def data():
    return Clusters()


def draws(fitted, n=50):
    return fitted.draw(n, torch.Generator().manual_seed(3))


PRIORS = [
    Mixture([1, 2], codes=400),
    Flow(codes=400, width=8, depth=1, steps=3),
    Aggregated(codes=400),
    Truncated(scale=0.5),
]


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.kind)
def test_a_kept_fit_draws_what_a_new_one_draws_bit_for_bit(prior, data, tmp_path, monkeypatch):
    model = Linear()
    torch.manual_seed(1)
    first = kept_or_fitted(prior, model, data, tmp_path)
    torch.manual_seed(2)  # no chance but its own
    assert draws(first).equal(draws(fit(prior, model, data)))
    monkeypatch.setattr(fitting, "fit", None)  # from here on it is read
    again = kept_or_fitted(prior, model, data, tmp_path)
    assert draws(first).equal(draws(again))
    assert again.card == first.card
    assert not prior.tensors  # the setting itself stays unfitted, for other weights


def test_the_card_says_what_was_fitted_to_what(data, tmp_path):
    model = Linear()
    fitted = kept_or_fitted(Mixture([1, 2], codes=1_000, seed=7), model, data, tmp_path)
    card = json.loads((tmp_path / "priors" / f"{fitted.stem}.json").read_text())
    assert card["weights"] == weights_hash(model)
    assert card["codes"] == 800  # two draws of each of 400 images
    assert card["protocol"]["codes"]["draws"] == 2
    assert card["protocol"]["codes"]["images"]["fingerprint"] == data.card("train")["fingerprint"]
    assert card["protocol"]["seed"] == 7
    assert card["found"]["components"] == 2
    assert card["parameters"] == 19
    assert card["seconds"] > 0


def test_a_fit_of_another_checkpoint_is_refused(data, tmp_path):
    first, second = Linear(), Linear(scale=2.0)
    prior = Mixture(2, codes=400)
    own = kept_or_fitted(prior, first, data, tmp_path)
    with pytest.raises(UserMistake, match="was fitted to the codes of another checkpoint"):
        read_fit(tmp_path, own.stem, second)
    other = kept_or_fitted(prior, second, data, tmp_path)  # has a name of its own
    assert other.stem != own.stem
    for ending in ("json", "safetensors"):
        (tmp_path / "priors" / f"{own.stem}.{ending}").rename(
            tmp_path / "priors" / f"{other.stem}.{ending}"
        )
    with pytest.raises(UserMistake, match="genbench evaluate .* prior=mixture` fits a new one"):
        kept_or_fitted(prior, second, data, tmp_path)


def test_another_seed_and_other_settings_are_other_fits(data, tmp_path):
    model = Linear()
    stems = {
        kept_or_fitted(Mixture(count, codes=400, seed=seed), model, data, tmp_path).stem
        for count in (1, 2)
        for seed in (0, 1)
    }
    assert len(stems) == 4


def test_a_damaged_fit_is_made_anew(data, tmp_path):
    model, prior = Linear(), Truncated(scale=0.5)
    fitted = kept_or_fitted(prior, model, data, tmp_path)
    (tmp_path / "priors" / f"{fitted.stem}.safetensors").write_bytes(b"0")
    assert draws(kept_or_fitted(prior, model, data, tmp_path)).equal(draws(fitted))


def test_a_model_draws_from_a_fit_only_within(data):
    model = Linear()
    before = model.latents(4, torch.Generator().manual_seed(0))
    fitted = fit(Aggregated(codes=400), model, data)
    with pytest.raises(ZeroDivisionError), drawing_from(model, fitted):
        assert model.latents(50, torch.Generator().manual_seed(3)).equal(draws(fitted))
        raise ZeroDivisionError
    assert model.latents(4, torch.Generator().manual_seed(0)).equal(before)
    assert "latents" not in vars(model)


@pytest.mark.parametrize(
    ("prior", "model", "words"),
    [
        (Mixture(2), make_gan(), "prior=mixture is fitted to codes, and GAN has no encoder"),
        (Flow(), make_gan(), "prior=flow is fitted to codes, and GAN has no encoder"),
        (Mixture([1, 500], codes=400), Linear(), "components=500 is more than the 360 codes"),
        (Truncated(scale=0.5), Noise(), "Noise draws its latents otherwise"),
    ],
)
def test_priors_that_a_model_cannot_have_are_refused_before_it_is_trained(
    prior, model, words, data
):
    with pytest.raises(UserMistake, match=words):
        check_priors([prior], model, data)


def test_every_model_that_draws_from_n01_can_be_truncated(data):
    check_priors([Truncated(scale=0.5)], make_gan(), data)
    check_priors([Truncated(threshold=1.0), *PRIORS], Linear(), data)


def test_codes_that_have_no_such_prior_are_told(data):
    broken = Linear()
    broken.posterior = lambda images: (torch.full((len(images), 3), torch.nan),) * 2
    with pytest.raises(CannotBeFitted, match="NaN or infinite"):
        fit(Mixture(1, codes=400), broken, data)
    dead = Linear()
    dead.posterior = lambda images: (
        torch.zeros(len(images), 3),
        torch.full((len(images), 3), -2000.0),
    )
    with pytest.raises(CannotBeFitted, match=r"raise prior\.mixture\.regularisation"):
        fit(Mixture(2, codes=400, regularisation=0.0), dead, data)


def test_a_kept_card_cannot_name_code_of_elsewhere(tmp_path):
    run = tmp_path / "run"
    (run / "priors").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    for name in ("pathlib.Path", "builtins.exec", "genbench.models.vae.VAE", "subprocess.Popen"):
        card = {"class": name, "arguments": {}, "weights": "", "found": {}}
        (run / "priors" / "mixture-1.json").write_text(json.dumps(card))
        with pytest.raises(UserMistake, match=f"keeps a prior of the class {name}"):
            read_fit(run, "mixture-1", torch.nn.Linear(1, 1))


def test_a_prior_of_the_user_s_own_that_the_config_does_not_name_is_read_again(tmp_path, data):
    class Own(Aggregated):
        kind = "own"

    (tmp_path / "config.yaml").write_text("seed: 0\n")
    model, prior = Linear(), Own(codes=200)
    first = kept_or_fitted(prior, model, data, tmp_path)
    again = kept_or_fitted(prior, model, data, tmp_path)
    assert torch.equal(draws(first), draws(again)) and len([*tmp_path.glob("priors/*.json")]) == 1
    with pytest.raises(UserMistake, match="keeps a prior of the class"):
        read_fit(tmp_path, first.stem, model)


def test_a_prior_is_fitted_to_the_codes_of_a_deterministic_encoder(data):
    gaussian = Linear()

    class Point(GenerativeModel):
        latent_dim = gaussian.latent_dim
        players = step = None  # it is not trained
        sample = gaussian.sample

        def encode(self, images):
            return gaussian.posterior(images)[0].detach()

    fitted = fit(Aggregated(codes=1_000), Point(), data)
    images = data.to_images(torch.from_numpy(data.pixels("train")))
    codes = Point().encode(images)
    assert fitted.card["codes"] == 800 and fitted.card["protocol"]["codes"]["draws"] == 2
    apart = torch.cdist(draws(fitted).double(), codes.double()).amin(1)
    assert float(apart.max()) < 1e-6  # each draw is a code

"""Mixed precision: what must stay float32 does, and a run in bf16 is the same run."""

import math

import pytest
import torch
import two_ranks
from hydra.utils import instantiate
from pytorch_lightning import Trainer
from pytorch_lightning.plugins import MixedPrecision

from genbench import engine
from genbench.losses.penalty import one_centered, zero_centered
from genbench.losses.variational import kl_to_standard_normal

MODELS = ["vae", "gan", "wgan-gp", "vae-gan"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def train(tmp_path, cache, model: str, precision: str, images: int = 1600):
    """Train and return (model, data, tracked means)."""
    engine.quieten_lightning()
    overrides = [f"model={model}", f"trainer.precision={precision}", f"budget.images={images}"]
    cfg = two_ranks.config(tmp_path, cache, 1, [*overrides, f"trainer.log_every_images={images}"])
    trained, data = engine.build(cfg)
    means: dict[str, float] = {}
    before = trained.means
    trained.means = lambda: means.update(before()) or means
    folder = tmp_path / f"{model}-{precision}"
    make, budget = instantiate(cfg.trainer), instantiate(cfg.budget)
    make(trained, data, folder, [], budget, None, []).fit(resume=False)
    return trained, data, means


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_bf16_loses_what_float32_loses(tmp_path, cache, model):
    _, _, full = train(tmp_path, cache, model, "32-true")
    trained, _, mixed = train(tmp_path, cache, model, "bf16-mixed")
    assert all(p.dtype == torch.float32 for p in trained.parameters())
    assert full.keys() == mixed.keys()
    for name, value in full.items():
        assert math.isclose(mixed[name], value, rel_tol=0.1, abs_tol=0.1), name
    assert full != mixed  # it did compute in bf16


class Thin(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 32)
        self.seen: list[torch.dtype] = []

    def forward(self, images):
        hidden = self.layer(images.flatten(1))
        self.seen.append(hidden.dtype)
        return torch.tanh(hidden).sum(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_penalties_under_autocast_are_those_of_float32(dtype):
    torch.manual_seed(0)
    network, images, fakes = Thin(), torch.randn(8, 1, 8, 8), torch.randn(8, 1, 8, 8)
    mix = torch.rand(8, 1, 1, 1)
    expected = zero_centered(network, images), one_centered(network, images, fakes, mix)
    with torch.autocast("cpu", dtype=dtype):
        network(images)
        found = zero_centered(network, images), one_centered(network, images, fakes, mix)
    assert network.seen[2] == dtype  # autocast was on around them
    assert set(network.seen[3:]) == {torch.float32}
    assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True))


@pytest.mark.parametrize("kind", ["DiscretizedLogistic", "Gaussian", "Bernoulli"])
def test_likelihoods_and_the_rate_are_float32_under_autocast(kind):
    from genbench.losses import likelihood

    cases = {"DiscretizedLogistic": {"levels": 256}, "Gaussian": {}, "Bernoulli": {"levels": 2}}
    made = getattr(likelihood, kind)(**cases[kind])
    torch.manual_seed(0)
    images = torch.randint(2, (4, 1, 8, 8)).float() * 2 - 1
    output, mu, logvar = torch.randn(4, 1, 8, 8), torch.randn(4, 6), torch.randn(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = made.log_prob(images, output), kl_to_standard_normal(mu, logvar)
    outside = made.log_prob(images, output), kl_to_standard_normal(mu, logvar)
    assert all(value.dtype == torch.float32 for value in inside)
    assert all(torch.equal(one, two) for one, two in zip(inside, outside, strict=True))


def test_half_precision_steps_do_not_disturb_each_others_scale(tmp_path, cache, monkeypatch):
    """Every player's backward is followed by its own step, before the scale may change."""
    engine.quieten_lightning()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    calls: list[str] = []
    for name in ("scale", "unscale_", "step", "update"):
        real = getattr(scaler, name)
        monkeypatch.setattr(
            scaler, name, lambda *a, _n=name, _r=real, **k: (calls.append(_n), _r(*a, **k))[1]
        )
    cfg = two_ranks.config(tmp_path, cache, 1, ["model=gan", "budget.images=160"])
    model, data = engine.build(cfg)
    model.batch_size = 16
    data.plan(seed=0, batch_size=16, pieces=1, steps=10, steps_per_batch=1)
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
    ).fit(model, data)
    one = [call for call in calls if call != "unscale_"]
    assert one == ["scale", "step", "update"] * 20
    assert scaler.get_scale() > 1024
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_half_precision_on_a_cpu_is_refused():
    from genbench.errors import UserMistake

    with pytest.raises(UserMistake, match="16-mixed needs a GPU"):
        engine.resolve_precision("16-mixed", torch.device("cpu"))
    assert engine.resolve_precision("auto", torch.device("cpu")) == "32-true"

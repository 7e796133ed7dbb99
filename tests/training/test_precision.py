"""Mixed precision: penalties and likelihoods stay float32, and losses are those of float32."""

import math
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from fixtures.trainers import RARELY, config, engine, engine_for, trained
from genbench.errors import UserMistake
from genbench.losses.penalty import one_centered, zero_centered
from genbench.losses.variational import kl_to_standard_normal
from genbench.models.contract import Move
from genbench.training import loading, precision
from genbench.training import trainer as trainer_module
from genbench.training.module import Pace, Training
from genbench.training.precision import HalfPrecision

CPU = torch.device("cpu")
MODELS = ["vae", "gan", "wgan-gp", "vae-gan"]
# a rate at which rounding does not grow within these steps
RATES = {"vae-gan": ["model.autoencoder_optimizer.lr=1e-3"]}


def train(tmp_path, cache, model: str, precision: str, images: int = 1600):
    """Train and return (model, data, tracked means)."""
    trainer_module.quieten_lightning()
    overrides = [f"model={model}", f"trainer.precision={precision}", f"budget.images={images}"]
    overrides += RATES.get(model, [])
    cfg = config(tmp_path, cache, 1, [*overrides, f"trainer.log_every_images={images}"])
    built, data = loading.build(cfg)
    made = engine_for(cfg, built, data, tmp_path / f"{model}-{precision}")
    means: dict[str, float] = {}
    before = made.training.means
    made.training.means = lambda: means.update(before()) or means
    made.fit(resume=False)
    return built, data, means


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_losses_in_bf16_are_close_to_those_in_float32(tmp_path, cache, model):
    _, _, full = train(tmp_path, cache, model, "32-true")
    half, _, mixed = train(tmp_path, cache, model, "bf16-mixed")
    assert all(p.dtype == torch.float32 for p in half.parameters())
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


class Overflow(Callback):
    """Makes the loss of a player infinite in some of its backwards."""

    def __init__(self, player: str, backwards: range) -> None:
        self.player, self.backwards, self.seen = player, backwards, 0

    def setup(self, trainer, pl_module, stage):
        step = pl_module.model.step

        def poisoned(images):
            for player, loss in step(images):
                bad = player == self.player and self.seen in self.backwards
                self.seen += player == self.player
                yield Move(player, (lambda loss=loss: loss() * math.inf) if bad else loss)

        pl_module.model.step = poisoned


def halves(folder, cache, *callbacks, resume=None, make=None):
    """A GAN in half precision on the CPU, where genbench refuses it: (trainer, training)."""
    trainer_module.quieten_lightning()
    cfg = config(folder, cache, 1, ["model=gan", "budget.images=160"])
    model, data = loading.build(cfg)
    data.plan(seed=0, batch_size=16, pieces=1, steps=10, steps_per_batch=1)
    make = make or partial(torch.amp.GradScaler, init_scale=1024.0, growth_interval=100)
    training = Training(model, data, Pace(16, make_scaler=partial(make, "cpu")))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=list(callbacks),
        plugins=[HalfPrecision("cpu")],
        **dict.fromkeys(
            ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False
        ),
    )
    trainer.fit(training, ckpt_path=resume, weights_only=True)
    return trainer, training


def scalers(training):
    return {name: seat.scaler for name, seat in training.seats.items()}


def test_every_backward_of_half_precision_is_followed_by_its_own_step(tmp_path, cache):
    calls: list[str] = []

    class Spy(torch.amp.GradScaler):
        def __init__(self, device):
            super().__init__(device, init_scale=1024.0, growth_interval=3)

        def scale(self, outputs):
            calls.append("scale")
            return super().scale(outputs)

        def step(self, optimizer, *arguments, **named):
            calls.append("step")
            return super().step(optimizer, *arguments, **named)

        def update(self, new_scale=None):
            calls.append("update")
            super().update(new_scale)

    _, training = halves(tmp_path, cache, make=Spy)
    assert calls == ["scale", "step", "update"] * 20
    assert [*scalers(training)] == ["discriminator", "generator"]
    assert all(scaler.get_scale() == 1024 * 2**3 for scaler in scalers(training).values())
    assert all(value.isfinite().all() for value in training.state_dict().values())


def test_an_overflow_of_one_player_lowers_its_own_scale_and_skips_its_own_step(tmp_path, cache):
    trainer, training = halves(tmp_path, cache, Overflow("discriminator", range(3, 5)))
    scales = {name: s.get_scale() for name, s in scalers(training).items()}
    assert scales == {"discriminator": 1024 / 4, "generator": 1024}
    assert {name: skipped.total for name, skipped in training.skipped().items()} == {
        "discriminator": 2,
        "generator": 0,
    }
    taken = [int(next(iter(o.state.values()))["step"]) for o in trainer.optimizers]
    assert taken == [8, 10]
    assert all(value.isfinite().all() for value in training.state_dict().values())


def test_a_resumed_run_restores_its_loss_scales(tmp_path, cache):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if pl_module.steps == 4:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    _, expected = halves(tmp_path, cache, Overflow("generator", range(1, 2)), Save())
    scales = {name: scaler.state_dict() for name, scaler in scalers(expected).items()}
    assert scales["generator"]["scale"] == 512
    assert [s["_growth_tracker"] for s in scales.values()] == [10, 8]
    _, training = halves(tmp_path, cache, resume=tmp_path / "half.ckpt")
    assert {name: scaler.state_dict() for name, scaler in scalers(training).items()} == scales
    assert training.steps == 10
    for name, value in expected.state_dict().items():
        assert torch.equal(value, training.state_dict()[name])


def test_a_gpu_run_in_half_precision_leaves_scaling_to_the_players():
    plugins = trainer_module._precision_and_plugins("16-mixed", torch.device("cpu"), 1)["plugins"]
    assert [type(plugin) for plugin in plugins] == [HalfPrecision]
    assert plugins[0].scaler is None
    assert trainer_module._precision_and_plugins("bf16-mixed", torch.device("cpu"), 1) == {
        "precision": "bf16-mixed"
    }


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(UserMistake, match="16-mixed needs a GPU"):
        precision.resolve("16-mixed", CPU)
    with pytest.raises(UserMistake, match="precision=8 is not one of auto, 32-true"):
        precision.resolve(8, CPU)


def test_automatic_precision_on_a_cpu_is_float32_without_probes():
    assert precision.resolve("auto", CPU) == ("32-true", "auto", ())
    assert precision.resolve("bf16", CPU).taken == "bf16-mixed"


@pytest.mark.parametrize("half", ["bf16-mixed", "16-mixed"])
def test_a_probe_accepts_a_device_that_computes_as_float32_does(half):
    found = precision.probe(half, CPU)
    assert found.accepted, found.why
    error = float(found.why.split("gradients are ")[1].split()[0])
    assert 1e-5 < error < 0.02  # it was in half precision, and near


def spoilt(how):
    """Gradients of a device whose half precision is not what it should be."""

    def gradients(device, dtype):
        return [how(g) if dtype is not None else g for g in right(device, dtype)]

    right = precision.gradients
    return gradients


def fail(gradient):
    raise RuntimeError("no kernel image is available\nfor execution on the device")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda g: g * 1.2, "gradients are 0.2 of their norm"),
        (lambda g: g * math.nan, "gradients are nan of their norm"),
        (fail, "no kernel image is available"),
    ],
)
def test_a_probe_refuses_a_device_that_computes_otherwise(monkeypatch, how, why):
    monkeypatch.setattr(precision, "gradients", spoilt(how))
    found = precision.probe("bf16-mixed", CPU)
    assert not found.accepted and why in found.why
    assert "\n" not in found.why


def test_automatic_precision_is_the_first_that_is_accepted(monkeypatch):
    def only(*names):
        monkeypatch.setattr(
            precision, "probe", lambda name, device: precision.Probe(name, name in names, "so")
        )
        return precision.resolve("auto", torch.device("meta"))

    assert only("bf16-mixed", "16-mixed").taken == "bf16-mixed"
    assert only("16-mixed").taken == "16-mixed"
    assert only().taken == "32-true"
    assert only("16-mixed").card()["probes"] == [
        {"precision": "bf16-mixed", "accepted": False, "why": "so"},
        {"precision": "16-mixed", "accepted": True, "why": "so"},
    ]


@pytest.mark.gpu
def test_automatic_precision_on_a_gpu_is_half():
    found = precision.resolve("auto", torch.device("cuda", 0))
    assert found.taken in ("bf16-mixed", "16-mixed"), found.probes


@pytest.mark.parametrize("model", ["gan", "vae-gan"])
def test_bf16_steps_are_the_same_one_by_one_and_ten_at_a_time(tmp_path, cache, model):
    """An autocast that kept its casts over steps would compute with weights of before the last one."""
    half = [f"model={model}", "trainer.precision=bf16-mixed", *RARELY]
    one, ten = (
        trained(engine(tmp_path / str(number), cache, *half, f"trainer.steps_per_batch={number}"))
        for number in (1, 10)
    )
    assert all(torch.equal(value, ten[0][name]) for name, value in one[0].items())


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: device busy")],
)
def test_a_gpu_that_is_full_or_busy_is_no_reason_for_another_method(monkeypatch, error):
    def gradients(device, dtype):
        raise error

    monkeypatch.setattr(precision, "gradients", gradients)
    with pytest.raises(type(error)):
        precision.probe("bf16-mixed", CPU)


def test_ranks_take_what_the_first_one_has_found(monkeypatch):
    probes = []

    def probe(name, device):
        probes.append(name)
        return precision.Probe(name, name == "16-mixed", "so")

    monkeypatch.setattr(precision, "probe", probe)
    monkeypatch.setenv(precision.FOUND, "")  # and back afterwards
    monkeypatch.setenv("LOCAL_RANK", "0")
    gpu = torch.device("meta")
    first = precision.resolve_for_ranks("auto", gpu)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert precision.resolve_for_ranks("auto", gpu) == first
    assert len(probes) == 2 and first.taken == "16-mixed"
    assert precision.resolve_for_ranks("32-true", gpu).taken == "32-true"

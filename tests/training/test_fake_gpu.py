"""Training and scoring on a GPU that computes nothing: no mix of devices, and nobody waits in a step."""

import contextlib
from collections import Counter
from functools import partial
from unittest import mock

import pytest
import torch
from hydra.utils import instantiate

from fixtures.rows import QUICK, TRAINED
from fixtures.trainers import BATCH, change_pace, config, engine_for
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.metrics import class_balance
from genbench.metrics.feature_cache import FeatureCache
from genbench.models.batch_statistics import across_ranks
from genbench.models.contract import Draws
from genbench.models.gan import GAN
from genbench.runs.paths import config_root
from genbench.training import loading, module, seat, trainer
from genbench.training.cuda_graph import WARM_UP, Capture
from genbench.training.module import Training

try:
    from fixtures import fake_gpu
except (ImportError, AttributeError) as error:
    reason = f"the fake GPU leans on a name of torch that is not there any more: {error}"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
STEPS = 4
LARGER = ["dataset.image_size=32", "dataset.upscale=true", "network.width=8"]
# of what a network can be: a fake step takes as long as it has operations
SMALLEST = {"mlp": [], "conv": [], "r3": ["network.blocks=1", "network.width=16"]}


def trained(tmp_path, cache, *overrides, steps=STEPS, graph=False, ranks=False):
    """What crossed between devices in the steps of a training on the fake GPU, by line.

    With `ranks` it is the first of two, whose collectives bring nothing.
    """
    trainer.quieten_lightning()
    rare = ["trainer.samples=0", "trainer.log_every_images=100M", "trainer.precision=32-true"]
    cfg = config(tmp_path, cache, 1, [f"budget.images={steps * BATCH}", *rare, *overrides])
    model, data = loading.build(cfg)
    inside: Counter[str] = Counter()
    with fake_gpu.a_gpu_is_there():
        callbacks = [instantiate(cfg.ema)] if cfg.ema else []
        engine = engine_for(cfg, model, data, tmp_path, callbacks=callbacks)
        engine.checkpoints.save = engine.samples.draw = lambda *_: None  # they need values
        if graph:
            change_pace(engine, capture=Capture(record=lambda work, generator: work))
        step = engine.training.training_step

        def training_step(batch, batch_idx):
            before = Counter(traffic.seen)
            step(batch, batch_idx)
            inside.update(traffic.seen - before)

        engine.training.training_step = training_step
        together = two_ranks(model) if ranks else contextlib.nullcontext()
        with fake_gpu.fake_gpu() as traffic, together:
            engine.fit(resume=False)
    assert engine.training.steps == steps
    assert {p.device for p in model.parameters()} == {fake_gpu.GPU}
    return inside


@contextlib.contextmanager
def two_ranks(model):
    """As if there were a second process: gradients and statistics of norms are exchanged with it."""
    across_ranks(model)
    of_ranks = {
        "all_reduce": lambda tensor, **_: None,
        "get_rank": lambda: 0,
        "get_world_size": lambda: 2,
    }
    seats = partial(seat.take_seats, together=True)
    with (
        mock.patch.multiple(torch.distributed, **of_ranks),
        mock.patch.object(module, "take_seats", lambda *a, together: seats(*a)),
    ):
        yield


def options(group):
    """All of a config group: a new one is tried because it exists."""
    return sorted(path.stem for path in (config_root() / group).glob("*.yaml"))


# they change layers of the network, or use it as no other does; vae-gan has a network in each of its roles
ALL_NETWORKS = ("vae-gan", "gan-sn", "gan-san", "r3gan", "flow-matching")


def combinations():
    """Models, networks and precisions; the quick part has some models on the mlp.

    Every model is tried with vectors and with maps of features, and every network with the models that differ
    in what they do to it. A precision concerns players and networks, not what a model computes.
    """
    for model in TRAINED:
        for network in options("network"):
            if network in ("mlp", "conv") or model in ALL_NETWORKS:
                quick = network == "mlp" and model in QUICK
                yield pytest.param(
                    model, network, "bf16-mixed", marks=[] if quick else pytest.mark.slow
                )
            if (network == "mlp" and model in QUICK) or model == "vae-gan":
                for precision in ("32-true", "16-mixed"):
                    yield pytest.param(model, network, precision, marks=pytest.mark.slow)


@pytest.mark.parametrize(("model", "network", "precision"), list(combinations()))
def test_a_step_neither_mixes_devices_nor_waits(tmp_path, cache, model, network, precision):
    settings = [f"model={model}", f"network={network}", f"trainer.precision={precision}"]
    settings += SMALLEST.get(network, LARGER)
    # the first step makes the optimizers' state, and the next ones are alike
    assert not trained(tmp_path, cache, *settings, steps=2)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # an average's copy
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            ["model=wgan-gp", "trainer.accumulate=4", "gradient_clip=1.0"], marks=pytest.mark.slow
        ),
        ["model=vae-gan", "schedule=cosine", "ema=standard", "gradient_clip=1.0"],
        ["model=gan", "dataset.flip=true", "trainer.steps_per_batch=1"],
        ["model=vae", "likelihood=gaussian"],
        ["model=vae-gan", "arena.condition=class", "arena.label_dropout=0.1"],
    ],
)
def test_nor_do_the_settings_of_a_training(tmp_path, cache, settings):
    assert not trained(tmp_path, cache, *settings)


@pytest.mark.parametrize("model", [pytest.param("gan", marks=pytest.mark.slow), "vae-gan"])
def test_nor_does_a_step_that_is_recorded(tmp_path, cache, model):
    settings = [f"model={model}", "gradient_clip=1.0"]
    assert not trained(tmp_path, cache, *settings, steps=WARM_UP + 2, graph=True)


BATCH_NORMS = ["network=conv", "network.decoder_norm=batch", "network.width=4"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", [pytest.param("gan", marks=pytest.mark.slow), "vae-gan"])
def test_nor_does_a_step_of_several_ranks(tmp_path, cache, model, precision):
    settings = [f"model={model}", *BATCH_NORMS, f"trainer.precision={precision}"]
    assert not trained(tmp_path, cache, *settings, ranks=True)


def test_an_optimizer_that_is_not_fused_is_waited_for(tmp_path, cache):
    inside = trained(tmp_path, cache, "model=vae", "model.optimizer.fused=false")
    assert {name.split(",")[0] for name in inside} == {"wait for a number"}


@pytest.mark.parametrize("model", [pytest.param("vae", marks=pytest.mark.slow), "vae-gan"])
def test_scores_are_computed_without_a_mix_of_devices(tmp_path, cache, model):
    few = ["evaluation.num_samples=256", "evaluation.metrics.frechet.bootstrap=2"]
    few += [f"evaluation.likelihoods.bounds.{n}" for n in ("importance_draws=8", "max_images=32")]
    cfg = config(tmp_path, cache, 1, [f"model={model}", *few])
    made, data = loading.build(cfg)
    scoring = instantiate(cfg.evaluation)
    scoring.prepare(data)
    with (
        fake_gpu.a_gpu_is_there(),
        fake_gpu.fake_gpu(),
        # they need values, and a driver
        mock.patch.object(FeatureCache, "save"),
        mock.patch.object(FeatureCache, "load", lambda *_: None),
        mock.patch.object(class_balance, "equal_variations", lambda *_: torch.zeros(9).double()),
    ):
        assert len(scoring(made.to(fake_gpu.GPU), data, fake_gpu.GPU)) >= 13


# --- what it is for: faults that it finds ---------------------------------------------------------


def _waiting(self, name, value, before=Training._track):
    value.item()
    before(self, name, value)


def _masked(self, images, before=GAN.step):
    return before(self, images[images.flatten(1).sum(1) > 0])


def _shuffled(self, images, before=GAN.step):
    return before(self, images[torch.randperm(len(images))])


def _copied(self, images, before=GAN.step):
    return before(self, images.cpu().to(self.device))


def _made(self, images, before=GAN.step):
    return before(self, images * torch.tensor(1.0, device=images.device))


def _compared(self, images, before=GAN.step):
    assert images.isfinite().all()
    return before(self, images)


@pytest.mark.parametrize(
    ("owner", "name", "fault", "words"),
    [
        (Training, "_track", _waiting, "wait for a number"),
        (GAN, "step", _masked, "wait for a mask"),
        (GAN, "step", _shuffled, "send indices"),
        (GAN, "step", _copied, "wait for a copy"),
        (GAN, "step", _made, "send ()"),
        (GAN, "step", _compared, "wait for a number"),
    ],
)
def test_a_step_that_waits_is_found(tmp_path, cache, owner, name, fault, words):
    with mock.patch.object(owner, name, fault):
        inside = trained(tmp_path, cache, "model=gan")
    assert any(found.startswith(words) for found in inside), inside


def _on_the_cpu(self, draw, n, shape):
    return draw(n, *shape, generator=torch.Generator())


def _by_the_cpu(self, draw, n, shape):
    return draw(n, *shape, generator=torch.Generator(), device=self.device)


@pytest.mark.parametrize("fault", [_on_the_cpu, _by_the_cpu])
def test_a_draw_on_the_wrong_device_is_found(tmp_path, cache, fault):
    with mock.patch.object(Draws, "__call__", fault), pytest.raises(RuntimeError, match="cpu"):
        trained(tmp_path, cache, "model=gan")


def test_a_constant_that_does_not_move_with_its_module_is_found(tmp_path, cache):
    edges, before = torch.zeros(1, 8, 8), DiscretizedLogistic.log_prob

    def log_prob(self, images, output):
        return before(self, images + edges, output)

    patch = mock.patch.object(DiscretizedLogistic, "log_prob", log_prob)
    with patch, pytest.raises(RuntimeError, match="cpu"):
        trained(tmp_path, cache, "model=vae")

"""BatchNorm outside of training: the statistics of prior samples, for every model and all its weights."""

import copy
import sys

import pytest
import torch
from torch import nn

from fixtures.evaluation import CPU, Squares, make_evaluation, values
from genbench.data.subsets import chosen
from genbench.losses.likelihood import DiscretizedLogistic
from genbench.models import batch_statistics
from genbench.models.batch_statistics import (
    BATCH_SIZE,
    BATCHES,
    SEED,
    batch_norm_card,
    recalibrated,
)
from genbench.models.noise import Noise
from genbench.models.reconstruction import encoded_norm_card, reconstructing
from genbench.models.vae import VAE
from genbench.networks.heads import GaussianEncoder
from genbench.networks.mlp import MLPTrunk


def make(norm=nn.BatchNorm1d):
    """A VAE whose decoder has a norm, and running statistics of something else."""
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(4, 64), norm(64), nn.Dropout(0.5), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8))
    )
    if norm is not nn.Identity:
        decoder[1].running_mean.fill_(100.0)
        decoder[1].num_batches_tracked.fill_(7)
    encoder = GaussianEncoder(MLPTrunk(8, 1, 8, 1), 4)
    return VAE(decoder, encoder, DiscretizedLogistic(17), 4, 1.0, torch.optim.Adam)


def prior_of(model):
    z = model.latents(BATCHES * BATCH_SIZE, torch.Generator().manual_seed(SEED))
    return model.decoder[0](z).detach().double()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_the_statistics_are_those_of_samples_from_the_prior(norm, monkeypatch):
    def collective(self, hidden):
        assert not self.training, "the other DDP ranks take no part"
        return nn.BatchNorm1d.forward(self, hidden)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", collective)
    model = make(norm).eval()
    with recalibrated(model):
        layer = model.decoder[1]
        assert (layer.training, layer.momentum) == (False, 0.1)
        expected = prior_of(model)
        torch.testing.assert_close(layer.running_mean.double(), expected.mean(0), atol=1e-5, rtol=0)
        per_batch = torch.stack([part.var(0) for part in expected.split(BATCH_SIZE)])
        torch.testing.assert_close(layer.running_var.double(), per_batch.mean(0), atol=0, rtol=1e-5)
        model.sample(torch.zeros(2, 4))


def test_the_trained_statistics_modes_and_random_states_come_back():
    model = make().train()
    model.decoder[2].eval()
    before, places = copy.deepcopy(model.state_dict()), [b.data_ptr() for b in model.buffers()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), recalibrated(model):
        assert not torch.equal(model.decoder[1].running_mean, before["decoder.1.running_mean"])
        assert model.decoder[1].training
        assert not model.decoder[2].training
        1 / 0  # noqa: B018
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [b.data_ptr() for b in model.buffers()] == places  # a CUDA graph writes there
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_come_back_when_sampling_fails():
    model = make().train()
    model.sample = lambda z: 1 / 0
    with pytest.raises(ZeroDivisionError), recalibrated(model):
        pass
    assert model.decoder[1].training
    assert model.decoder[1].momentum == 0.1
    assert float(model.decoder[1].running_mean[0]) == 100


@pytest.mark.parametrize("model", [make(nn.Identity), Noise()], ids=["no norm", "no decoder"])
def test_nothing_happens_without_batch_norm(model):
    model.sample = lambda z: 1 / 0
    with recalibrated(model):
        pass
    assert batch_norm_card(model) == {}


def test_no_score_depends_on_the_trained_statistics(tmp_path):
    """Neither of samples, nor the distance that selects weights, nor likelihoods; each card says why."""
    found = []
    for mean in (0.0, 100.0):
        model = make()
        model.decoder[1].running_mean.fill_(mean)
        evaluation = make_evaluation(tmp_path)
        scores = evaluation(model, Squares(), CPU)
        distance = evaluation.validation_distance(Squares(), model, 100, seed=1)
        found.append(values(scores) | {"distance": distance})
        assert torch.equal(model.decoder[1].running_mean, torch.full((64,), mean))
        rule = {"rule": "recalibrated", "batches": 8, "batch_size": 256, "seed": 1414}
        drawn = encoded_norm_card(model, Squares(), "posterior draws")["batch_norm"]
        for score in scores:
            card = score.card.get("fake", score.card)
            own = "likelihood" in score.card or score.quantity == "posthoc_variance"
            there = rule if "fake" in score.card else drawn if own else None
            assert card.get("batch_norm") == there, score.name
    assert "elbo_discretized-logistic-17" in found[0]
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_compiled_decoder_is_not_compiled_for_it():
    model = make().eval()
    with recalibrated(model):
        expected = model.sample(torch.ones(2, 4))
    calls = []

    def backend(module, inputs):
        calls.append(module)
        return module

    model.decoder.compile(backend=backend)
    assert "torch._dynamo" in sys.modules
    with recalibrated(model):
        assert not calls
        torch.testing.assert_close(model.sample(torch.ones(2, 4)), expected)
    assert calls


@pytest.fixture
def one_rank():
    """A process group of this process alone."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (8,)), (nn.BatchNorm2d, (3, 5))])
def test_batch_norm_across_ranks_is_batch_norm(one_rank, kind, shape, momentum):
    """Values, gradients and statistics; over two ranks: `two_ranks`."""
    torch.manual_seed(0)
    channels = shape[0] if len(shape) == 1 else 4
    size = (16, channels) if len(shape) == 1 else (16, channels, *shape)
    own, expected = (nn.Sequential(kind(channels, momentum=momentum)).double() for _ in range(2))
    own.load_state_dict(expected.state_dict())
    batch_statistics.across_ranks(own)
    results = []
    for norm in (own, expected):
        torch.manual_seed(1)
        for _ in range(2):
            images = (torch.randn(size).double() + 3).requires_grad_()
            made = norm(images)
            gradients = torch.autograd.grad(
                made.square().sum() + made[0].sum(), [images, *norm.parameters()]
            )
        results.append([made, *gradients, norm(images).detach(), *norm.state_dict().values()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-5, atol=1e-5)
    batch_statistics.alone(own)
    assert type(own[0]) is kind


def test_reconstructions_have_the_statistics_of_reconstructions_of_training_images():
    data = Squares(sizes=(257, 40, 60))  # the last image would be a batch of its own
    model = make().eval()
    layer = model.decoder[1]
    images = data.to_images(torch.from_numpy(data.pixels("train")[chosen(data, "train", 256)]))
    with torch.no_grad():
        expected = model.decoder[0](model.posterior(images)[0])
    with recalibrated(model):
        of_prior = layer.running_mean.clone()
        with reconstructing(model, data):
            torch.testing.assert_close(layer.running_mean, expected.mean(0), atol=1e-5, rtol=0)
            torch.testing.assert_close(layer.running_var, expected.var(0), atol=0, rtol=1e-4)
        assert torch.equal(layer.running_mean, of_prior)
        assert not torch.equal(of_prior, expected.mean(0))
    assert layer.running_mean.unique().item() == 100
    rule = encoded_norm_card(model, data, "reconstructions")["batch_norm"]
    assert rule["images"]["split"] == "train"
    assert encoded_norm_card(make(nn.Identity), data, "reconstructions") == {}

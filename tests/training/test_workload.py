"""What training costs: counted rows, images and multiply-adds against known answers."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fixtures.strangers import Forgery, Trio
from fixtures.trainers import BATCH, FEW, RARELY, change_pace, engine
from fixtures.training import go, make
from genbench.losses.adversarial import NonSaturating
from genbench.losses.likelihood import Gaussian
from genbench.models.contract import GenerativeModel, Move, Player
from genbench.models.gan import GAN
from genbench.models.noise import Noise
from genbench.models.vae import VAE
from genbench.networks.heads import Discriminator, GaussianEncoder
from genbench.networks.mlp import MLPDecoder, MLPTrunk
from genbench.networks.resnet import ResnetDecoder, ResnetTrunk
from genbench.runs.result import read_result
from genbench.training.cuda_graph import Capture
from genbench.training.step import Stepper
from genbench.training.workload import Flops, Tally, forward_multiply_adds, measure

# batches per step. The discriminator: of a GAN real, fake and R1's images, and fake again for the
# generator; of WGAN-GP real, fake and the mixture of both, five times, and fake; of a VAE-GAN real, fake
# and R1's images, then fake, and the features of real and reconstruction
ROWS = {
    "vae": {"decoder": 1, "encoder": 1},
    "gan": {"decoder": 1, "discriminator": 4},
    "vae-gan": {"decoder": 2, "encoder": 1, "discriminator": 6},
    "wgan-gp": {"decoder": 5, "discriminator": 16},
}
REAL = {"vae": 1, "gan": 1, "vae-gan": 1, "wgan-gp": 5}
SIZE, LATENT, WIDTH = 8, 3, 16
DATA = SimpleNamespace(name="squares", channels=1, image_size=SIZE)
SGD = partial(torch.optim.SGD, lr=0.01)


def decoder():
    return MLPDecoder(SIZE, 1, LATENT, WIDTH, depth=2)


def trunk():
    return MLPTrunk(SIZE, 1, WIDTH, depth=2)


def tally_of(model, steps=1, batch=1):
    """What `steps` steps come to, each with the moves of the trial step."""
    work = measure(model, DATA)
    tally = Tally(model.players(), work, batch)
    for _ in range(steps):
        tally.add({name: own.moves for name, own in work.items()}, 0)
    return tally


@pytest.mark.parametrize("model", ROWS)
def test_rows_and_real_images_of_a_step_are_the_known_ones(tmp_path, cache, model):
    made = engine(tmp_path, cache, f"model={model}")
    made.fit(resume=False)
    card, images = made.training.tally.card(), FEW * BATCH
    assert card["rows"] == {name: batches * images for name, batches in ROWS[model].items()}
    assert card["decoder_rows"] == ROWS[model]["decoder"] * images
    assert card["real_images"] == REAL[model] * images
    assert made.training.images_shown == images


@pytest.mark.parametrize("model", [pytest.param("wgan-gp", marks=pytest.mark.slow), "vae-gan"])
def test_how_steps_are_taken_changes_no_count(tmp_path, cache, model):
    ways = {
        "plain": ["trainer.steps_per_batch=1"],
        "in parts": ["trainer.accumulate=2"],
        "several steps": ["trainer.steps_per_batch=7", *RARELY],
        "replayed": [],
    }
    cards = []
    for name, settings in ways.items():
        made = engine(tmp_path / name, cache, f"model={model}", *settings)
        if name == "replayed":
            change_pace(made, capture=Capture(record=lambda work, generator: work))
        made.fit(resume=False)
        cards.append(made.training.tally.card())
    assert cards[0]["multiply_adds"] > 0
    assert all(card == cards[0] for card in cards)


def products(*widths):
    """Multiply-adds of an MLP for one image: forward, and of its first layer alone."""
    sizes = [a * b for a, b in pairwise(widths)]
    return sum(sizes), sizes[0]


def test_multiply_adds_of_a_vae_are_those_of_its_layers():
    likelihood = Gaussian()
    model = VAE(decoder(), GaussianEncoder(trunk(), LATENT), likelihood, LATENT, 1.0, SGD)
    encoder, first = products(SIZE**2, WIDTH, WIDTH, 2 * LATENT)
    own, _ = products(LATENT, WIDTH, WIDTH, SIZE**2)
    # forward, gradients of weights, and those of inputs but for the images
    assert tally_of(model).multiply_adds == 3 * (encoder + own) - first
    assert tally_of(model, steps=7, batch=64).multiply_adds == 7 * 64 * (
        3 * (encoder + own) - first
    )


def test_multiply_adds_of_a_gan_leave_out_who_is_frozen():
    game = GAN(decoder(), Discriminator(trunk()), NonSaturating(), LATENT, 1, 0.0, 0.0, SGD, SGD)
    critic, first = products(SIZE**2, WIDTH, WIDTH, 1)
    own, latents = products(LATENT, WIDTH, WIDTH, SIZE**2)
    discriminator = 2 * (3 * critic - first)  # real and fake, neither of which gets a gradient
    generator = own + 2 * critic + 2 * own - latents  # the critic's weights get none
    assert tally_of(game).multiply_adds == discriminator + generator


@pytest.mark.parametrize("model", ROWS)
def test_a_step_on_a_whole_batch_takes_what_the_trial_says(tmp_path, cache, monkeypatch, model):
    """Also in convolutions, with penalties, which are differentiated twice."""
    flops, take = [], Stepper.take

    def counted(self, images, step):
        with Flops() as counter:
            take(self, images, step)
        flops.append(counter.total)

    monkeypatch.setattr(Stepper, "take", counted)
    settings = ["network=conv", "network.width=4", f"budget.images={2 * BATCH}"]
    made = engine(tmp_path, cache, f"model={model}", *settings)
    made.fit(resume=False)
    assert len(flops) == 2 and made.training.tally.multiply_adds == sum(flops) // 2


def test_what_an_image_takes_in_a_network_is_that_of_its_layers():
    likelihood = Gaussian()
    model = VAE(decoder(), GaussianEncoder(trunk(), LATENT), likelihood, LATENT, 1.0, SGD)
    own, _ = products(LATENT, WIDTH, WIDTH, SIZE**2)
    encoder, _ = products(SIZE**2, WIDTH, WIDTH, 2 * LATENT)
    assert forward_multiply_adds(measure(model, DATA)) == {"decoder": own, "encoder": encoder}
    game = GAN(decoder(), Discriminator(trunk()), NonSaturating(), LATENT, 1, 1.0, 0.0, SGD, SGD)
    critic, _ = products(SIZE**2, WIDTH, WIDTH, 1)
    work = forward_multiply_adds(measure(game, DATA))
    assert work == {"decoder": own, "discriminator": critic}  # without the penalty's backward
    assert forward_multiply_adds({}) == {}


class Perceptive(Forgery):
    """It looks at features alone, which never enter the connoisseur by its own call."""

    def step(self, images):
        fake = self.sample(self.noise(3 * len(images), LATENT))
        yield Move("forger", lambda: self.connoisseur.features(fake)[-1].mean())


def test_a_network_that_is_entered_through_its_modules_is_counted_by_what_was_called():
    model = Perceptive(decoder(), Discriminator(trunk()), LATENT, SGD)
    without_head, _ = products(SIZE**2, WIDTH, WIDTH)
    assert forward_multiply_adds(measure(model, DATA))["connoisseur"] == without_head


@pytest.mark.parametrize(("norm", "gamma"), [("none", 1.0), ("spectral", 0.0)])
def test_residual_networks_are_counted_as_they_train(norm, gamma):
    """With attention, differentiated twice, and with power iterations, which are no such products."""
    own = ResnetDecoder(32, 1, LATENT, 2, "batch", attention=8)
    critic = Discriminator(ResnetTrunk(32, 1, 2, norm, attention=8))
    game = GAN(own, critic, NonSaturating(), LATENT, 1, gamma, 0.0, SGD, SGD)
    work = measure(game, SimpleNamespace(name="pictures", channels=1, image_size=32))
    with Flops() as flops:
        for move in game.train().step(torch.zeros(2, 1, 32, 32)):
            owned = {id(p) for p in game.players()[move.player].parameters()}
            for p in game.parameters():
                p.requires_grad_(id(p) in owned)
            move.loss().backward()
    assert sum(part.multiply_adds for part in work.values()) == flops.total // 2 > 0
    each = forward_multiply_adds(work)
    for network, rows in ((own, torch.zeros(1, LATENT)), (critic, torch.zeros(1, 1, 32, 32))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(rows)
        name = "decoder" if network is own else "discriminator"
        assert each[name] == counter.get_total_flops() // 2


def test_strangers_are_counted_by_the_names_of_their_networks():
    critic = Discriminator(trunk())
    forgery = tally_of(Forgery(decoder(), critic, LATENT, SGD), batch=10)
    assert forgery.rows == {"decoder": 20, "connoisseur": 50}
    trio = Trio(decoder(), GaussianEncoder(trunk(), LATENT), critic, LATENT, SGD)
    # fake; what the reader makes of the images; the same for the painter
    assert tally_of(trio, batch=10).rows == {"decoder": 30, "encoder": 20, "judge": 30}


class Nested(GenerativeModel):
    """Its decoder is part of another network and shares a layer with a third."""

    counted, latent_dim = "all", LATENT

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(LATENT, SIZE**2)
        self.whole = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, LATENT), self.inner)
        self.other = nn.ModuleDict({"shared": self.whole[1], "own": nn.Linear(LATENT, 1)})

    @property
    def decoder(self):
        return self.inner

    def players(self):
        return {"all": Player([self.whole, self.other], SGD)}

    def step(self, images):
        yield Move("all", lambda: self.whole(images).square().mean() + self.judged(images))
        yield Move("all", lambda: self.sample(self.noise(3 * len(images), LATENT)).mean())

    def judged(self, images):
        return self.other["own"](self.other["shared"](images.flatten(1))).mean()

    def sample(self, z):
        return self.decoder(z).view(-1, 1, SIZE, SIZE)


def test_a_decoder_within_another_network_is_counted():
    rows = tally_of(Nested(), batch=2).rows
    assert rows["decoder"] == 2 + 6
    assert rows["other"] == 2


def test_measuring_leaves_no_trace():
    model = GAN(
        decoder(), Discriminator(trunk()), NonSaturating(), LATENT, 1, 1.0, 0.0, SGD, SGD
    ).train()
    model.decoder.layers.append(nn.BatchNorm2d(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measure(model, DATA)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.training and torch.equal(state, torch.get_rng_state())


def test_an_untrained_model_has_nothing_to_count():
    assert measure(Noise(), DATA) == {}
    card = Tally([], {}, 64).card()
    assert card == {"real_images": 0, "decoder_rows": 0, "rows": {}, "multiply_adds": 0}


class Lazy(Forgery):
    """Its forger does not move in every step."""

    discriminator_steps = 1
    waits = False

    def step(self, images):
        fake = self.sample(self.noise(len(images), self.latent_dim))
        yield Move("art critic", lambda: self.gap(images, fake.detach()))
        if not self.waits:
            yield Move("forger", lambda: F.softplus(-self.connoisseur(fake)).mean())


def test_steps_with_other_moves_than_the_trial_are_counted_by_their_moves():
    model = Lazy(decoder(), Discriminator(trunk()), LATENT, SGD)
    tally = Tally(model.players(), measure(model, DATA), 10)
    tally.add({"art critic": 1, "forger": 1}, 10)
    tally.add({"art critic": 1}, 10)
    assert tally.rows == {"decoder": 20, "connoisseur": 50}
    model.waits = True
    tally = Tally(model.players(), measure(model, DATA), 10)
    tally.add({"art critic": 1}, 10)
    assert tally.rows == {"decoder": 10, "connoisseur": 20}
    tally.add({"art critic": 1, "forger": 1}, 10)
    assert tally.rows is None and tally.multiply_adds is None
    assert tally.card()["decoder_rows"] is None and tally.card()["real_images"] == 20


def test_a_tally_goes_on_after_a_checkpoint_as_it_was_counted_there():
    model = Forgery(decoder(), Discriminator(trunk()), LATENT, SGD)
    work = measure(model, DATA)
    first = Tally(model.players(), work, 10)
    first.add({"art critic": 2, "forger": 1}, 20)
    then = Tally(model.players(), work, 10)
    then.load_state_dict(first.state_dict())
    assert then.card() == first.card()
    then.add({"art critic": 2, "forger": 1}, 20)
    assert then.rows == {"decoder": 40, "connoisseur": 100} and then.real_images == 40
    assert then.multiply_adds == 2 * first.multiply_adds
    old = Tally(model.players(), work, 10)  # a checkpoint of before holds no rows
    old.load_state_dict({"moves": {"art critic": 4, "forger": 2}, "real_images": 40})
    assert old.card() == then.card()
    unknown = Tally(model.players(), {}, 10)
    unknown.load_state_dict(first.state_dict())
    assert unknown.card() == first.card()
    unknown.add({"forger": 1}, 20)
    assert unknown.rows is None


EPOCHS = ["budget.epochs=0.5", "budget.images=null", "trainer.samples=0"]


def test_an_epoch_of_any_model_shows_each_real_image_once(tmp_path, cache):
    stop = (
        f"+callbacks.stop={{_target_: fixtures.callbacks.StopOnce, marker: {tmp_path}/m, batch: 1}}"
    )
    settings = ["model=wgan-gp", *EPOCHS, "trainer.steps_per_batch=1", stop]
    run = make(tmp_path, cache, *settings, run_id="x")
    assert go(run) == 75 and go(run, "--resume") == 0
    budget = read_result(run).budget
    assert budget["real_images"] == 640  # half of 1257 in two steps of five batches of 64
    assert budget["epochs"] == pytest.approx(640 / 1257)
    assert (budget["images"], budget["decoder_rows"]) == (128, 640)
    assert budget["rows"] == {"decoder": 640, "discriminator": 2048}
    assert budget["multiply_adds"] > 0


def test_operations_are_counted_as_pytorch_counts_them():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 4), nn.Flatten(), nn.LazyLinear(3)
    )
    images = torch.zeros(2, 1, SIZE, SIZE)
    network(images)
    totals = []
    for counter in (Flops(), FlopCounterMode(display=False)):
        with counter:
            with torch.no_grad():
                network(images)
            network(images).sum().backward()
        totals.append(counter.total if isinstance(counter, Flops) else counter.get_total_flops())
    assert totals[0] == totals[1] > 0


def test_fused_attention_is_counted_on_a_cpu_as_its_products_are():
    """The trial step is made there, whatever the run trains on; the way back computes the weights again."""
    one = torch.randn(
        3, 2, 4, 5, 6, requires_grad=True
    )  # query, key, value of 2 images, 4 heads, 5 tokens
    with Flops() as flops:
        nn.functional.scaled_dot_product_attention(*one).sum().backward()
    product = 2 * (2 * 4) * 5 * 5 * 6  # flops of one, such as q k^T
    assert flops.total == (2 + 5) * product

"""Every YAML file in configs/ composes, and what it names can be built."""

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from fixtures.composition import composed
from fixtures.places import CONFIGS, slow_but
from fixtures.rows import QUICK
from genbench.launch.task import resolve


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def configure(*overrides: str) -> DictConfig:
    return composed(*overrides)


@pytest.mark.parametrize("dataset", slow_but(options("dataset"), "digits", "image-folder"))
def test_every_dataset_resolves_with_every_group_default(dataset):
    cfg = configure(f"dataset={dataset}", *(["dataset.root=x"] if "folder" in dataset else []))
    OmegaConf.resolve(cfg)
    assert not OmegaConf.missing_keys(cfg)
    assert cfg.choices.dataset == dataset


def pairs():
    """Models, networks and datasets, every two of which meet; the quick part has some of the models."""
    networks, datasets = options("network"), ["digits", "cifar10", "celeba"]
    return [
        pytest.param(
            model,
            networks[(number + turn) % len(networks)],
            datasets[turn % len(datasets)],
            marks=[] if model in QUICK else pytest.mark.slow,
        )
        for number, model in enumerate(options("model"))
        for turn in range(max(len(networks), len(datasets)))
    ]


@pytest.mark.parametrize(("model", "network", "dataset"), pairs())
def test_every_model_is_built_for_every_network_and_takes_a_step(model, network, dataset):
    cfg = configure(f"model={model}", f"network={network}", f"dataset={dataset}")
    if network != "mlp":
        cfg.network.width = 4
    if network == "resnet" and dataset == "digits" and "decoder" in cfg.model:
        with pytest.raises(InstantiationException, match="32 to 256 pixels a side, not 8"):
            instantiate(cfg.model)
        return
    module = instantiate(cfg.model)
    shape = cfg.dataset.channels, cfg.dataset.image_size, cfg.dataset.image_size
    if module.players():
        images = torch.zeros(2 * module.discriminator_steps, *shape)
        moved = set()
        for player, loss in module.step(images):  # no optimizer: does it compute?
            loss().backward()
            moved.add(player)
        assert moved == set(module.players())
        z = module.latents(2, torch.Generator().manual_seed(0))
        assert module.sample(z).shape == (2, *shape)
        optimizers = [p.optimizer(p.parameters()) for p in module.players().values()]
        assert all(optimizer.param_groups[0]["params"] for optimizer in optimizers)


@pytest.mark.parametrize("network", slow_but(options("network"), "mlp", "conv"))
def test_equal_seeds_give_equal_initial_decoders_in_all_models(network):
    decoders = []
    for model in ("vae", "gan", "vae-gan", "wgan-gp"):
        cfg = configure(f"model={model}", f"network={network}", "dataset=cifar10")
        cfg.network.width = 4
        torch.manual_seed(3)
        decoders.append(instantiate(cfg.model).decoder.state_dict())
    for other in decoders[1:]:
        assert decoders[0].keys() == other.keys()
        assert all(torch.equal(decoders[0][key], other[key]) for key in other)


def test_both_models_with_an_encoder_have_the_same_which_no_discriminator_has():
    """It keeps a signal's variance; a discriminator has the initialisation of DCGAN."""
    conv = configure("model=vae-gan", "network=conv").model
    for model in (configure("model=vae", "network=conv").model, conv):
        assert model.encoder.trunk.initialisation == "he"
        assert model.encoder.trunk._target_ == conv.discriminator.trunk._target_
    assert instantiate(conv).discriminator.trunk.initialisation == "dcgan"
    assert (
        configure("network=conv", "network.encoder_norm=group").model.encoder.trunk.norm == "group"
    )


def test_a_network_without_an_encoder_of_its_own_has_its_trunk_for_both():
    model = configure("model=vae-gan", "network=mlp").model
    assert (
        model.encoder.trunk == model.discriminator.trunk == configure("network=mlp").network.trunk
    )


def test_a_vae_gan_learns_the_variance_of_its_features_unless_its_config_does_not_say_so():
    shipped = instantiate(configure("model=vae-gan").model)
    assert shipped.feature_likelihood.scaled_log_sigma in {
        *shipped.players()["autoencoder"].parameters()
    }
    of_before = instantiate(configure("model=vae-gan", "~model.feature_likelihood").model)
    assert of_before.feature_likelihood is None


@pytest.mark.parametrize("likelihood", options("likelihood"))
def test_every_likelihood_is_built_in_a_vae(likelihood):
    levels = "dataset.levels=2" if likelihood == "bernoulli" else "dataset.levels=17"
    module = instantiate(configure("model=vae", f"likelihood={likelihood}", levels).model)
    images = torch.ones(3, 1, 8, 8)
    assert torch.isfinite(module.elbo(images, torch.zeros(3, 16)).distortion).all()


def test_every_option_of_every_other_group_composes():
    """Several groups' at a time: as many compositions as the largest has options."""
    groups = {
        g: options(g) for g in ("trainer", "budget", "evaluation", "extractor", "logger", "prior")
    }
    assert all(groups.values())
    for turn in range(max(map(len, groups.values()))):
        chosen = {group: names[turn % len(names)] for group, names in groups.items()}
        cfg = configure(*(f"{group}={name}" for group, name in chosen.items()))
        OmegaConf.resolve(cfg)
        found = HydraConfig.get().runtime.choices
        assert {group: found[group] for group in chosen} == chosen


@pytest.mark.parametrize("experiment", slow_but(options("experiment"), "objectives", "tuned"))
def test_every_experiment_composes_and_opens_with_its_command(experiment):
    OmegaConf.resolve(configure(f"experiment={experiment}"))
    text = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()
    assert "# genbench train" in text
    assert "?" in text  # the question that it answers


def test_a_root_that_exists_is_recorded_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats").mkdir()
    for root, recorded in (("cats", str(tmp_path / "cats")), ("s3://dogs", "s3://dogs")):
        dataset = resolve(configure("dataset=image-folder", f"dataset.root={root}"))["dataset"]
        assert (dataset["root"], dataset["name"]) == (recorded, root.split("/")[-1])

"""A conditional run as a whole: from its settings to its checkpoint, and what is refused before."""

import numpy as np
import pytest
import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning import Callback

from fixtures.places import slow_but
from fixtures.trainers import FEW, RARELY, change_pace, config, engine, trained
from genbench import sample
from genbench.errors import UserMistake
from genbench.launch.settings import composing
from genbench.library.run import Run
from genbench.models.condition import Condition
from genbench.models.drawing import draw_grid, draw_samples
from genbench.runs.config import write_config
from genbench.runs.method import fingerprint, method
from genbench.training import loading
from genbench.training.conditioning import make_model
from genbench.training.cuda_graph import Capture
from genbench.training.model_checks import verdicts

TOLD = ("model=vae-gan", "arena.condition=class", "arena.label_dropout=0.2")


def made(tmp_path, cache, *overrides):
    return engine(tmp_path, cache, *TOLD, *overrides)


def test_a_run_without_a_condition_is_the_method_that_it_always_was(tmp_path, cache):
    """Neither key nor network is other than before there were conditions."""
    cfg = OmegaConf.to_container(config(tmp_path, cache, 1, ["model=gan"]))
    old = {**cfg, "arena": {k: v for k, v in cfg["arena"].items() if "label" not in k}}
    del old["arena"]["condition"]
    assert fingerprint(cfg) == fingerprint(old)
    told = {**cfg, "arena": {**cfg["arena"], "condition": "class"}}
    assert fingerprint(told) != fingerprint(cfg)
    assert method(told)["labels"] == {
        "condition": "class", "label_dropout": 0.0, "label_dim": 32,
    }  # fmt: skip
    model, data = loading.build(OmegaConf.create(old))
    assert model.condition is None and data._labels is None
    assert not [name for name in model.state_dict() if "label" in name]


@pytest.mark.slow
def test_steps_in_one_batch_replayed_or_in_parts_are_the_same_with_labels(tmp_path, cache):
    plain = trained(made(tmp_path / "a", cache, *RARELY))
    several = trained(made(tmp_path / "b", cache, *RARELY, "trainer.steps_per_batch=7"))
    again = made(tmp_path / "c", cache, *RARELY)
    change_pace(again, capture=Capture(record=lambda work, generator: work))
    replayed = trained(again)
    for other in (several, replayed):
        assert all(torch.equal(value, other[0][name]) for name, value in plain[0].items())
        assert plain[1] == other[1]
    assert len(plain[0]) and any("label.table" in name for name in plain[0])


def test_a_checkpoint_is_read_again_with_its_labels_and_samples_alike(tmp_path, cache):
    own = made(tmp_path, cache)
    model = own.training.model
    trained(own)
    cfg = config(tmp_path, cache, 1, ["network.width=16", *TOLD])
    other, data = loading.build(cfg)
    loading.load_weights(other, tmp_path / "run" / "checkpoints" / "final.ckpt")
    assert torch.equal(draw_samples(model, 20), draw_samples(other, 20))
    grid = draw_grid(other, 64)
    assert len(grid) == 10 * 8  # a row for each digit, with equal latents in a column
    labels = torch.full((8,), 3)
    z = other.latents(8, torch.Generator().manual_seed(2_718))
    with torch.no_grad():
        torch.testing.assert_close(grid[24:32], other.sample(z, labels))
    assert len(data.labels("train")) == len(other.condition.training)


def test_a_run_is_asked_for_a_class_by_its_name_at_the_terminal_and_in_python(
    tmp_path, cache, capsys
):
    own = made(tmp_path, cache)
    trained(own)
    run = tmp_path / "run"
    cfg = config(tmp_path, cache, 1, ["network.width=16", *TOLD])
    write_config(run, OmegaConf.to_container(cfg))
    assert sample.main([str(run), "--label", "3", "--num", "4", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip().endswith("samples-seed2718-3.png")
    assert sample.main([str(run), "--device", "cpu", "--out", str(tmp_path / "g.png")]) == 0
    with (
        Image.open(tmp_path / "g.png") as grid,
        Image.open(run / "samples" / "samples-seed2718-3.png") as four,
    ):
        assert grid.height > 9 * four.height  # a row for each of ten digits
    for words, mistake in (
        (["--label", "cat"], "no class 'cat': choose one of 0, 1, 2"),
        (["--attributes", "a=1"], "knows classes, not attributes"),
        (["--label", "3", "--interpolate"], "are of samples: leave --interpolate"),
    ):
        with pytest.raises(UserMistake, match=mistake):
            sample.main([str(run), "--device", "cpu", *words])
    mine = Run(run, device="cpu")
    threes = mine.sample(4, label="3")
    assert threes.shape == (4, 8, 8, 1)
    assert np.array_equal(threes, mine.sample(4, label=3))
    assert not np.array_equal(threes, mine.sample(4, label="none"))  # it was trained so, too
    with pytest.raises(UserMistake, match="pictures of your own have none"):
        mine.encode(threes)


@pytest.mark.slow
def test_two_halves_of_a_conditional_run_are_the_whole(tmp_path, cache):
    """Through the loader, whose labels go on where they stopped."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if module.steps >= FEW // 2:
                trainer.save_checkpoint(tmp_path / "b" / "last.ckpt")
                trainer.should_stop = True

    whole = made(tmp_path / "a", cache, "trainer.steps_per_batch=1")
    expected = trained(whole)[0]
    half = made(tmp_path / "b", cache, "trainer.steps_per_batch=1")
    half.trainer.callbacks.append(Stop())
    half.trainer.fit(half.training)
    rest = made(tmp_path / "c", cache, "trainer.steps_per_batch=1")
    rest.trainer.fit(rest.training, ckpt_path=tmp_path / "b" / "last.ckpt")
    found = rest.training.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("model", ["ae-kl", "ladder-vae", "noise"])
def test_models_that_take_no_labels_are_refused_before_training(tmp_path, cache, model):
    with pytest.raises(UserMistake, match=r"takes no labels: choose arena.condition=none"):
        loading.build(config(tmp_path, cache, 1, [f"model={model}", "arena.condition=class"]))


@pytest.mark.parametrize("name", slow_but(["vae", "gan", "fsq", "vae-gan"], "vae"))
def test_the_checks_of_every_model_hold_for_its_conditional_form(tmp_path, cache, name):
    settings = [f"model={name}", "network.width=16", "arena.condition=class"]
    cfg = config(tmp_path, cache, 1, settings)
    data = instantiate(cfg.dataset)

    def make(seed):
        with loading.seeded(seed):
            return make_model(cfg, data)

    assert [v for v in verdicts(make, data) if v.fault] == []


def test_every_dataset_names_no_condition_of_its_own():
    for dataset in ("digits", "mnist", "celeba", "image-folder", "shapes"):
        with composing():
            cfg = compose("train", [f"dataset={dataset}", "model=vae"])
        assert cfg.arena.condition == "none" and cfg.arena.label_dropout == 0


def test_a_condition_is_not_a_parameter_of_the_model():
    condition = Condition("class", ("a",), torch.zeros(3, dtype=torch.int64))
    assert condition.card(4) == {"labels": {"condition": "class", "drawn_from": "train", "seed": 4}}

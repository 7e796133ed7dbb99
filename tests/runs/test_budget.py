"""The clock of a run, and what an epoch is."""

import pytest

from genbench.errors import UserMistake
from genbench.runs.budget import Budget, parse_images
from genbench.runs.method import fingerprint

CONFIG = {
    "model": {"_target_": "genbench.models.gan.GAN", "discriminator_steps": 5},
    "dataset": {"name": "digits"},
    "budget": {"images": None, "epochs": 3, "batch_size": 64, "epochs_of": "real_images"},
    "trainer": {"precision": "32-true"},
}


def changed(section, **settings):
    return CONFIG | {section: CONFIG[section] | settings}


@pytest.mark.parametrize(("batches", "steps"), [(1, 60), (5, 12)])
def test_an_epoch_shows_real_images_once(batches, steps):
    budget = Budget(None, 64, epochs=3, epochs_of="real_images")
    assert budget.steps(1280, batches) == steps
    assert steps * 64 * batches == 3 * 1280
    assert Budget(None, 64, epochs=3).steps(1280, batches) == 60  # as configs of before mean it
    assert Budget("128k", 64, epochs_of="real_images").steps(1280, batches) == 2000


def test_what_an_epoch_is_belongs_to_the_method_only_where_it_matters():
    def same(one):
        before = one | {"budget": {k: v for k, v in one["budget"].items() if k != "epochs_of"}}
        return fingerprint(one) == fingerprint(before)

    assert not same(CONFIG)
    assert same(changed("budget", epochs_of="clock"))
    assert same(changed("budget", epochs=None, images="128k"))
    assert same(changed("model", discriminator_steps=1))
    assert same(CONFIG | {"model": {"_target_": "genbench.models.vae.VAE"}})
    assert not same(CONFIG | {"model": {"_target_": "mine.Game"}})  # which may take several


def test_epochs_of_something_else_are_refused():
    with pytest.raises(UserMistake, match="epochs_of='steps' is nothing to count: choose real_im"):
        Budget(None, 64, epochs=3, epochs_of="steps")
    with pytest.raises(UserMistake, match="is not a number of images"):
        parse_images("1e6")

"""Everything that genbench uses of Hydra beyond its documented API: a change of Hydra fails here."""

from unittest import mock

import pytest
from hydra import compose
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from fixtures import composition
from genbench.launch import hydra_internals
from genbench.launch.hydra_internals import complaint_of, group_options, options_of_groups
from genbench.launch.settings import composing

CHANGED = "Hydra's message has changed: mend MESSAGES in genbench/launch/hydra_internals.py: "


@pytest.mark.parametrize(
    ("overrides", "kind", "subject"),
    [
        (["modle=gan"], "unknown key", "modle"),
        (["model.betta=2"], "unknown key", "model.betta"),
        (["~nothing"], "unknown key", "nothing"),
        (["seed=1,2"], "several values", "seed=1,2"),
        (["model=vae,gan"], "several values", "model=vae,gan"),
    ],
)
def test_hydras_complaints_are_recognised(overrides, kind, subject):
    with composing(), pytest.raises(Exception) as raised:  # noqa: PT011
        compose("train", overrides)
    found = complaint_of(raised.value)
    assert found.kind == kind, CHANGED + str(raised.value)
    assert subject.startswith(found.subject) and found.subject, CHANGED + str(raised.value)


def test_a_group_without_a_name_is_recognised():
    with composing(), pytest.raises(Exception) as raised:  # noqa: PT011
        compose("train", ["model=1"])
    assert complaint_of(raised.value).kind == "group without name", CHANGED + str(raised.value)


def test_other_errors_are_not_taken_for_one():
    assert complaint_of(ValueError("something else")).kind == "other"


def test_every_kind_of_complaint_is_tested_here():
    tried = {"unknown key", "several values", "group without name"}
    assert set(hydra_internals.MESSAGES) == tried


def test_hydra_lists_the_options_of_a_group_and_the_groups():
    with composing():
        assert {"vae", "gan", "vae-gan"} <= set(group_options("model"))
        assert {"model", "dataset"} <= set(group_options("", ObjectType.GROUP))


def test_the_options_of_all_groups_are_those_of_each(tmp_path):
    mine = tmp_path / "model" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("_target_: x\n")
    path = [f"hydra.searchpath=[file://{tmp_path}]"]
    with composing():
        found = options_of_groups("train", path)
        assert set(found) == set(group_options("", ObjectType.GROUP, "train", path))
        for group, options in found.items():
            assert options == group_options(group, ObjectType.CONFIG, "train", path)
    assert "mine" in found["model"]


@pytest.mark.parametrize("overrides", [[], ["model=vae-gan", "dataset=celeba", "experiment=tuned"]])
def test_what_tests_compose_of_files_in_memory_is_what_hydra_composes(overrides):
    def written() -> str:
        return OmegaConf.to_yaml(compose("train", overrides, return_hydra_config=True))

    with composing():
        here = written(), written()
        with mock.patch.object(ConfigRepository, "load_config", composition.read):
            assert here == (written(), written())
    roots = {source for source, _ in composition._files}
    assert roots == {*composition.SHIPPED}  # both were read from memory

"""Fixes that change numbers change the method of the runs they concern, and of no others."""

import copy
from pathlib import Path

import pytest

from fixtures.training import make
from genbench.runs.config import read_config, write_config
from genbench.runs.method import fingerprint, method
from genbench.runs.result import read_result
from genbench.runs.versions import FIXES, after_resume, versions, with_versions

OLD_RUNS = sorted(
    path.parent for path in Path(__file__).parents[1].glob("fixtures/old_runs/*/config.yaml")
)


def config_of(tmp_path, *settings):
    return read_config(make(tmp_path, tmp_path / "cache", *settings))


def of_before(config):
    """As it was written before anything had a version or a bias for each position."""
    old = copy.deepcopy({key: value for key, value in config.items() if key != "versions"})
    old["network"].pop("position_bias", None)
    for decoder in (old["network"]["decoder"], old["model"]["decoder"]):
        decoder.pop("position_bias", None)
    return old


@pytest.mark.parametrize("run", OLD_RUNS, ids=lambda run: run.name)
def test_old_runs_are_of_the_method_that_they_were(run):
    config = read_config(run)
    assert "versions" not in method(config)
    if (run / "result.json").exists():
        result = read_result(run)  # whose config has the precision that `auto` became
        assert fingerprint(result.config) == result.fingerprint


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        (["model=vae"], False),
        (["model=gan"], False),
        (["model=wgan-gp"], False),
        (["model=vae", "network=conv"], True),
        (["model=gan", "network=conv", "network.decoder_norm=group"], True),
        (["model=vae", "dataset=mnist-static"], False),
        (["model=vae", "dataset=mnist-dynamic"], True),
        (["model=fsq"], False),
        (["model=vq", "network=infogan", "network.decoder_norm=none"], False),
        (["model=vq", "network=infogan"], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_new_runs_are_of_another_method_where_their_numbers_are(tmp_path, settings, differs):
    config = config_of(tmp_path, *settings)
    assert (fingerprint(config) != fingerprint(of_before(config))) == differs


def test_a_config_names_the_fixes_that_concern_it_and_no_others(tmp_path):
    assert "versions" not in config_of(tmp_path, "dataset=digits")
    config = config_of(tmp_path, "dataset=mnist-dynamic")
    assert config["versions"] == {"dynamic-binarisation": 2} == versions(config)
    assert method(config)["versions"] == config["versions"]
    assert all(fix.version > 1 for fix in FIXES.values())


def test_versions_are_written_where_there_are_any():
    assert with_versions({"a": 1}, {}) == {"a": 1}
    assert with_versions({"a": 1, "versions": {"x": 2}}, {}) == {"a": 1}
    assert with_versions({"a": 1}, {"x": 2}) == {"a": 1, "versions": {"x": 2}}


def test_a_run_resumed_under_another_version_is_of_both():
    assert after_resume({}, {}) == {}
    assert after_resume({"x": 2}, {"x": 2}) == {"x": 2}
    assert after_resume({}, {"x": 2}) == {"x": "1, then 2"}
    assert after_resume({"x": "1, then 2"}, {"x": 2}) == {"x": "1, then 2"}
    assert after_resume({"x": 2}, {"x": 3, "y": 2}) == {"x": "2, then 3", "y": "1, then 2"}
    assert after_resume({"x": 3}, {"x": 2}) == {"x": "3, then 2"}  # by an older genbench


FEW = ["model=vae", "budget.images=640", "trainer.steps_per_batch=1", "trainer.precision=32-true"]
STOP = "+callbacks.stop={{_target_: fixtures.callbacks.StopOnce, marker: {}/m, batch: 4}}"


def stopped(tmp_path, cache, *settings):
    """A run of a few steps, stopped half way by a genbench of before any fix."""
    from genbench import train  # torch, which this room does without

    run = make(tmp_path, cache, *FEW, *settings, STOP.format(tmp_path))
    write_config(run, of_before(read_config(run)))
    assert train.main([str(run)]) == 75
    return run


@pytest.mark.slow
def test_a_run_begun_before_a_fix_is_resumed_as_a_method_of_its_own(tmp_path, cache, monkeypatch):
    from genbench import train

    run = stopped(tmp_path, cache)
    old = fingerprint(read_config(run))
    monkeypatch.setitem(FIXES, "something", FIXES["dynamic-binarisation"]._replace(
        version=3, concerns=lambda config: True
    ))  # fmt: skip
    assert train.main([str(run), "--resume"]) == 0
    result = read_result(run)
    assert result.config["versions"] == {"something": "1, then 3"}
    new = make(tmp_path, cache, *FEW)
    assert len({old, result.fingerprint, fingerprint(read_config(new))}) == 3


@pytest.mark.slow
def test_a_finished_run_that_is_scored_after_a_fix_stays_the_run_it_was(
    tmp_path, cache, monkeypatch
):
    from genbench import train

    run = stopped(tmp_path, cache)
    assert train.main([str(run), "--resume"]) == 0
    before = read_result(run).fingerprint
    (run / "result.json").unlink()  # it was killed before it was scored
    monkeypatch.setitem(FIXES, "something", FIXES["dynamic-binarisation"]._replace(
        version=3, concerns=lambda config: True
    ))  # fmt: skip
    assert train.main([str(run), "--resume"]) == 0
    assert read_result(run).fingerprint == before == fingerprint(read_config(run))


@pytest.mark.slow
def test_an_old_convolutional_run_keeps_its_network_and_its_method(tmp_path, cache):
    from genbench import train
    from genbench.training.loading import load_run

    settings = ["network=conv", "network.width=4", "network.decoder_norm=group"]
    run = stopped(tmp_path, cache, *settings)
    assert train.main([str(run), "--resume"]) == 0
    result = read_result(run)
    assert result.fingerprint == fingerprint(read_config(run))
    model, _, _ = load_run(run)
    assert model.decoder.layers[0].bias is None
    new = read_config(make(tmp_path, cache, *FEW, *settings))
    assert new["model"]["decoder"]["position_bias"]

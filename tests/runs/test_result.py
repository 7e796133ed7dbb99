"""Records as they are on disk, whole and damaged."""

import copy
import json

import pytest

from genbench.errors import UserMistake
from genbench.runs.config import write_config
from genbench.runs.directory import new_run_directory
from genbench.runs.files import write_json
from genbench.runs.method import fingerprint
from genbench.runs.records import load_results
from genbench.runs.result import SCHEMA_VERSION, Result, read_result, write_result
from genbench.runs.score import Score, interval_notes
from genbench.runs.status import Status, write_status

CONFIG = {
    "seed": 0,
    "study": "first",
    "tags": ["mine"],
    "choices": {"model": "vae", "dataset": "digits"},
    "model": {"_target_": "genbench.models.vae.VAE", "beta": 1.0},
    "dataset": {"name": "digits", "image_size": 8, "root": "here", "workers": 2},
    "budget": {"images": "128k", "batch_size": 64},
    "trainer": {"precision": "32-true", "devices": 1},
    "evaluation": {"num_samples": 2000},
    "logger": {},
}
SCORE = Score("fd_lenet", 4.5, "", False, {"quantity": "fd"})


def changed(key, value):
    config = copy.deepcopy(CONFIG)
    *path, last = key.split(".")
    node = config
    for part in path:
        node = node[part]
    node[last] = value
    return config


@pytest.fixture
def stopped(tmp_path):
    """A run that failed: config and status, no result."""
    run = new_run_directory(tmp_path, "stopped")
    write_config(run, CONFIG)
    write_status(run, Status("failed", "no memory", heartbeat=12.0, started=2.0, images=640))
    return run


@pytest.fixture
def finished(tmp_path):
    run = new_run_directory(tmp_path, "finished")
    write_config(run, CONFIG)
    write_status(run, Status("finished"))
    result = Result(
        run_id=run.name,
        study="first",
        tags=["mine"],
        status="finished",
        model="vae",
        dataset="digits",
        seed=0,
        fingerprint=fingerprint(CONFIG),
        config=CONFIG,
        budget={"images": 128_000},
        cost={},
        scores=[SCORE],
    )
    write_result(run, result)
    return run


@pytest.mark.parametrize(
    ["key", "value"],
    [
        ("seed", 7), ("study", None), ("tags", []), ("trainer.devices", 4), ("dataset.root", "there"),
        ("dataset.workers", 0), ("evaluation.num_samples", 50_000), ("logger", {"wandb": {}}),
        ("budget.images", 128_000),
    ],
)  # fmt: skip
def test_settings_outside_the_method_do_not_change_the_fingerprint(key, value):
    assert fingerprint(changed(key, value)) == fingerprint(CONFIG)


@pytest.mark.parametrize(
    ["key", "value"],
    [
        ("model.beta", 4.0), ("dataset.image_size", 16), ("budget.images", "1M"),
        ("budget.batch_size", 128), ("trainer.precision", "bf16-mixed"),
    ],
)  # fmt: skip
def test_another_method_budget_or_precision_is_another_fingerprint(key, value):
    assert fingerprint(changed(key, value)) != fingerprint(CONFIG)


def test_a_run_without_a_result_is_read_from_config_and_status(stopped):
    result = read_result(stopped)
    assert (result.status, result.reason, result.scores) == ("failed", "no memory", [])
    assert (result.model, result.dataset, result.study, result.seed) == (
        "vae",
        "digits",
        "first",
        0,
    )
    assert result.budget == {"images": 640, "seconds": 10.0}


@pytest.mark.parametrize("missing", ["budget", "trainer", "dataset", "model"])
def test_a_config_that_lacks_a_section_is_named(stopped, missing):
    write_config(stopped, {k: v for k, v in CONFIG.items() if k != missing})
    with pytest.raises(UserMistake, match=rf"config.yaml is not a run's config .*{missing}"):
        read_result(stopped)


def test_later_evaluations_follow_in_the_order_of_their_time(finished):
    for name, value in (("20260102-b", 2.0), ("20260101-a", 1.0)):
        scores = [SCORE.to_dict() | {"value": value}]
        (finished / "evaluations").mkdir(exist_ok=True)
        write_json(finished / "evaluations" / f"{name}.json", {"scores": scores})
    assert [s.value for s in read_result(finished).scores] == [4.5, 1.0, 2.0]
    assert len(json.loads((finished / "result.json").read_text())["scores"]) == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"scores": [{"value": 1}]}'])
def test_a_damaged_evaluation_is_named_and_not_the_result(finished, content):
    (finished / "evaluations").mkdir()
    (finished / "evaluations" / "one.json").write_text(content)
    with pytest.raises(UserMistake, match=r"one.json is not an evaluation .*score the run again"):
        read_result(finished)


def test_a_result_of_a_later_genbench_is_refused_with_the_remedy(finished):
    content = json.loads((finished / "result.json").read_text())
    write_json(finished / "result.json", content | {"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(UserMistake, match="update genbench"):
        read_result(finished)


def test_a_field_of_a_later_version_is_passed_over(finished):
    content = json.loads((finished / "result.json").read_text())
    write_json(finished / "result.json", content | {"new": 1})
    assert read_result(finished).scores == [SCORE]


@pytest.mark.parametrize("content", ["", "[]", '{"scores": []}', '{"scores": [], "config": {}}'])
def test_a_damaged_result_is_named_and_the_others_are_read(
    tmp_path, finished, stopped, content, capsys
):
    new = new_run_directory(tmp_path, "damaged")
    write_config(new, CONFIG)
    whole = json.loads((finished / "result.json").read_text())
    damaged = {**whole, **json.loads(content)} if '"config"' in content else None
    (new / "result.json").write_text(json.dumps(damaged) if damaged else content)
    found = {result.run_id for result in load_results([], tmp_path)}
    assert found == {"finished", "stopped"}
    assert f"left out: {new / 'result.json'} is not a result" in capsys.readouterr().err


def test_runs_of_every_ending_are_read(tmp_path, finished, stopped):
    found = {result.run_id: result.status for result in load_results([], tmp_path)}
    assert found == {"finished": "finished", "stopped": "failed"}


def test_a_renamed_directory_is_called_by_its_new_name_everywhere(finished):
    run = finished.rename(finished.with_name("my-best"))
    assert read_result(run).run_id == "my-best"
    assert [result.run_id for result in load_results([], run.parent)] == ["my-best"]


@pytest.mark.parametrize(("value", "notes"), [(4.381, 1), (3.0, 0), (None, 0)])
def test_information_at_the_bound_of_its_estimate_is_said(value, notes):
    bound = {"bound": "log 80 = 4.382 nats"}
    card = {"quantity": "mutual_information", "estimator": bound}
    said = interval_notes([SCORE, Score("mutual_information", value, "nats", None, card)])
    assert len(said) == notes
    assert all("at the bound of its estimate, log 80 = 4.382 nats" in note for note in said)

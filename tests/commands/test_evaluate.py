"""`genbench evaluate`: runs are scored again under another protocol."""

from pathlib import Path

import pytest
import yaml

from genbench.commands import evaluate
from genbench.errors import UserMistake
from genbench.runs.config import read_config


@pytest.mark.slow
def test_evaluate_hands_each_run_its_protocol(train, room):
    train("run_id=a", "evaluation.batch_size=32")
    train("run_id=b", "model=gan")
    source = "import shutil, sys; shutil.copy(sys.argv[2], sys.argv[1] + '/protocol.yaml')"
    (room / "stub_worker.py").write_text(source)
    assert evaluate.main(["a", "b", "evaluation.num_samples=50"], worker="stub_worker") == 0
    first, second = (
        yaml.safe_load(Path(f"outputs/{name}/protocol.yaml").read_text()) for name in "ab"
    )
    assert first["evaluation"]["num_samples"] == second["evaluation"]["num_samples"] == 50
    assert first["evaluation"]["batch_size"] == 32 != second["evaluation"]["batch_size"]
    assert set(first) == {"evaluation", "extractor"}
    assert first["evaluation"]["extractor"] == first["extractor"]


def test_a_run_without_an_evaluation_is_scored_by_the_default_one_or_by_the_chosen_one(train):
    train("run_id=a", "evaluation=none")
    run = read_config(Path("outputs/a"))
    assert run["evaluation"] == {}
    default = evaluate.protocol(run, [])
    assert default["evaluation"]["num_samples"] == 2_000
    assert default["evaluation"]["extractor"] == default["extractor"] == run["extractor"]
    fewer = evaluate.protocol(run, ["evaluation.num_samples=50", "extractor=random-conv-v1"])
    assert fewer["evaluation"]["num_samples"] == 50
    assert fewer["evaluation"]["extractor"]["_target_"].endswith("RandomConv")
    full = evaluate.protocol(run, ["evaluation=full"])
    assert full["evaluation"]["num_samples"] == 50_000


def test_an_extractor_of_the_run_is_not_mixed_with_the_dataset_s_own(train):
    train("run_id=a", "dataset=cifar10", "extractor=random-conv-v1")
    run = read_config(Path("outputs/a"))
    again = evaluate.protocol(run, ["evaluation.num_samples=50"])
    assert again["extractor"] == again["evaluation"]["extractor"] == run["extractor"]


def test_evaluate_refuses_what_belongs_to_training(train):
    train("run_id=a")
    with pytest.raises(UserMistake, match=r"model\.beta=2 belongs to training"):
        evaluate.main(["a", "model.beta=2"], worker="stub_worker")
    with pytest.raises(UserMistake, match=r"did you mean evaluation\.num_samples"):
        evaluate.main(["a", "evaluation.num_smaples=2"], worker="stub_worker")
    with pytest.raises(UserMistake, match="evaluation=none computes no scores"):
        evaluate.main(["a", "evaluation=none"], worker="stub_worker")
    with pytest.raises(UserMistake, match="evaluate needs a run"):
        evaluate.main(["evaluation.num_samples=2"], worker="stub_worker")


@pytest.mark.parametrize("given", [["--device", "cpu"], ["--device=cpu"]])
def test_the_device_is_passed_on(given):
    assert evaluate._device([*given, "latest", "a=b"]) == (["--device", "cpu"], ["latest", "a=b"])


def test_devices_that_are_none_are_refused():
    for given in (["--device"], ["--device=tpu"]):
        with pytest.raises(UserMistake, match="choose cpu or cuda"):
            evaluate._device(given)

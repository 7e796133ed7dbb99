"""Scoring a run that exists: what the worker of `genbench evaluate` does."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from fixtures.evaluation import configure, values
from genbench import evaluate, sample
from genbench.errors import UserMistake
from genbench.models import plain_layers
from genbench.runs import trust
from genbench.runs.per_image import read_per_image
from genbench.runs.score import Score
from genbench.runs.walk import KeptDecoder, read_decoder
from genbench.training import loading


@pytest.fixture
def finished_run(tmp_path):
    cfg = configure(tmp_path / "cache", "model=vae", "trainer=cpu", "evaluation.num_samples=50")
    directory = tmp_path / "some-run"
    (directory / "checkpoints").mkdir(parents=True)
    OmegaConf.resolve(cfg)
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    model, _ = loading.build(cfg)
    state = {"state_dict": model.state_dict(), "genbench_steps": 0}
    torch.save(state, directory / "checkpoints" / "final.ckpt")
    trust.remember(directory)  # it names a class of the tests
    protocol = tmp_path / "protocol.yaml"
    protocol.write_text(
        OmegaConf.to_yaml({"evaluation": cfg.evaluation, "extractor": cfg.extractor})
    )
    return directory, protocol


def test_a_run_that_exists_is_scored_again_into_a_file_of_its_own(finished_run, capsys):
    directory, protocol = finished_run
    assert evaluate.main([str(directory), str(protocol)]) == 0
    (written,) = (directory / "evaluations").glob("*.json")
    assert isinstance(read_decoder(directory), KeptDecoder)
    content = json.loads(written.read_text())
    assert set(content) == {"created", "evaluation", "scores", "seconds"}
    assert content["evaluation"]["num_samples"] == 50
    scores = [Score.from_dict(score) for score in content["scores"]]
    assert "elbo_discretized-logistic-17" in values(scores)
    printed = capsys.readouterr().out
    assert "fd_small" in printed
    assert str(written) in printed


def test_a_run_s_decoder_is_written_for_a_report_without_scoring_it(
    finished_run, capsys, monkeypatch
):
    directory, _ = finished_run
    assert sample.main([str(directory), "--walk"]) == 0
    assert capsys.readouterr().out.strip() == str(directory / "walk")
    assert isinstance(read_decoder(directory), KeptDecoder)
    monkeypatch.setattr(plain_layers, "MOST_WEIGHTS", 1)
    with pytest.raises(UserMistake, match="some-run cannot be walked through in a report: its dec"):
        sample.main([str(directory), "--walk"])
    assert "a page takes 1 and" in read_decoder(directory)


def test_scoring_on_more_gpus_than_there_are_is_refused_before_helpers_start(
    finished_run, monkeypatch
):
    monkeypatch.setattr(evaluate, "device_of_run", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserMistake, match="evaluation.devices is above the 0 GPUs"):
        evaluate.main([*map(str, finished_run)])


def test_a_run_without_a_checkpoint_is_a_mistake_with_a_sentence(finished_run):
    directory, protocol = finished_run
    (directory / "checkpoints" / "final.ckpt").unlink()
    with pytest.raises(UserMistake, match="no checkpoint 'final'"):
        evaluate.main([str(directory), str(protocol)])


def test_a_run_that_was_trained_on_a_gpu_is_scored_without_one(finished_run, capsys):
    directory, protocol = finished_run
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("accelerator: cpu", "accelerator: gpu"))
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert evaluate.main([str(directory), str(protocol)]) == 0
    assert (
        "the run was trained on a GPU, and this is computed on the CPU" in capsys.readouterr().err
    )
    with pytest.raises(UserMistake, match="--device=cuda, but PyTorch sees no GPU"):
        evaluate.main([str(directory), str(protocol), "--device", "cuda"])


def test_what_scores_are_means_of_is_kept_beside_them(finished_run):
    directory, protocol = finished_run
    assert evaluate.main([str(directory), str(protocol)]) == 0
    (written,) = (directory / "evaluations").glob("*.json")
    scores = [Score.from_dict(one) for one in json.loads(written.read_text())["scores"]]
    by_key = {(one.name, one.checkpoint, one.protocol): one for one in scores}
    kept = read_per_image(directory)
    assert {one.name for one in kept} >= {"elbo_discretized-logistic-17", "psnr", "ssim"}
    for one in kept:
        score = by_key[one.key]
        assert len({*one.images.tolist()}) == len(one.values) > 1
        if one.what == "value":
            assert float(one.values.mean(dtype="float64")) == pytest.approx(score.value, rel=1e-5)
            error = one.values.std(ddof=1, dtype="float64") / len(one.values) ** 0.5
            assert score.high == pytest.approx(score.value + 1.96 * error, rel=1e-4)

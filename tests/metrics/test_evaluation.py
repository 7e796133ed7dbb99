import json
import random
import re

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from fixtures.evaluation import (
    CPU,
    Small,
    Squares,
    Unseen,
    cached_files,
    configure,
    make_decoder,
    make_evaluation,
    make_vae,
    protocols,
    run,
    values,
)
from fixtures.places import CONFIGS
from genbench.errors import UserMistake
from genbench.losses.likelihood import DiscretizedLogistic, Gaussian
from genbench.metrics.contract import MissingWeights
from genbench.metrics.evaluation import Evaluation
from genbench.metrics.frechet import FrechetDistance
from genbench.models.noise import Noise
from genbench.runs.score import Score

PROTOCOLS = sorted({path.stem for path in (CONFIGS / "evaluation").glob("*.yaml")} - {"none"})


def test_a_metric_that_is_null_is_left_out_and_changes_no_other(tmp_path):
    whole = run(tmp_path, make_vae(DiscretizedLogistic(17)))
    metrics = {"fd": FrechetDistance(), "kid": None}
    part = run(
        tmp_path, make_vae(DiscretizedLogistic(17)), metrics=metrics, likelihoods={"bounds": None}
    )
    assert [score.name for score in part] == [
        f"fd{x}_small" for x in ("", "_bc", "_heldout", "_floor", "_real")
    ]
    assert values(part).items() <= values(whole).items()
    assert protocols(part).items() <= protocols(whole).items()


def test_every_score_has_a_value_a_card_and_a_name_with_its_extractor(tmp_path):
    scores = run(tmp_path)
    names = (
        "fd fd_bc fd_heldout fd_floor fd_real kid is is_heldout precision recall density coverage"
    )
    names += " class_tv class_tv_floor copy_rate"
    expected = [f"{name}_small" for name in names.split()]
    assert [score.name for score in scores] == expected
    for score in scores:
        assert score.status == "ok"
        assert score.value is not None
        assert score.card["extractor"]["sha256"] == "0" * 64
        assert Score.from_dict(json.loads(json.dumps(score.to_dict()))) == score
    card = scores[0].card
    assert card["real"]["split"] == "train"
    assert card["real"]["fingerprint"] == Squares().card("train")["fingerprint"]
    assert card["fake"] == {
        "dataset": "squares",
        "n": 100,
        "seed": 0,
        "latents": "prior",
        "pixels": "mean",
        "weights": "raw",
        "quantisation": {"round": "nearest", "levels": 17},
    }
    assert scores[0].low < scores[0].value < scores[0].high


def test_equal_protocols_are_equal_for_all_models_and_every_change_makes_another(tmp_path):
    first = protocols(run(tmp_path))
    assert protocols(run(tmp_path, make_noise(Squares()))) == first
    assert protocols(run(tmp_path, batch_size=50)) == first
    of_real_images = {"fd_real_small", "is_heldout_small"}
    floors = {"fd_floor_small", "class_tv_floor_small"}
    for change, kept in (
        ({"seed": 1}, of_real_images | floors),
        ({"pixels": "sample"}, of_real_images | floors),
        ({"num_samples": 90}, of_real_images),  # a floor is taken at the number of its score
    ):
        other = protocols(run(tmp_path, **change))
        assert {name for name in first if other[name] == first[name]} == kept
    for other in (
        protocols(run(tmp_path, data=Squares(seed=1))),
        protocols(run(tmp_path, extractor=Small(sha256="1" * 64))),
    ):
        assert {name for name in first if other[name] == first[name]} <= {"is_small"}


def make_noise(data):
    model = Noise()
    model.observe(data)
    return model


def test_the_floor_is_the_same_for_all_models(tmp_path):
    scores = [values(run(tmp_path, model)) for model in (make_decoder(), make_noise(Squares()))]
    assert scores[0]["fd_floor_small"] == scores[1]["fd_floor_small"]
    assert scores[0]["fd_small"] != scores[1]["fd_small"]


def test_no_score_depends_on_the_batch_size(tmp_path):
    first = values(run(tmp_path / "a", batch_size=7))
    for size in (1, 100, 1000):
        assert values(run(tmp_path / str(size), batch_size=size)) == pytest.approx(first, rel=1e-5)


def test_equal_seeds_give_equal_bits_from_the_cache_or_not(tmp_path):
    first = values(run(tmp_path / "a"))
    assert values(run(tmp_path / "a")) == first
    assert values(run(tmp_path / "b")) == first
    assert values(run(tmp_path / "a", seed=1)) != first


def test_evaluation_leaves_modes_gradients_and_random_states_as_they_were(tmp_path):
    model = make_decoder().train()
    model.network[1].eval()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    matmul = torch.get_float32_matmul_precision()
    run(tmp_path, model)
    assert model.training
    assert model.network[2].training
    assert not model.network[1].training
    assert torch.is_grad_enabled()
    assert torch.get_float32_matmul_precision() == matmul
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])


def test_modes_come_back_when_evaluation_fails(tmp_path):
    model = make_decoder().train()
    model.sample = lambda z: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, model)
    assert model.training
    assert torch.is_grad_enabled()


def test_images_that_are_not_finite_have_no_scores_and_are_not_left_out(tmp_path):
    scores = run(tmp_path, make_decoder(broken=True))
    assert protocols(scores) == protocols(run(tmp_path))
    for score in scores:
        if "fake" not in score.card:
            assert score.status == "ok"
            assert score.value is not None
        else:
            assert score.status == "nonfinite"
            assert (score.value, score.low, score.high) == (None, None, None)


def test_the_speed_of_sampling_is_measured(tmp_path):
    evaluation = make_evaluation(tmp_path)
    assert evaluation.sample_images_per_second is None
    evaluation(make_decoder(), Squares(), CPU)
    assert evaluation.sample_images_per_second > 0


# --- the validation split -------------------------------------------------------------------------


def test_a_validation_score_has_another_name_and_protocol_and_other_latents(tmp_path):
    model = make_vae(DiscretizedLogistic(17))
    reported, searched = run(tmp_path, model), run(tmp_path, model, split="validation")
    assert [score.name for score in searched] == [f"{s.name}_validation" for s in reported]
    assert [score.quantity for score in searched] == [score.quantity for score in reported]
    assert {score.protocol for score in reported}.isdisjoint(score.protocol for score in searched)
    for score in searched:
        assert score.split == "validation"
        assert score.card["split"] == "validation"
        assert score.card.get("heldout", {"split": "validation"})["split"] == "validation"
        assert score.card.get("real", {"split": "train"})["split"] == "train"
        assert score.card.get("fake", {}).get("seed") != 0
        assert score.card.get("seed") != 0
    assert {score.split for score in reported} == {"test"}
    assert all("split" not in score.card for score in reported)  # as before there was a choice


def test_a_validation_score_does_not_depend_on_the_test_images(tmp_path):
    found = []
    for number in range(2):
        data = Squares()
        data.splits["test"] = (data.splits["test"] + number) % 17
        model = make_vae(DiscretizedLogistic(17))
        found.append(run(tmp_path / str(number), model, data, split="validation"))
        data.splits["test"] = None  # not even looked at
        again = run(tmp_path / "never", model, data, split="validation")
        assert values(again) == values(found[-1])
    assert values(found[0]) == values(found[1])
    assert protocols(found[0]) == protocols(found[1])


def test_validation_scores_are_of_samples_that_test_scores_do_not_see(tmp_path):
    seen = []

    class Watched(type(make_decoder())):
        def latents(self, n, generator):
            seen.append(super().latents(n, generator))
            return seen[-1]

    torch.manual_seed(0)
    model = Watched()
    for split in ("test", "validation", "validation"):
        run(tmp_path, model, split=split)
    assert torch.equal(seen[1], seen[2])
    assert not torch.isin(seen[1], seen[0]).any()


def test_selection_may_use_the_latents_of_neither_split(tmp_path):
    for split in ("test", "validation"):
        evaluation = make_evaluation(tmp_path, split=split)
        for seed in {0, evaluation.seed}:
            with pytest.raises(UserMistake, match="is evaluation.seed"):
                evaluation.check_seed(seed)


def test_another_split_is_refused(tmp_path):
    with pytest.raises(UserMistake, match="evaluation.split='train'"):
        make_evaluation(tmp_path, split="train")
    with pytest.raises(UserMistake, match="validation split of squares .* at least 6"):
        make_evaluation(tmp_path, split="validation").prepare(Squares(sizes=(60, 3, 60)))


# --- the cache ------------------------------------------------------------------------------------


def count_read(folder, **changes):
    extractor = changes.pop("extractor", None) or Small()
    scores = run(folder, extractor=extractor, **changes)
    return extractor.images - 100, values(scores)  # without the generated ones


def test_real_images_are_read_once_and_then_remembered(tmp_path):
    first, expected = count_read(tmp_path)
    assert first == 180
    assert count_read(tmp_path) == (0, expected)
    assert [path.suffix for path in cached_files(tmp_path)] == [".safetensors"] * 2


def test_a_changed_pixel_or_extractor_misses_the_cache(tmp_path):
    count_read(tmp_path)
    data = Squares()
    data.splits["train"][5, 0, 3, 3] += 1
    assert count_read(tmp_path, data=data)[0] == 120
    assert count_read(tmp_path, extractor=Small(sha256="1" * 64))[0] == 180


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    expected = count_read(tmp_path)[1]
    heldout, real = cached_files(tmp_path)
    content = bytearray(real.read_bytes())
    if damage == "truncated":
        content = content[:-10]
    elif damage == "flipped":
        content[-5] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(heldout.read_bytes())
    real.write_bytes(content)
    assert count_read(tmp_path) == (120, expected)
    assert count_read(tmp_path) == (0, expected)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert count_read(tmp_path / "file")[0] == 180


def test_pixels_that_nobody_had_seen_are_identified_on_the_way_and_not_cached(tmp_path):
    assert (
        protocols(run(tmp_path, data=Unseen()))["fd_small"] == protocols(run(tmp_path))["fd_small"]
    )
    assert count_read(tmp_path, data=Unseen())[0] == 180


# --- likelihood -----------------------------------------------------------------------------------


SHARED = [f"{name}_posthoc_gaussian-posthoc" for name in ("elbo", "rate", "distortion")]
SHARED += ["posthoc_variance"]


def test_a_model_with_a_likelihood_is_scored_under_its_tag(tmp_path):
    scores = run(tmp_path, make_vae(DiscretizedLogistic(17)), metrics={})
    found = values(scores)
    tag = "discretized-logistic-17"
    names = ("elbo", "rate", "distortion", "bits_per_dim", "elbo_subset", "iwae_20")
    assert [*found] == [f"{name}_{tag}" for name in names] + SHARED
    bound = found[f"rate_{tag}"] + found[f"distortion_{tag}"]
    assert found[f"elbo_{tag}"] == pytest.approx(-bound)
    assert found[f"bits_per_dim_{tag}"] == pytest.approx(bound / (64 * np.log(2)))
    assert scores[0].card["heldout"]["split"] == "test"
    assert "extractor" not in scores[0].card


def test_the_bound_is_the_models_own_on_the_test_images(tmp_path):
    model, data = make_vae(DiscretizedLogistic(17)), Squares()
    noise = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bound = model.elbo(data.to_images(torch.from_numpy(data.pixels("test"))), noise)
    for size in (1, 32, 60):
        found = values(run(tmp_path, model, metrics={}, batch_size=size))
        rate, distortion = float(bound.rate.mean()), float(bound.distortion.mean())
        assert found["rate_discretized-logistic-17"] == pytest.approx(rate, rel=1e-5)
        assert found["distortion_discretized-logistic-17"] == pytest.approx(distortion, rel=1e-5)


def test_a_density_has_no_bits_per_dimension(tmp_path):
    found = values(run(tmp_path, make_vae(Gaussian(0.5, learned=False)), metrics={}))
    names = ("elbo", "rate", "distortion", "elbo_subset", "iwae_20")
    assert [*found] == [f"{name}_gaussian-0.5" for name in names] + SHARED


def test_a_model_without_a_likelihood_has_no_such_score(tmp_path):
    assert run(tmp_path, make_decoder(), metrics={}) == []


def test_a_bound_that_is_not_finite_has_no_value(tmp_path):
    model = make_vae(DiscretizedLogistic(17))
    torch.nn.init.constant_(model.encoder.layer.weight, torch.nan)
    scores = run(tmp_path, model, metrics={})
    assert {(score.value, score.status) for score in scores} == {(None, "nonfinite")}


# --- mistakes -------------------------------------------------------------------------------------


def test_an_extractor_that_cannot_read_the_images_is_refused_beforehand(tmp_path):
    data = Squares()
    data.image_size = 9
    data.splits = {split: np.zeros((60, 1, 9, 9), np.uint8) for split in data.splits}
    with pytest.raises(UserMistake, match="small cannot read the images of squares .1 x 9 x 9"):
        make_evaluation(tmp_path).prepare(data)


def test_too_few_images_are_refused_beforehand(tmp_path):
    with pytest.raises(UserMistake, match="num_samples=5 .* at least 6"):
        make_evaluation(tmp_path, num_samples=5).prepare(Squares())
    with pytest.raises(UserMistake, match="test split of squares .* at least 6"):
        make_evaluation(tmp_path).prepare(Squares(sizes=(10, 10, 3)))
    with pytest.raises(UserMistake, match="batch_size=0"):
        make_evaluation(tmp_path, batch_size=0)


def test_what_an_extractor_misses_is_said_beforehand_with_what_fits_the_images(tmp_path):
    class Missing(Small):
        def prepare(self):
            raise MissingWeights("no weights", "fetch them")

    evaluation = make_evaluation(tmp_path, extractor=Missing())
    with pytest.raises(UserMistake) as mistake:
        evaluation.prepare(Squares())
    found = re.findall(
        r"extractor=[\w-]+|evaluation=none|fetch them|no weights", str(mistake.value)
    )
    assert found == [
        "no weights",
        "extractor=lenet-digits-v1",
        "extractor=random-conv-v1",
        "evaluation=none",
        "fetch them",
    ]
    with pytest.raises(UserMistake) as mistake:
        evaluation.prepare(Squares(), trained=True)
    assert "evaluation=none" not in str(mistake.value)


# --- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_built_from_its_config(tmp_path, name):
    evaluation = instantiate(configure(tmp_path, f"evaluation={name}").evaluation)
    assert isinstance(evaluation, Evaluation)
    assert evaluation.extractor.name == "small"
    assert len(evaluation.metrics) == 6
    assert evaluation.num_samples in (2_000, 10_000, 50_000)

"""Scores label by label, on sets whose answer is known."""

import copy
from dataclasses import replace

import pytest
import torch

from fixtures.data import make_digits
from fixtures.evaluation import make_evaluation
from genbench.errors import Notice, UserMistake
from genbench.metrics import classification
from genbench.metrics.bounds import DrawnObserver, Observer
from genbench.metrics.classification import ClassificationAccuracy
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.extractors.random_conv import RandomConv
from genbench.metrics.extractors.training import Labelled
from genbench.metrics.frechet import distance, moments
from genbench.metrics.labels import LabelScores, probe, targets
from genbench.models.condition import Condition, condition_of
from genbench.models.contract import GenerativeModel
from genbench.priors.fitting import check_priors
from genbench.priors.mixture import Mixture

CPU = torch.device("cpu")


class Told(GenerativeModel):
    """Gives a training image of the class that it is asked for: the first one, or any; or of the next class."""

    latent_dim = 1

    def __init__(self, data, condition, first=False, shift=0):
        super().__init__()
        self.data, self.condition, self.first, self.shift = data, condition, first, shift
        self.register_buffer(
            "images", data.to_images(torch.from_numpy(data.pixels("train").copy()))
        )

    def players(self):
        return {}

    def step(self, images, labels=None):
        yield from ()

    def sample(self, z, labels):
        training, found = self.condition.training, []
        for place, label in zip(z[:, 0], labels, strict=True):
            there = torch.nonzero(training == (label + self.shift) % 10).flatten()
            share = 0.0 if self.first else float(torch.special.ndtr(place))
            found.append(there[int(share * len(there))])
        return self.images[torch.stack(found)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = make_digits(tmp_path_factory.mktemp("digits"))
    data.prepare_data()
    return data


def scored(tmp_path, data, model, extractor=None, **settings):
    evaluation = make_evaluation(
        tmp_path,
        num_samples=400,
        metrics={},
        likelihoods={},
        extractor=extractor or LeNet("lenet-digits-v1"),
        labels=LabelScores(**settings),
    )
    evaluation.prepare(data)
    return {score.quantity: score for score in evaluation(model, data, CPU)}


def test_images_of_the_class_asked_for_have_it_and_cover_it(digits, tmp_path):
    model = Told(digits, condition_of("class", 0.0, digits))
    scores = scored(tmp_path, digits, model)
    assert scores["label_accuracy"].value > 0.97
    assert scores["label_accuracy"].name == "label_accuracy_lenet-digits-v1"
    assert scores["label_accuracy"].card["extractor"]["role"] == "the extractor of the distances"
    assert scores["label_accuracy_heldout"].value > 0.97
    assert scores["coverage_by_class"].value > 0.4  # 40 of about 125 are repeated
    assert abs(scores["kid_by_class"].value) < 60 and "fd_by_class" not in scores
    assert scores["kid_by_class_worst"].value >= scores["kid_by_class"].value
    assert scores["coverage_by_class_worst"].value <= scores["coverage_by_class"].value
    assert scores["kid_by_class"].card["fake"]["labels"]["condition"] == "class"


def test_one_image_of_each_class_has_full_accuracy_and_covers_nothing(digits, tmp_path):
    model = Told(digits, condition_of("class", 0.0, digits), first=True)
    scores = scored(tmp_path, digits, model)
    assert scores["label_accuracy"].value == 1
    assert scores["coverage_by_class"].value < 0.3


def test_images_of_the_next_class_have_none_of_the_labels(digits, tmp_path):
    model = Told(digits, condition_of("class", 0.0, digits), shift=1)
    scores = scored(tmp_path, digits, model)
    assert scores["label_accuracy"].value < 0.02
    assert scores["kid_by_class"].value > 500


def test_another_classifier_than_the_extractor_is_asked_where_there_is_one(digits, tmp_path):
    model = Told(digits, condition_of("class", 0.0, digits))
    scores = scored(tmp_path, digits, model, RandomConv())
    assert scores["label_accuracy"].name == "label_accuracy_lenet-digits-v1"
    assert "another network" in scores["label_accuracy"].card["extractor"]["role"]


def test_a_classifier_of_other_classes_gives_way_to_a_probe(digits, tmp_path):
    """The shipped one knows ten classes in their order; here they stand in another one."""
    turned = copy.copy(digits)
    turned.labels = lambda split: (digits.labels(split) + 3) % 10
    model = Told(turned, condition_of("class", 0.0, turned))
    scores = scored(tmp_path, turned, model, RandomConv())
    assert scores["label_accuracy"].name == "label_accuracy_probe-random-conv-v1"
    assert scores["label_accuracy"].value > 0.95
    assert 0.9 < scores["label_accuracy_heldout"].value < 1


def test_a_frechet_distance_by_class_is_that_of_each_class_by_itself(digits, tmp_path):
    """With few enough dimensions for the numbers of images."""
    model = Told(digits, condition_of("class", 0.0, digits))
    condition = model.condition
    narrow = make_evaluation(
        tmp_path, num_samples=400
    ).extractor  # 8 dimensions, of which 10 x 8 images
    metric = LabelScores()
    evaluation = make_evaluation(
        tmp_path,
        num_samples=1000,
        metrics={},
        likelihoods={},
        extractor=narrow,
        labels=metric,
    )
    scores = {one.quantity: one for one in evaluation(model, digits, CPU)}
    labels = evaluation.generated.labels(model)
    z = model.latents(1000, torch.Generator().manual_seed(0))
    read = [
        narrow(digits.to_pixels(images), 17).features
        for images in (model.sample(z, labels), model.images)
    ]
    each = [
        distance(moments(read[1][condition.training == k]), moments(read[0][labels == k]))
        for k in range(10)
    ]
    assert scores["fd_by_class"].value == pytest.approx(sum(each) / 10, rel=1e-4)
    assert scores["fd_by_class_worst"].value == pytest.approx(max(each), rel=1e-4)


@pytest.mark.parametrize("turn", [0, 3])
def test_images_that_are_no_numbers_lose_the_scores_that_others_have(turn, digits, tmp_path):
    """Under the same names, so that such a run counts as lost beside them; by a classifier and by a probe."""
    turned = copy.copy(digits)
    turned.labels = lambda split: (digits.labels(split) + turn) % 10
    model = Told(turned, condition_of("class", 0.0, turned))
    few = make_evaluation(tmp_path).extractor  # of 8 dimensions: Frechet distances by class

    def all_scores():
        made = make_evaluation(
            tmp_path,
            num_samples=1000,
            metrics={},
            likelihoods={},
            extractor=few,
            labels=LabelScores(),
        )
        return {score.name: score for score in made(model, turned, CPU)}

    there = all_scores()
    model.images[:] = torch.nan
    lost = all_scores()
    assert lost.keys() == there.keys()
    assert any(name.startswith("fd_by_class") for name in lost)
    for score in lost.values():
        assert (score.value is None) == (score.status == "nonfinite") == ("fake" in score.card)


def test_a_probe_of_linear_features_is_exact_and_attributes_are_read_one_by_one():
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*shape, generator=generator) for shape in ((500, 6), (6, 3)))
    labels = (x @ w > 0).to(torch.int8)
    condition = Condition("attributes", ("a", "b", "c"), labels)
    (found,) = probe(x, targets(labels, condition), (x,))
    assert float(((found > 0) == (labels > 0)).double().mean()) > 0.95
    assert targets(torch.tensor([1, 0]), replace(condition, kind="class")).tolist() == [
        [-1, 1, -1],
        [1, -1, -1],
    ]


def test_a_model_that_was_told_nothing_has_no_such_scores(digits, tmp_path):
    model = Told(digits, condition_of("class", 0.0, digits))
    told = model.condition
    model.condition = None
    model.sample = lambda z: Told.sample(told_model, z, torch.zeros(len(z), dtype=torch.int64))
    told_model = Told(digits, told)
    scores = scored(tmp_path, digits, model)
    assert scores == {}


@pytest.mark.slow
def test_the_classification_accuracy_score_of_copies_is_near_its_ceiling(digits, tmp_path):
    condition = condition_of("class", 0.0, digits)

    def tested(model):
        metric = LabelScores(cas=True)
        metric.cas = ClassificationAccuracy(shown=15_000)
        evaluation = make_evaluation(
            tmp_path, num_samples=400, metrics={}, likelihoods={}, labels=metric
        )
        return {score.quantity: score for score in evaluation(model, digits, CPU)}

    own, one = tested(Told(digits, condition)), tested(Told(digits, condition, first=True))
    assert own["cas_real"].value > 0.85 and own["cas"].value > 0.8
    assert one["cas"].value < own["cas"].value - 0.1  # although each image has its label
    assert one["cas_real"].value == own["cas_real"].value
    assert own["cas"].card["estimator"]["n"] == own["cas"].card["fake"]["n"] == 400


def test_its_classifier_is_tested_on_other_images_than_it_is_trained_on():
    """Held-out images whose labels are the other way round: what it has learned is wrong of all."""
    pixels = (
        torch.arange(128)
        .remainder(2)
        .mul(16)
        .to(torch.uint8)[:, None, None, None]
        .expand(-1, 1, 8, 8)
    )
    shown = Labelled(pixels, torch.arange(128) % 2, 17)
    assert classification._tested(shown, shown, 2, 4).value == 1
    assert classification._tested(shown, shown._replace(labels=1 - shown.labels), 2, 4).value == 0


def test_a_bound_gives_the_model_the_labels_of_every_draw():
    labels = torch.tensor([0.0, 1.0, 2.0])
    observer = Observer(
        lambda images, y: (images + y, images * 0), lambda images, z, y: images + 10 * y
    ).told(labels)
    images = torch.zeros(3)
    assert observer.posterior(images)[0].tolist() == [0, 1, 2]
    assert observer.log_prob(images.repeat(2), None).tolist() == [0, 10, 20, 0, 10, 20]
    assert observer.told() is observer
    drawn = DrawnObserver(lambda images, noise, y: (images + y, noise))
    bound, noise = drawn.told(labels).elbo(images, torch.ones(3))
    assert bound.tolist() == [0, 1, 2] and noise.tolist() == [1, 1, 1]
    assert drawn.told(labels).draw is None and drawn.told() is drawn


def test_what_would_give_no_label_is_left_out_with_a_notice(digits, tmp_path):
    model = Told(digits, condition_of("class", 0.0, digits))
    evaluation = make_evaluation(
        tmp_path, metrics={}, likelihoods={"mine": lambda request: 1 / 0}, num_samples=40
    )
    with pytest.warns(Notice, match=r"not scored under arena.condition=class: mine"):
        evaluation(model, digits, CPU)


def test_a_prior_of_the_codes_of_all_labels_is_refused(digits):
    model = Told(digits, condition_of("class", 0.0, digits))
    prior = Mixture(components=2, codes=100, seed=0, regularisation=1e-6, rounds=10)
    with pytest.raises(UserMistake, match=r"codes of all labels together.*prior=truncated"):
        check_priors([prior], model, digits)


def test_a_classifier_of_other_images_is_refused_before_training(digits):
    with pytest.raises(UserMistake, match="choose null or lenet-digits-v1"):
        LabelScores(classifier="lenet-mnist-v1").prepare(digits)
    LabelScores(classifier="lenet-digits-v1").prepare(digits)
    with pytest.raises(UserMistake, match="cas=x: choose true or false"):
        LabelScores(cas="x")

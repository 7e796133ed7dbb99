"""Whether the images of a model that knows labels show what was asked for, label by label.

`label_accuracy` asks a classifier, and is 1 for one typical image of each class repeated for ever; so beside
it stand the distances and the coverage of each label's images by themselves, their mean and the worst one. A
classifier that is no extractor of the distances is taken where one exists; every card says which it was.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.metrics.classification import ClassificationAccuracy
from genbench.metrics.contract import Estimate, Extractor, Features, Quantity, Role
from genbench.metrics.extractors import SHIPPED, fitting, read_card
from genbench.metrics.extractors.convnet import ConvNet
from genbench.metrics.extractors.lenet import LeNet
from genbench.metrics.features import subset
from genbench.metrics.frechet import distance, moments
from genbench.metrics.kernel import kernel_distance
from genbench.metrics.prdc import prdc
from genbench.metrics.truth import LOST, TruthMetric, TruthRequest, truth_score
from genbench.models.condition import Condition
from genbench.ranges import whole
from genbench.runs.score import Score

IMAGES_A_DIMENSION = 10  # of each label, below which a Frechet distance says little
KNOWS = 0.5  # accuracy on held-out images from which a classifier is one of these classes
RIDGE = 1e-3  # of the probe, relative to the variance of a feature

ACCURACY = Quantity("label_accuracy", ("fake", "heldout"), True)
REAL = Quantity("label_accuracy_heldout", ("heldout",), None, floor=True)
OVER_IMAGES = "95 % over images"


class Reading(NamedTuple):
    """Whether each image's label was read rightly: of generated ones, (N,) or (N, A), and held-out ones.

    `fake` is None where a generated image is NaN.
    """

    fake: Tensor | None
    heldout: Tensor
    reader: str
    card: Mapping[str, Any]


class LabelScores(TruthMetric):
    """Scores of a model under `arena.condition`; an empty list for others.

    `classifier` names a shipped one for `label_accuracy`; None takes one that is not the extractor, where
    one knows the classes, then the extractor, and else a linear probe of its features, trained on the
    training images. For attributes it is the probe, and accuracy is the mean over attributes; the
    distances are of the images that have an attribute. `max_images` of a label are compared by kernel
    and by neighbours. `cas`: also the classification accuracy score, see `classification`.
    """

    of_samples = True

    def __init__(
        self,
        *,
        classifier: str | None = None,
        max_images: int = 2_000,
        k: int = 5,
        seed: int = 0,
        cas: bool = False,
    ) -> None:
        whole("evaluation.labels.max_images", max_images, k + 1)
        whole("evaluation.labels.k", k)
        self.classifier, self.max_images, self.k, self.seed = classifier, max_images, k, seed
        if not isinstance(cas, bool):
            raise UserMistake(f"evaluation.labels.cas={cas}: choose true or false")
        self.cas = ClassificationAccuracy() if cas else None

    def prepare(self, data: ImageData) -> None:
        """Check that a classifier that was named reads these images. Raises UserMistake."""
        there = fitting(data.image_size, data.channels)
        if self.classifier is not None and self.classifier not in there:
            shipped = f"choose null or {', '.join(there)}" if there else "choose null"
            raise UserMistake(
                f"evaluation.labels.classifier={self.classifier} is no shipped classifier of images such as those of "
                f"{data.name}: {shipped}"
            )

    def __call__(self, request: TruthRequest) -> list[Score]:
        """Score the images that the run's extractor has seen, with the labels that they were made from."""
        condition = request.model.condition
        if condition is None:
            return []
        labels = request.generated.labels(request.model)
        assert labels is not None
        with request.store.watch.timing("labels"):
            scores = self._accuracy(request, condition, labels)
            scores += self._by_label(request, condition, labels)
        if self.cas is not None and condition.kind == "class":
            with request.store.watch.timing("cas"):
                scores += self.cas(request, condition)
        return scores

    # --- accuracy ---------------------------------------------------------------------------------
    def _accuracy(self, request: TruthRequest, condition: Condition, labels: Tensor) -> list[Score]:
        heldout = condition.of(request.data, request.split)
        found = self._read(request, condition, labels, heldout)
        own = {"estimator": {"name": "LabelScores", "version": 1}, "extractor": dict(found.card)}
        cards = request.cards
        both = {**own, "fake": dict(cards["fake"]), "heldout": dict(cards["heldout"])}
        real = {**own, "heldout": dict(cards["heldout"])}
        return [
            truth_score(
                ACCURACY, found.reader, LOST if found.fake is None else _share(found.fake), both
            ),
            truth_score(REAL, found.reader, _share(found.heldout), real),
        ]

    def _read(
        self, request: TruthRequest, condition: Condition, labels: Tensor, heldout: Tensor
    ) -> Reading:
        """By the first reader that knows these labels."""
        if condition.kind == "class":
            for reader, there, made in self._classifiers(request):
                if there.logits.shape[1] != len(condition.names):
                    continue
                right = there.logits.argmax(1) == heldout
                if float(right.double().mean()) < KNOWS:
                    continue
                features = made()
                which = "the extractor of the distances"
                if reader.name != request.store.extractor.name:
                    which = "another network than that of the distances"
                card = {**reader.card, "role": which}
                read = None if features is None else features.logits.argmax(1) == labels
                return Reading(read, right, reader.name, card)
        return _probed(request, condition, labels, heldout)

    def _classifiers(
        self, request: TruthRequest
    ) -> Iterator[tuple[Extractor, Features, Callable[[], Features | None]]]:
        """Classifiers to ask, with what they see in held-out and in generated images."""
        data, own = request.data, request.store.extractor
        there = fitting(data.image_size, data.channels)
        names = [self.classifier] if self.classifier else [n for n in there if n != own.name]
        for name in names:
            kind = str(read_card(SHIPPED / f"{name}.safetensors").get("architecture", "lenet"))
            reader = ConvNet(name) if kind == "convnet" else LeNet(name)
            seen, _ = request.store_of(reader).of(data, request.split)
            yield reader, seen, partial(_generated, request, reader)
        yield own, request.sets["heldout"], lambda: request.sets.get("fake")

    # --- label by label ---------------------------------------------------------------------------
    def _by_label(self, request: TruthRequest, condition: Condition, labels: Tensor) -> list[Score]:
        groups, real = self._groups(condition, labels), request.sets["real"].features
        smallest = min((int(one.sum()) for pair in groups for one in pair), default=0)
        pairs = []
        if "fake" in request.sets:
            fake = request.sets["fake"].features
            pairs = [(real[of_real], fake[own]) for of_real, own in groups]
        frechet = smallest >= IMAGES_A_DIMENSION * real.shape[1]
        name, better = ("fd", False) if frechet else ("kid", False)
        few = {"max_images": self.max_images, "seed": self.seed}
        how: dict[str, tuple[bool, dict[str, Any], Callable[[Tensor, Tensor], float]]] = {
            f"{name}_by_class": (
                better,
                {} if frechet else few,
                self._frechet if frechet else self._kernel,
            ),
            "coverage_by_class": (True, {**few, "k": self.k, "sizes": "equal"}, self._coverage),
        }
        scores = []
        for quantity, (higher, settings, measure) in how.items():
            values = [measure(one, other) for one, other in pairs]
            estimator = {"name": "LabelScores", "groups": condition.kind, **settings, "version": 1}
            worst = (min if higher else max)(values) if values else None
            mean = sum(values) / len(values) if values else None
            for tail, value in (("", mean), ("_worst", worst)):
                estimate = LOST if value is None else Estimate(value)
                one = Quantity(f"{quantity}{tail}", ("fake", "real"), higher)
                card = {
                    "quantity": one.name,
                    "estimator": estimator,
                    "extractor": dict(request.store.extractor.card),
                    "real": dict(request.cards["real"]),
                    "fake": dict(request.cards["fake"]),
                }
                scores.append(truth_score(one, request.store.extractor.name, estimate, card))
        return scores

    def _groups(self, condition: Condition, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Which training and which generated images have each label, of those that have enough of both."""
        every = zip(_groups(condition.training, condition), _groups(labels, condition), strict=True)
        return [pair for pair in every if min(int(one.sum()) for one in pair) > self.k]

    def _frechet(self, real: Tensor, fake: Tensor) -> float:
        return distance(moments(real), moments(fake))

    def _kernel(self, real: Tensor, fake: Tensor) -> float:
        few = (subset(one, self.max_images, self.seed) for one in (real, fake))
        return kernel_distance(*few)

    def _coverage(self, real: Tensor, fake: Tensor) -> float:
        n = min(len(real), len(fake), self.max_images)
        return prdc(subset(real, n, self.seed), subset(fake, n, self.seed), self.k).coverage


def _generated(request: TruthRequest, reader: Extractor) -> Features | None:
    return request.read(reader, None)[0]


def _groups(labels: Tensor, condition: Condition) -> Iterator[Tensor]:
    """Which images have each class, or each attribute: (N,) bool."""
    for place in range(len(condition.names)):
        yield labels == place if condition.kind == "class" else labels[:, place] == 1


def _probed(
    request: TruthRequest, condition: Condition, labels: Tensor, heldout: Tensor
) -> Reading:
    """Read by a linear probe of the extractor's features."""
    sets = request.sets
    asked: dict[Role, Tensor] = {"heldout": heldout}
    if "fake" in sets:
        asked["fake"] = labels
    seen = tuple(sets[role].features for role in asked)
    found = probe(sets["real"].features, targets(condition.training, condition), seen)
    right = {
        role: one.argmax(1) == own if condition.kind == "class" else (one > 0) == (own > 0)
        for one, (role, own) in zip(found, asked.items(), strict=True)
    }
    own = request.store.extractor
    how = {"probe": "ridge regression to +1 and -1", "ridge": RIDGE, "version": 1}
    return Reading(
        right.get("fake"), right["heldout"], f"probe-{own.name}", {**own.card, "role": how}
    )


def targets(labels: Tensor, condition: Condition) -> Tensor:
    """+1 and -1 for each class or attribute, (N, K) float64."""
    return torch.stack([*_groups(labels, condition)], 1).double() * 2 - 1


def probe(features: Tensor, wanted: Tensor, asked: tuple[Tensor, ...]) -> list[Tensor]:
    """Ridge regression from features (N, D) to `wanted` (N, K), applied to other features: (M, K) each."""
    x = features.double()
    middle, scale = x.mean(0), x.std(0).clamp_min(1e-12)
    x, mean = (x - middle) / scale, wanted.mean(0)
    gram = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.T @ (wanted - mean) / len(x))
    return [(one.double() - middle) / scale @ weights + mean for one in asked]


def _share(right: Tensor) -> Estimate:
    """The mean over images, and over attributes, with its standard error over images."""
    each = right.double().flatten(1).mean(1) if right.ndim > 1 else right.double()
    error = float(each.std() / len(each) ** 0.5) if len(each) > 1 else None
    return Estimate.within(float(each.mean()), error, OVER_IMAGES)

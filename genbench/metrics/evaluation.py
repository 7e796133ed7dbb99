"""Scores of a model under one protocol: sample, extract features, compute metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genbench.data.contract import ImageData, Split
from genbench.errors import UserMistake
from genbench.metrics.contract import (
    Estimate,
    Extractor,
    FeatureMetric,
    Features,
    MissingWeights,
    Role,
)
from genbench.metrics.evaluation_curve import EvaluationCurve
from genbench.metrics.extractors import alternatives
from genbench.metrics.feature_cache import FeatureCache
from genbench.metrics.feature_scores import feature_scores, floors_of, of_split
from genbench.metrics.feature_store import FeatureStore
from genbench.metrics.feature_workers import FeatureWorkers, start_workers
from genbench.metrics.gallery import GalleryRequest, WorstReconstructions, keep_gallery
from genbench.metrics.inversion import Inversion
from genbench.metrics.latents import LatentHealth
from genbench.metrics.likelihood import LikelihoodMetric, LikelihoodRequest
from genbench.metrics.per_image import Kept
from genbench.metrics.reconstruction import EncoderRequest, Reconstruction
from genbench.metrics.sampling import GeneratedSet, costs_of
from genbench.metrics.stopwatch import Stopwatch
from genbench.metrics.truth import TruthMetric, TruthRequest, known, true_scores
from genbench.metrics.validation_distance import ValidationDistance, scoring
from genbench.models.contract import GenerativeModel
from genbench.priors.fitting import FittedPrior, drawing_from
from genbench.ranges import whole
from genbench.runs.files import first_line
from genbench.runs.per_image import ImageValues
from genbench.runs.score import Score, digest

AVERAGED = "averaged"  # argument of a worker process: sample from the averaged weights
PRIOR = "prior="  # begins one: draw latents from what the run keeps under the name that follows


class Evaluation:
    """A protocol: the number of samples, their seed, one extractor, and what is computed from it.

    The real set is the whole training split, the held-out set the whole test split, or with
    `split="validation"` the whole validation split: a search that looks at these scores has seen
    neither the test images nor the latents of reported scores. Features of splits are kept under
    `cache`. For `num_samples`, `seed` and `pixels` see GeneratedSet.
    `batch_size` bounds memory and changes scores by no more than float32 rounding. Feature extraction
    is shared by `devices` processes, with the same scores; reconstructions and likelihoods are left to
    the first one, as are the scores of `truth`, on worlds of which more is known, and of `labels`, for models
    that are told them. A metric that is None is left out. `watch` says how this process spent its time.
    With `gallery` the pictures that explain the scores of the raw weights are kept in the run's folder.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        batch_size: int,
        seed: int,
        extractor: Extractor,
        metrics: Mapping[str, FeatureMetric | None],
        likelihoods: Mapping[str, LikelihoodMetric | None],
        cache: str,
        devices: int = 1,
        split: str = "test",
        pixels: str = "mean",
        reconstruction: Reconstruction | None = None,
        truth: Mapping[str, TruthMetric | None] | None = None,
        latents: LatentHealth | None = None,
        inversion: bool | Mapping[str, Any] = False,
        evaluations: EvaluationCurve | None = None,
        labels: TruthMetric | None = None,
        gallery: bool = False,
    ) -> None:
        whole("evaluation.num_samples", num_samples)
        whole("evaluation.batch_size", batch_size)
        whole("evaluation.devices", devices)
        whole("evaluation.seed", seed, None)
        if split not in ("test", "validation"):
            raise UserMistake(
                f"evaluation.split={split!r}: scores are taken on test or on validation images"
            )
        self.split: Split = "test" if split == "test" else "validation"
        self.splits: dict[Role, Split] = {"real": "train", "heldout": self.split}
        self.num_samples, self.batch_size = num_samples, batch_size
        self.given_seed, self.seed = seed, seed_of(self.split, seed)
        self.generated = GeneratedSet(num_samples, self.seed, pixels)
        self.extractor, self.reconstruction, self.latents = extractor, reconstruction, latents
        self.evaluations = evaluations
        self.metrics = {name: one for name, one in metrics.items() if one is not None}
        self.likelihoods = {name: one for name, one in likelihoods.items() if one is not None}
        self.truth = {name: one for name, one in (truth or {}).items() if one is not None}
        self.labels = {} if labels is None else {"labels": labels}
        self.gallery = gallery
        if inverting := Inversion.of(inversion):
            self.likelihoods["inversion"] = inverting
        self.folder = Path(cache).expanduser()
        self.cache = FeatureCache(self.folder / "features", extractor)
        self.devices = devices
        self.sample_images_per_second: float | None = None  # of one process
        self.watch = Stopwatch()
        self.per_image: list[ImageValues] = []  # of all scores of a run's final weights so far
        self.validation_distance = ValidationDistance(self)
        self._floors: dict[str, dict[str, Estimate]] = {}  # by the cards of the real images

    def prepare(self, data: ImageData, trained: bool = False) -> None:
        """Check that scoring can work, before training or of a `trained` model. Raises UserMistake."""
        _check_counts(self, data)
        if self.reconstruction is not None:
            self.reconstruction.prepare(data, self.folder / "extractors")
        for one in [*self.truth.values(), *self.labels.values()]:
            one.prepare(data)
        _check_extractor(self.extractor, data, trained)

    def __call__(
        self,
        model: GenerativeModel,
        data: ImageData,
        device: torch.device,
        directory: Path | None = None,
        averaging: Mapping[str, Any] | None = None,
        protocol: Path | None = None,
        prior: FittedPrior | None = None,
    ) -> list[Score]:
        """Score the model as it is; its mode and all global random states are restored.

        `directory` is the run's: slow likelihoods keep intermediate results there and continue from
        them. `averaging` is the card of averaged weights, if the decoder has these: then only scores
        that depend on samples alone are computed, since the encoder was not averaged. `protocol` is
        the file of this protocol for the other processes, if it is not that of the run's config. `prior`
        is what latents are drawn from, None as in training: with it only scores that depend on samples
        are computed, and several processes need it kept in `directory`.
        """
        kept = Kept()
        with drawing_from(model, prior), scoring(model, device, self.seed, self.batch_size):
            sets: dict[Role, Features] = {}
            cards: dict[Role, Mapping[str, Any]] = {}
            arguments = self._missing(data) + ([] if averaging is None else [AVERAGED])
            arguments += [] if prior is None else [f"{PRIOR}{prior.stem}"]
            with start_workers(
                self.devices, directory, protocol, device.type, arguments
            ) as workers:
                store = self.store(device, workers)
                for role, split in self.splits.items():
                    sets[role], cards[role] = store.of(data, split)
                if data.flip:  # a model may generate mirrored images; the real set has none
                    cards["real"] = {**cards["real"], "mirrored": False}
                fake = self._features(self.generated, model, data, store)
            if fake is not None:
                sets["fake"] = fake
            cards["fake"] = self.generated.card(model, data, averaging, prior)
            scores = self._scores(sets, cards, device, kept)
            if averaging is not None or prior is not None:
                scores = [score for score in scores if "fake" in score.card]
            else:
                scores += _of_encoder(self, model, data, store, sets, cards, directory, kept)
            asked = TruthRequest(
                model, data, self.split, self.generated, store, averaging, prior, sets, cards
            )
            if self.evaluations is not None:
                scores += self.evaluations(asked, sets["real"], cards["real"])
            scores += true_scores(known(self.truth | self.labels, model).values(), asked)
            if averaging is None:
                request = LikelihoodRequest(
                    model, data, device, self.seed, self.batch_size, self.split,
                    directory=directory, prior=prior, kept=kept,
                )  # fmt: skip
                scores += _likelihoods(known(self.likelihoods, model), request, self.watch)
                scores += [] if prior is None else costs_of(prior, cards["fake"])
        named = [of_split(score, self.split) for score in scores]
        if directory is not None:
            self.per_image += kept.named(scores, named)
        return named

    def check_seed(self, seed: int) -> None:
        """Refuse to select by the latents that are scored. Raises UserMistake."""
        if seed in (self.given_seed, self.seed):
            raise UserMistake(f"selection.seed={seed} is evaluation.seed: choose another one")

    def contribute(
        self,
        model: GenerativeModel,
        data: ImageData,
        device: torch.device,
        workers: FeatureWorkers,
        splits: Sequence[Split],
    ) -> None:
        """In a worker process: extract its batches of `splits` and of the generated images."""
        with scoring(model, device, self.seed, self.batch_size):
            store = self.store(device, workers)
            for split in splits:
                store.contribute(data, split)
            self._features(self.generated, model, data, store)

    def store(
        self, device: torch.device, workers: FeatureWorkers, watch: Stopwatch | None = None
    ) -> FeatureStore:
        """Features of images on a device; `watch` notes the seconds, that of scoring by default."""
        return FeatureStore(
            self.extractor,
            self.cache,
            workers,
            batch_size=self.batch_size,
            device=device,
            watch=watch or self.watch,
        )

    def _missing(self, data: ImageData) -> list[str]:
        """Splits that workers have to extract: not cached, and with a fingerprint to cache by."""
        if self.devices == 1:
            return []
        known = [s for s in self.splits.values() if data.card(s)["fingerprint"] is not None]
        return [split for split in known if self.cache.load(data, split) is None]

    def _features(
        self, images: GeneratedSet, model: GenerativeModel, data: ImageData, store: FeatureStore
    ) -> Features | None:
        """Features of generated images; None if one of these images is NaN or infinite."""
        features, self.sample_images_per_second = images.features(model, data, store)
        return features

    def _scores(
        self,
        sets: Mapping[Role, Features],
        cards: Mapping[Role, Mapping[str, Any]],
        device: torch.device,
        kept: Kept,
    ) -> list[Score]:
        moved = {
            role: Features(part.features.to(device), part.logits.to(device))
            for role, part in sets.items()
        }
        key = digest([cards["real"], cards["heldout"]])
        if key not in self._floors:
            self._floors[key] = floors_of(self.metrics, moved, self.num_samples, self.watch)
        floors = self._floors[key]
        return feature_scores(self.metrics, self.extractor, moved, cards, floors, self.watch, kept)


def _of_encoder(
    protocol: Evaluation,
    model: GenerativeModel,
    data: ImageData,
    store: FeatureStore,
    sets: Mapping[Role, Features],
    cards: Mapping[Role, Mapping[str, Any]],
    run: Path | None,
    kept: Kept,
) -> list[Score]:
    """What needs an encoder's codes; with it the run's gallery, of all that was found."""
    heldout, real = ((sets[role], cards[role]) for role in ("heldout", "real"))
    worst = WorstReconstructions()
    request = EncoderRequest(
        model, data, protocol.split, heldout, real, store, protocol.seed, run, worst, kept
    )
    scores = protocol.reconstruction(request) if protocol.reconstruction else []
    scores += protocol.latents(request) if protocol.latents else []
    if protocol.gallery and run is not None:
        _keep_pictures(protocol, run, model, data, worst, "fake" in sets)
    return scores


def _keep_pictures(
    protocol: Evaluation,
    run: Path,
    model: GenerativeModel,
    data: ImageData,
    worst: WorstReconstructions,
    called: bool,
) -> None:
    """Write the run's gallery; `called` says whether the metrics were, on the samples of this model."""
    metrics = list(protocol.metrics.values()) if called else []
    of: dict[str, Any] = {"split": protocol.split, "n": protocol.num_samples, "seed": protocol.seed}
    of |= {"extractor": protocol.extractor.name, "weights": "raw"}
    with protocol.watch.timing("gallery"):
        keep_gallery(run, GalleryRequest(model, data, protocol.generated, metrics, worst, of))


def _likelihoods(
    metrics: Mapping[str, LikelihoodMetric], request: LikelihoodRequest, watch: Stopwatch
) -> list[Score]:
    """Scores of the model itself; under a fitted prior those that ask for its density alone."""
    scores: list[Score] = []
    for name, metric in metrics.items():
        if request.prior is None or getattr(metric, "knows_priors", False):
            with watch.timing(name):
                scores += metric(request)
    return scores


def _check_counts(protocol: Evaluation, data: ImageData) -> None:
    """Raise UserMistake unless there are as many images of each kind as the metrics need."""
    needed = max([2, *(metric.minimum for metric in protocol.metrics.values())])
    for what, count in {
        f"evaluation.num_samples={protocol.num_samples}": protocol.num_samples,
        f"the training split of {data.name}": len(data.pixels("train")),
        f"the {protocol.split} split of {data.name}": len(data.pixels(protocol.split)),
    }.items():
        if count < needed:
            raise UserMistake(f"{what} has too few images: this evaluation needs at least {needed}")


def _check_extractor(extractor: Extractor, data: ImageData, trained: bool) -> None:
    """Raise UserMistake unless the extractor has its weights and can read the images."""
    others = alternatives(data.image_size, data.channels, trained)
    try:
        extractor.prepare()
    except MissingWeights as error:
        raise UserMistake(f"{error.reason}: choose {others}, or {error.remedy}") from error
    two = torch.from_numpy(data.pixels("train")[:2].copy())
    try:
        with torch.no_grad():
            extractor(two, data.levels)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserMistake(
            f"the extractor {extractor.name} cannot read the images of {data.name} "
            f"({data.channels} x {data.image_size} x {data.image_size}, {data.levels} levels): "
            f"choose {others} ({first_line(error)})"
        ) from error


def seed_of(split: Split, seed: int) -> int:
    """The seed of an evaluation's latents: validation scores have others than reported ones."""
    return seed if split == "test" else int(digest([split, seed], 8), 16)

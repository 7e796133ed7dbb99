"""Scores of a model under one protocol: sample, extract features, compute metrics."""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.data.contract import ImageData, Split
from genbench.device import scoring_memory
from genbench.errors import UserMistake
from genbench.metrics.contract import Estimate, Extractor, FeatureMetric, Features, Quantity, Role
from genbench.metrics.feature_cache import load, save
from genbench.metrics.feature_workers import Share, helped
from genbench.metrics.frechet import distance, moments
from genbench.metrics.likelihood import LikelihoodMetric, Task
from genbench.models.contract import GenerativeModel
from genbench.runs.score import Score, digest

SPLITS: dict[Role, Split] = {"real": "train", "heldout": "test"}


INCEPTION = "6726825d"  # the weights whose Frechet distance is called FID, and on these inputs:


AVERAGED = "averaged"  # tells another process which weights to sample


RESERVED = {"tf1-bilinear": "", "pil-bicubic": "_clean"}


PAPER_NAMES = {"fd": "fid", "kid": "kid", "is": "is"}


class Evaluation:
    """A protocol: so many samples from one seed, one extractor, and what is computed from it.

    The real side is the whole training split, the held-out side the whole test split; their features
    are kept under `cache`. `num_samples` images are generated from latents drawn at once on the CPU.
    `batch_size` bounds memory and changes no number beyond float32 rounding. `devices` share the
    features, and change no number either; likelihoods are the first one's work. A metric that is None
    is left out.
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
    ) -> None:
        for name, value in (("batch_size", batch_size), ("devices", devices)):
            if value < 1:
                raise UserMistake(f"evaluation.{name}={value}: it must be 1 or more")
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.extractor, self.metrics = extractor, [m for m in metrics.values() if m is not None]
        self.likelihoods = [one for one in likelihoods.values() if one is not None]
        self.cache = Path(cache).expanduser() / "features"
        self.devices = devices
        self.protocol: Path | None = None  # a file with this protocol, if not in the run's config
        self.sample_images_per_second: float | None = None  # of one device
        self._share = Share()

    def prepare(self, data: ImageData) -> None:
        """Find before training what would fail after it. Raises UserMistake."""
        for what, count in {
            f"evaluation.num_samples={self.num_samples}": self.num_samples,
            f"the training split of {data.name}": len(data.pixels("train")),
            f"the test split of {data.name}": len(data.pixels("test")),
        }.items():
            needed = max([2, *(metric.minimum for metric in self.metrics)])
            if count < needed:
                raise UserMistake(
                    f"{what} has too few images: this evaluation needs at least {needed}"
                )
        self.extractor.prepare()
        two = torch.from_numpy(data.pixels("train")[:2].copy())
        try:
            with torch.no_grad():
                self.extractor(two, data.levels)
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserMistake(
                f"the extractor {self.extractor.name} cannot read the images of {data.name} "
                f"({data.channels} x {data.image_size} x {data.image_size}, {data.levels} levels): "
                f"choose another with extractor=... ({str(error).splitlines()[0]})"
            ) from error

    def __call__(
        self,
        model: GenerativeModel,
        data: ImageData,
        device: torch.device,
        directory: Path | None = None,
        averaging: Mapping[str, Any] | None = None,
    ) -> list[Score]:
        """Score the model as it is; afterwards its mode and all global random states are as before.

        `directory` is the run's: what takes long leaves its state there, and is taken up again.
        `averaging` is the card of averaged weights, if these are in the decoder: then only what
        samples alone decide is scored, for the encoder was not averaged.
        """
        with scoring_memory(self.batch_size), _undisturbed(model, device, self.seed):
            self.extractor.to(device)
            cards: dict[Role, dict[str, Any]] = {}
            sets: dict[Role, Features] = {}
            wanted = self._missing(data) + ([AVERAGED] if averaging is not None else [])
            with helped(self.devices, directory, self.protocol, wanted) as share:
                self._share = share
                for role in SPLITS:
                    sets[role], cards[role] = self._stored(data, role, device)
                fake = self._generated(model, data, device, self.num_samples, self.seed)
                self._share = Share()
            if fake is not None:
                sets["fake"] = fake
            cards["fake"] = {
                "dataset": data.name,
                "n": self.num_samples,
                "seed": self.seed,
                "latents": "prior",
                "weights": "raw" if averaging is None else "ema",
                **({} if averaging is None else {"averaging": dict(averaging)}),
                "quantisation": {"round": "nearest", "levels": data.levels},
            }
            scores = self._scores(sets, cards, device)
            if averaging is not None:
                return [score for score in scores if "fake" in score.card]
            task = Task(model, data, device, self.seed, self.batch_size, directory=directory)
            return scores + [one for metric in self.likelihoods for one in metric(task)]

    def validation_distance(
        self, data: ImageData, model: GenerativeModel, num_samples: int, seed: int
    ) -> float | None:
        """Frechet distance to the validation split, to choose by; None if a sample is not finite.

        Nothing that is reported is seen: neither the test images nor the latents of `seed`.
        """
        self.check_seed(seed)
        device = model.device
        with scoring_memory(self.batch_size), _undisturbed(model, device, seed):
            self.extractor.to(device)
            real, _ = self._split_features(data, "validation", "validation", device)
            fake = self._generated(model, data, device, num_samples, seed)
            if fake is None:
                return None
            return distance(moments(real.features), moments(fake.features))

    def check_seed(self, seed: int) -> None:
        """Refuse to choose by the latents that are scored."""
        if seed == self.seed:
            raise UserMistake(f"selection.seed={seed} is evaluation.seed: choose another one")

    # --- features -------------------------------------------------------------------------------

    def contribute(
        self,
        model: GenerativeModel,
        data: ImageData,
        device: torch.device,
        share: Share,
        roles: Sequence[str],
    ) -> None:
        """Extract a share of the features for another process, which computes the scores."""
        with scoring_memory(self.batch_size), _undisturbed(model, device, self.seed):
            self.extractor.to(device)
            self._share = share
            for role, split in SPLITS.items():
                if role in roles:
                    self._seen(data, split, role, device)
            self._generated(model, data, device, self.num_samples, self.seed)

    def _missing(self, data: ImageData) -> list[str]:
        """Splits whose features have to be extracted, and whose pixels somebody has seen before."""
        if self.devices == 1:
            return []
        known = [r for r, split in SPLITS.items() if data.card(split)["fingerprint"] is not None]
        return [role for role in known if not self._kept(data, SPLITS[role], role)]

    def _place(self, data: ImageData, split: Split, role: str) -> tuple[Path, dict[str, Any]]:
        """Where features of a split are kept, and what identifies them."""
        identity = {"extractor": dict(self.extractor.card), "data": data.card(split), "role": role}
        name = f"{self.extractor.name}-{data.name}-{role}-{digest(identity, 24)}.safetensors"
        return self.cache / name, identity

    def _kept(self, data: ImageData, split: Split, role: str) -> Features | None:
        """Features of a split from the disk."""
        return load(*self._place(data, split, role), data.card(split)["n"])

    def _stored(
        self, data: ImageData, role: Role, device: torch.device
    ) -> tuple[Features, dict[str, Any]]:
        """Features of a split and its card; from the disk if these very pixels were seen before."""
        return self._split_features(data, SPLITS[role], role, device)

    def _split_features(
        self, data: ImageData, split: Split, role: str, device: torch.device
    ) -> tuple[Features, dict[str, Any]]:
        card = data.card(split)
        if card["fingerprint"] is not None:
            kept = self._kept(data, split, role)
            if kept is not None:
                return kept, card
        features, sha256 = self._seen(data, split, role, device)
        if card["fingerprint"] is None:  # nobody had seen all of it until now
            return features, {**card, "fingerprint": sha256}
        save(*self._place(data, split, role), features)
        return features, card

    def _seen(
        self, data: ImageData, split: Split, role: str, device: torch.device
    ) -> tuple[Features, str]:
        """Features of a split's images, and the sha256 of those that this process has seen."""
        pixels, sha256 = data.pixels(split), hashlib.sha256()
        # a split without a fingerprint gets it from one process that sees all of it
        share = self._share if data.card(split)["fingerprint"] is not None else Share()
        starts = range(0, len(pixels), self.batch_size)

        def batches() -> Iterator[Tensor]:
            for number in share.of(len(starts)):
                batch = pixels[starts[number] : starts[number] + self.batch_size].copy()
                sha256.update(batch.data)
                yield torch.from_numpy(batch)

        features = self._extract(batches(), data.levels, device)
        return share.gather(role, features), sha256.hexdigest()

    def _generated(
        self,
        model: GenerativeModel,
        data: ImageData,
        device: torch.device,
        num_samples: int,
        seed: int,
    ) -> Features | None:
        """Features of generated images; None if one of these is not finite."""
        latents = model.latents(num_samples, torch.Generator().manual_seed(seed))
        parts = torch.split(latents, self.batch_size)
        clock = _Clock(device)
        finite = True

        def batches() -> Iterator[Tensor]:
            nonlocal finite
            for number in self._share.of(len(parts)):
                z = parts[number]
                with clock.timing(len(z)):
                    images = model.sample(z.to(device))
                finite = finite and bool(images.isfinite().all())
                yield data.to_pixels(images)

        own = self._extract(batches(), data.levels, device)
        if not finite:  # features of clamped pixels are finite
            own.features.fill_(math.nan)
        features = self._share.gather("fake", own)
        self.sample_images_per_second = clock.images_per_second
        return features if bool(features.features.isfinite().all()) else None

    def _extract(self, batches: Iterator[Tensor], levels: int, device: torch.device) -> Features:
        found = [self.extractor(pixels.to(device), levels) for pixels in batches]
        if not found:
            return Features(torch.empty(0, 0), torch.empty(0, 0))
        return Features(
            torch.cat([batch.features.float().cpu() for batch in found]),
            torch.cat([batch.logits.float().cpu() for batch in found]),
        )

    # --- scores ---------------------------------------------------------------------------------

    def _scores(
        self,
        sets: Mapping[Role, Features],
        cards: Mapping[Role, Mapping[str, Any]],
        device: torch.device,
    ) -> list[Score]:
        where = torch.device("cpu") if device.type == "mps" else device  # it has no float64
        moved = {
            role: Features(part.features.to(where), part.logits.to(where))
            for role, part in sets.items()
        }
        scores = []
        labelled = moved["real"].logits.shape[1] > 0
        for metric in self.metrics:
            if metric.needs_labels and not labelled:
                continue
            metric.reset()
            for role, part in moved.items():
                metric.update(part, role)
            known = any(set(q.sets) <= set(sets) for q in metric.quantities)
            estimates: Mapping[str, Estimate] = metric.compute() if known else {}
            metric.reset()
            for quantity in metric.quantities:
                scores.append(self._score(quantity, estimates.get(quantity.name), metric, cards))
        return scores

    def _score(
        self,
        quantity: Quantity,
        estimate: Estimate | None,
        metric: FeatureMetric,
        cards: Mapping[Role, Mapping[str, Any]],
    ) -> Score:
        card: dict[str, Any] = {
            "quantity": quantity.name,
            "estimator": {"name": type(metric).__name__, **metric.estimator},
            "extractor": dict(self.extractor.card),
        }
        card.update({role: dict(cards[role]) for role in quantity.sets})
        if estimate is not None and not math.isfinite(estimate.value):
            estimate = None
        return Score(
            name=score_name(quantity.name, self.extractor),
            value=estimate.value if estimate else None,
            unit=quantity.unit,
            higher_is_better=quantity.higher_is_better,
            card=card,
            low=estimate.low if estimate else None,
            high=estimate.high if estimate else None,
            status="ok" if estimate else "nonfinite",
        )


def score_name(quantity: str, extractor: Extractor) -> str:
    """Name a quantity by its extractor; the names of the papers are for the papers' features.

    `fid`, `kid` and `is` need the 2015 Inception with its own resizing, `fid_clean` that of Pillow.
    """
    card = extractor.card
    family, _, rest = quantity.partition("_")
    suffix = RESERVED.get(str(card.get("resize")))
    papers = str(card.get("sha256", "")).startswith(INCEPTION) and suffix is not None
    if papers and family in PAPER_NAMES:
        return f"{PAPER_NAMES[family]}{suffix}{'_' if rest else ''}{rest}"
    return f"{quantity}_{extractor.name}"


@contextmanager
def _undisturbed(model: GenerativeModel, device: torch.device, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, full float32, random draws of its own; everything restored."""
    modes = [(module, module.training) for module in model.modules()]
    matmul = torch.get_float32_matmul_precision()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    try:
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            torch.set_float32_matmul_precision("highest")
            torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        for module, training in modes:
            module.training = training


class _Clock:
    """Time of generation alone; the first batch, which warms up, counts only if there is no other."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.laps = device, list[tuple[int, float]]()

    @contextmanager
    def timing(self, images: int) -> Iterator[None]:
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        self.laps.append((images, time.perf_counter() - began))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def images_per_second(self) -> float | None:
        laps = self.laps[1:] or self.laps
        seconds = sum(lap for _, lap in laps)
        return sum(images for images, _ in laps) / seconds if seconds else None

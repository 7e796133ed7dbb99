"""Features of a dataset's splits: from the disk if these pixels were seen before, else extracted."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from genbench.data.contract import ImageData, Split
from genbench.metrics.contract import Extractor, Features
from genbench.metrics.feature_cache import KEYS, FeatureCache
from genbench.metrics.feature_workers import ALONE, FeatureWorkers
from genbench.metrics.stopwatch import Stopwatch


class FeatureStore:
    """Runs the extractor on `device` in batches of `batch_size`; caches the features of splits.

    Each of several `workers` extracts whole consecutive batches, so that the result is bit for bit
    that of one process.
    """

    def __init__(
        self,
        extractor: Extractor,
        cache: FeatureCache,
        workers: FeatureWorkers,
        *,
        batch_size: int,
        device: torch.device,
        watch: Stopwatch | None = None,
    ) -> None:
        self.watch = watch or Stopwatch()
        self.extractor, self.cache, self.workers = extractor.to(device), cache, workers
        self.batch_size, self.device = batch_size, device

    def of(self, data: ImageData, split: Split) -> tuple[Features, dict[str, Any]]:
        """Features of a split in index order, float32 on the CPU, and the split's card.

        A split that is decoded on demand has no fingerprint: it gets the sha256 of its pixels here,
        from this process alone, which reads all of them; its features are not cached.
        """
        card = data.card(split)
        if card["fingerprint"] is None:
            features, sha256 = self._read(data, split, ALONE)
            return features, {**card, "fingerprint": sha256}
        kept = self.cache.load(data, split)
        if kept is None:
            kept, _ = self._read(data, split, self.workers)
            self.cache.save(data, split, kept)
        return kept, card

    def contribute(self, data: ImageData, split: Split) -> None:
        """Extract this worker's batches of a split and pass them to the first worker."""
        self._read(data, split, self.workers)

    def extract(self, batches: Iterable[Tensor], levels: int) -> Features:
        """Features of batches of level indices (N, C, H, W) uint8, float32 on the CPU."""
        found = []
        for pixels in batches:
            with self.watch.timing("features"):
                batch = self.extractor(pixels.to(self.device), levels)
                found.append(Features(batch.features.float().cpu(), batch.logits.float().cpu()))
        if not found:
            return Features(torch.empty(0, 0), torch.empty(0, 0))
        return Features(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _read(self, data: ImageData, split: Split, workers: FeatureWorkers) -> tuple[Features, str]:
        """Features of a split, and the sha256 of the pixels that this process has read."""
        pixels, sha256 = data.pixels(split), hashlib.sha256()
        starts = range(0, len(pixels), self.batch_size)

        def batches() -> Iterator[Tensor]:
            for number in workers.own(len(starts)):
                batch = pixels[starts[number] : starts[number] + self.batch_size].copy()
                sha256.update(batch.data)
                yield torch.from_numpy(batch)

        own = self.extract(batches(), data.levels)
        return workers.gather(KEYS[split], own), sha256.hexdigest()

"""Features of whole splits on disk, under a key that holds everything they depend on."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from genbench.data.contract import ImageData, Split
from genbench.metrics.contract import Extractor, Features
from genbench.runs.files import atomic_write
from genbench.runs.score import digest

log = logging.getLogger("genbench")

# what each split is called in file names and keys: renaming one would orphan every cache
KEYS: dict[Split, str] = {"train": "real", "validation": "validation", "test": "heldout"}


class FeatureCache:
    """Files in `folder`, one for each extractor and split: `<extractor>-<dataset>-<key>-<digest>`.

    The key contains the extractor's card and the split's, hence the sha256 of the weights and of
    the pixels: a changed pixel or weight is another file. Only splits with a fingerprint have one.
    """

    def __init__(self, folder: Path, extractor: Extractor) -> None:
        self.folder, self.extractor = folder, extractor
        self._read: dict[Path, Features] = {}  # or written: handed out again as they are

    def load(self, data: ImageData, split: Split) -> Features | None:
        """Features of a split, float32 on the CPU, the same objects each time; None if there are none.

        That is if they are not on disk, or damaged.
        """
        path, identity = self._place(data, split)
        if path in self._read or not path.exists():
            return self._read.get(path)
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                features = Features(file.get_tensor("features"), file.get_tensor("logits"))
        except (OSError, SafetensorError) as error:
            log.warning("%s is damaged and made anew: %s", path, error)
            return None
        sound = (
            metadata.get("identity") == json.dumps(identity, sort_keys=True)
            and metadata.get("sha256") == _checksum(features)
            and len(features.features) == data.card(split)["n"]
        )
        if not sound:
            log.warning("%s is damaged and made anew", path)
            return None
        self._read[path] = features
        return features

    def save(self, data: ImageData, split: Split, features: Features) -> None:
        """Write features atomically; if the disk is full or read-only, log it and go on without."""
        path, identity = self._place(data, split)
        self._read[path] = features
        metadata = {"identity": json.dumps(identity, sort_keys=True), "sha256": _checksum(features)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {name: part.contiguous() for name, part in features._asdict().items()}
            with atomic_write(path, sync=False) as temporary:  # damage is noticed by the checksum
                save_file(tensors, temporary, metadata)
        except (OSError, SafetensorError) as error:
            log.warning("features are not cached: %s", error)

    def _place(self, data: ImageData, split: Split) -> tuple[Path, Mapping[str, Any]]:
        key = KEYS[split]
        identity = {"extractor": dict(self.extractor.card), "data": data.card(split), "role": key}
        name = f"{self.extractor.name}-{data.name}-{key}-{digest(identity, 24)}.safetensors"
        return self.folder / name, identity


def _checksum(features: Features) -> str:
    sha256 = hashlib.sha256()
    for part in features:
        sha256.update(str(tuple(part.shape)).encode())
        sha256.update(part.contiguous().numpy().data)
    return sha256.hexdigest()

"""Features of a split on disk, under a key that holds all they depend on."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from genbench.metrics.contract import Features

log = logging.getLogger("genbench")


# --- features on disk -------------------------------------------------------------------------
def _checksum(features: Features) -> str:
    sha256 = hashlib.sha256()
    for part in features:
        sha256.update(str(tuple(part.shape)).encode())
        sha256.update(part.contiguous().numpy().data)
    return sha256.hexdigest()


def save(path: Path, identity: Mapping[str, Any], features: Features) -> None:
    """Keep features for the next run, whole or not at all; without room there is just no cache."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    metadata = {"identity": json.dumps(identity, sort_keys=True), "sha256": _checksum(features)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in features._asdict().items()}, temporary, metadata)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        log.warning("features are not cached: %s", error)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: Path, identity: Mapping[str, Any], n: int) -> Features | None:
    """Features of these very images, or None: then they are computed anew."""
    if not path.exists():
        return None
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
        and len(features.features) == n
    )
    if not sound:
        log.warning("%s is damaged and made anew", path)
    return features if sound else None

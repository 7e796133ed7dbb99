"""The decoders of a dataset's methods as data for the latent walk of a page. Imports no torch."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genbench.comparison.rows import Row
from genbench.runs.walk import KeptDecoder, read_decoder

MOST_BYTES = 8_000_000  # of weights on a page, which writes 4 characters for 3 bytes
MOST_OF_MIXTURE = 500_000  # numbers; a mixture of more is left out
FILLED_BY = "genbench sample {run} --walk"


@dataclass(frozen=True)
class Walk:
    """What the page's script decodes, one after another, and why other methods are not among it."""

    decoders: Sequence[Mapping[str, Any]]
    absent: Sequence[str]

    @property
    def labels(self) -> list[str]:
        """The methods that are decoded."""
        return [str(decoder["label"]) for decoder in self.decoders]

    @property
    def has_mixture(self) -> bool:
        """Whether one of them has a fitted mixture to draw from."""
        return any(decoder["mixture"] for decoder in self.decoders)

    def told(self, kind: str) -> Mapping[str, Any]:
        """The labels to choose from: those of the decoders that know a `class`, or `attributes`; empty without any.

        With `none` where one of them knows it.
        """
        found = [d["labels"] for d in self.decoders if d["labels"] and d["labels"]["kind"] == kind]
        return {**found[0], "none": any(one["none"] for one in found)} if found else {}

    @property
    def is_told(self) -> bool:
        """Whether a decoder knows labels."""
        return any(decoder["labels"] for decoder in self.decoders)


def walk_of(
    rows: Sequence[Row], directories: Mapping[str, Path], room: int = MOST_BYTES
) -> Walk | None:
    """The decoder of each row's first seed, as long as there is `room`; None without rows."""
    found: list[Mapping[str, Any]] = []
    absent: list[str] = []
    for row in rows:
        if not row.runs:
            continue
        run = directories[row.runs[0].run_id]
        kept = read_decoder(run)
        if isinstance(kept, KeptDecoder) and (other := _others(kept, found)):
            absent.append(f"{row.label}: its labels are other ones than those of {other}")
        elif isinstance(kept, KeptDecoder) and len(kept.weights) <= room:
            room -= len(kept.weights)
            found.append(_decoder(row.label, kept, run))
        else:
            absent.append(f"{row.label}: {_why(kept, run)}")
    return Walk(found, absent) if found or absent else None


def size_of(walk: Walk | None) -> int:
    """Bytes of its decoders' weights."""
    return sum(2 * decoder["weights"] for decoder in walk.decoders) if walk else 0


def _others(kept: KeptDecoder, found: Sequence[Mapping[str, Any]]) -> str | None:
    """The method among those found whose classes, or attributes, are other ones; None without any."""
    own = kept.card.get("labels")
    for decoder in found:
        known = decoder["labels"]
        if own and known and known["kind"] == own["kind"] and known["names"] != own["names"]:
            return str(decoder["label"])
    return None


def _why(kept: KeptDecoder | str | None, run: Path) -> str:
    if kept is None:
        return (
            f"its run keeps no decoder for this page; `{FILLED_BY.format(run=run.name)}` writes it"
        )
    if isinstance(kept, str):
        return kept
    return f"the decoders of this page have {MOST_BYTES // 1_000_000} MB already, and it comes after them"


def _decoder(label: str, kept: KeptDecoder, run: Path) -> Mapping[str, Any]:
    card = kept.card
    own = {key: card[key] for key in ("latent_dim", "image_size", "channels", "layers", "output")}
    data = base64.b64encode(kept.weights).decode()
    weights = len(kept.weights) // 2
    mixture = _mixture(run, str(card["of"]), int(card["latent_dim"]))
    told = {"labels": card.get("labels"), "mixture": mixture}
    return {"label": label, **own, "weights": weights, "data": data, **told}


def _mixture(run: Path, weights: str, dims: int) -> Mapping[str, Any] | None:
    """The run's mixture that was fitted to these weights; None where it keeps none, or a damaged one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    for path in sorted((run / "priors").glob("mixture-*.json")):
        try:
            if json.loads(path.read_text(encoding="utf-8"))["weights"] != weights:
                continue
            tensors = load_file(path.with_suffix(".safetensors"))
            shares, means, scales = (tensors[name] for name in ("weights", "means", "scales"))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            continue
        rows, columns = np.tril_indices(dims)
        values = np.concatenate([means, scales[:, rows, columns]], axis=1).ravel()
        if len(values) <= MOST_OF_MIXTURE:
            data = base64.b64encode(values.astype("<f2").tobytes()).decode()
            return {"cumulative": np.cumsum(shares).round(6).tolist(), "data": data}
    return None

"""A run's decoder for the latent walk of a report: its folder `walk`, a card and the weights. No torch.

The card says why there are no weights, where there are none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genbench.runs.files import atomic_write, write_json

FOLDER, VERSION = "walk", 1
CARD = "decoder.json"
WEIGHTS = "decoder.f16"  # float16, little endian, in the order of the layers, labels last
LEFT_OUT = "left_out"  # key of a card without weights


class KeptDecoder(NamedTuple):
    """A decoder as plain layers: card with `layers`, `output`, `latent_dim`, the image's shape; weights.

    A conditional one has `labels` too: `kind`, `names`, `width`, whether it knows `none`.
    """

    card: Mapping[str, Any]
    weights: bytes


def keep_decoder(run: Path, card: Mapping[str, Any], weights: bytes | None) -> None:
    """Write the weights and then the card, so that there is no card without its weights."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    if weights is None:
        (folder / WEIGHTS).unlink(missing_ok=True)
    else:
        with atomic_write(folder / WEIGHTS) as temporary:
            temporary.write_bytes(weights)
    write_json(folder / CARD, {"version": VERSION, **card})


def read_decoder(run: Path) -> KeptDecoder | str | None:
    """What a run keeps; the reason where it could not be written; None where nothing is, or it is damaged."""
    folder = run / FOLDER
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if card["version"] != VERSION:
            return None
        if LEFT_OUT in card:
            return str(card[LEFT_OUT])
        weights = (folder / WEIGHTS).read_bytes()
        numbers = sum(_weights_of(layer) for layer in card["layers"])
        fits = len(weights) == 2 * (numbers + _weights_of_labels(card.get("labels")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return KeptDecoder(card, weights) if fits else None


def _weights_of(layer: Mapping[str, Any]) -> int:
    """How many weights a layer reads; KeyError for a layer that is not known."""
    kind = layer["kind"]
    if kind == "relu":
        return 0
    if kind == "group_norm":
        return 2 * int(layer["channels"])
    taps = {"linear": 1, "transposed": int(layer.get("kernel", 0)) ** 2}[kind]
    return (int(layer["inputs"]) * taps + 1) * int(layer["outputs"])


def _weights_of_labels(labels: Mapping[str, Any] | None) -> int:
    """How many weights the embedding of labels has: rows as `models.plain_layers.PlainLabels` lays them out."""
    if labels is None:
        return 0
    names = labels["names"]
    sums = {"class": 0, "attributes": 1}[labels["kind"]]
    if sums and len(labels["first"]) != len(names):
        raise ValueError("the attributes to begin with are not one for each name")
    return (len(names) + sums + bool(labels["none"])) * int(labels["width"])

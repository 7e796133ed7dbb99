"""Keeps a model's decoder for the latent walk of a report, and says why where it cannot."""

from pathlib import Path

from genbench.data.contract import ImageData
from genbench.models.contract import GenerativeModel
from genbench.models.plain_layers import CannotBeExported, plain_decoder
from genbench.models.weights import weights_hash
from genbench.runs.walk import LEFT_OUT, keep_decoder


def keep_walk(run: Path, model: GenerativeModel, data: ImageData) -> str | None:
    """Write the decoder of the present weights to the run's folder `walk`; returns why not, or None.

    A model without players is not trained, and has no decoder to look at.
    """
    if not model.players():
        return "it is not trained"
    try:
        found = plain_decoder(model)
    except CannotBeExported as why:
        keep_decoder(run, {LEFT_OUT: str(why)}, None)
        return str(why)
    flat = found.flat()
    card = {
        "latent_dim": model.latent_dim,
        "image_size": data.image_size,
        "channels": data.channels,
        "layers": [dict(layer.card) for layer in found.layers],
        "output": found.output,
        **({} if found.labels is None else {"labels": dict(found.labels.card)}),
        "weights": len(flat),
        "of": weights_hash(model),
        "worst_error": round(found.worst_error, 4),
    }
    keep_decoder(run, card, flat.numpy().astype("<f2").tobytes())
    return None

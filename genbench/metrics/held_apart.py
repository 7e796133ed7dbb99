"""What a model was trained on must not score it."""

from genbench.errors import UserMistake
from genbench.metrics.evaluation import Evaluation
from genbench.models.contract import GenerativeModel


def check_apart(model: GenerativeModel, evaluation: Evaluation) -> None:
    """Refuse to score images in a network that a loss of the model has measured them in.

    The same weights are told by their sha256. Raises UserMistake.
    """
    taught = {sha256: name for name, sha256 in model.loss_networks.items()}
    cards = [evaluation.extractor.card]
    lpips = evaluation.reconstruction and evaluation.reconstruction.lpips
    if lpips and lpips.network is not None:
        cards.append({"name": "lpips", **lpips.card})
    for card in cards:
        if card["sha256"] in taught:
            name = taught[card["sha256"]]
            raise UserMistake(
                f"a loss of {type(model).__name__} measures images in {name}, and a score in the same weights "
                f"({card['name']}, sha256 {card['sha256'][:8]}...) would be one of what it was trained on: "
                "choose another extractor=..., or another network of the loss, or none (model.perceptual=null)"
            )

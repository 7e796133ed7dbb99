"""A model from a config, with labels where `arena.condition` asks for them.

This is the one place where networks get their conditional form: the model's config is rewritten so that
its decoder, the trunks of its encoder and discriminator, and its prior over codes are wrapped
(`networks.conditional`).
"""

import inspect
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from genbench.data.contract import ImageData
from genbench.errors import UserMistake
from genbench.models.condition import Condition, condition_of
from genbench.models.contract import GenerativeModel
from genbench.ranges import whole

_NETWORKS = "genbench.networks.conditional"
LABEL_DIM = 32  # of a label's embedding, where a config does not name it


def make_model(cfg: Any, data: ImageData) -> GenerativeModel:
    """The model of a config, its networks conditional if that is asked for. Raises UserMistake.

    Without a condition the dataset's labels are not read.
    """
    arena = cfg.get("arena") or {}  # older configs name no condition
    condition = condition_of(
        str(arena.get("condition", "none")), arena.get("label_dropout", 0.0), data
    )
    width = arena.get("label_dim", LABEL_DIM)
    whole("arena.label_dim", width)
    if condition is None:
        model: GenerativeModel = instantiate(cfg["model"])
        return model
    plain: Any = OmegaConf.to_container(cfg["model"], resolve=True)
    check_takes_labels(plain, condition.kind)
    rewritten = conditional(plain, condition, width)
    model = instantiate(OmegaConf.create(rewritten))
    model.condition = condition
    return model


def check_takes_labels(model: Mapping[str, Any], kind: str) -> None:
    """Refuse a model whose `step` or `sample` has no argument `labels`. Raises UserMistake."""
    made: Any = get_class(model["_target_"])
    for name in ("step", "sample"):
        if "labels" not in inspect.signature(getattr(made, name)).parameters:
            raise UserMistake(
                f"arena.condition={kind}: {made.__name__} takes no labels: choose arena.condition=none, or a model "
                "that does, such as vae, gan or vae-gan (docs/labels.md has the list)"
            )


def conditional(model: Mapping[str, Any], condition: Condition, width: int) -> dict[str, Any]:
    """The config of a model with conditional networks. Raises UserMistake where one cannot be made so."""
    label = {
        "_target_": f"{_NETWORKS}.Label",
        "count": len(condition.names),
        "width": width,
        "attributes": condition.kind == "attributes",
    }
    decoder = dict(model.get("decoder") or {})
    if "latent_dim" not in decoder:
        raise UserMistake(
            f"arena.condition={condition.kind}: model.decoder has no argument latent_dim that could grow by the "
            "label's embedding: give it one, or choose arena.condition=none"
        )
    latent_dim = decoder["latent_dim"]
    wrapped = {
        "_target_": f"{_NETWORKS}.ConditionalDecoder",
        "network": decoder | {"latent_dim": latent_dim + width},
        "label": label,
        "latent_dim": latent_dim,
    }
    made = {**model, "decoder": wrapped}
    for name, kind in (("encoder", "ConditionalTrunk"), ("discriminator", "ProjectionTrunk")):
        network = made.get(name)
        if (
            network and "trunk" in network
        ):  # a discriminator of latents has none, and knows no label
            trunk = {"_target_": f"{_NETWORKS}.{kind}", "trunk": network["trunk"], "label": label}
            made[name] = {**network, "trunk": trunk}
        elif network and name == "encoder":
            raise UserMistake(
                f"arena.condition={condition.kind}: model.encoder has no argument trunk whose features could take "
                "the label: give it one, or choose arena.condition=none"
            )
    if "tokens" in (made.get("prior") or {}):
        made["prior"] = _told(made["prior"], condition.kind, label)
    return made


def _told(prior: Mapping[str, Any], kind: str, label: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a prior over tokens that is given a label. Raises UserMistake where it has no context."""
    if "context" not in inspect.signature(get_class(prior["_target_"])).parameters:
        raise UserMistake(
            f"arena.condition={kind}: model.prior has no argument context for the label's embedding: give it one, "
            "or choose arena.condition=none"
        )
    network = {**prior, "context": label["width"]}
    return {"_target_": f"{_NETWORKS}.ConditionalPrior", "network": network, "label": label}

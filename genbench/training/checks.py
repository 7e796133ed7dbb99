"""What is refused before training: networks, batches and settings that do not fit together."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm

from genbench.data.contract import ImageData
from genbench.device import is_out_of_memory
from genbench.errors import UserMistake
from genbench.models.batch_statistics import ACROSS, BATCH_NORMS
from genbench.models.condition import example
from genbench.models.contract import GenerativeModel, Move, Reconstructs
from genbench.models.drawing import evaluating
from genbench.ranges import whole
from genbench.runs.files import first_line


def check_fit(model: GenerativeModel, data: ImageData) -> None:
    """Refuse networks that were configured for other images, or other latents, than these."""
    shape = (data.channels, data.image_size, data.image_size)
    whole("model.latent_dim", model.latent_dim, 0)
    try:
        with evaluating(model):
            labels = example(model.condition, 2)
            made = model.sample(model.latents(2, torch.Generator().manual_seed(0)), *labels)
            if isinstance(model, Reconstructs):
                model.reconstruct(torch.zeros(2, *shape), *labels)
    except RuntimeError as error:
        if is_out_of_memory(error):  # training will say what to do
            return
        raise misfit(data, error) from error
    if made.shape[1:] != shape:
        raise UserMistake(
            f"the decoder makes images {tuple(made.shape[1:])}, but {data.name} has {shape}: leave "
            "image_size and channels to the network group"
        )


def misfit(data: ImageData, error: RuntimeError) -> UserMistake:
    """The sentence for networks that cannot compute on a dataset's images."""
    shape = (data.channels, data.image_size, data.image_size)
    return UserMistake(
        f"the networks do not fit {data.name}'s images {shape} or each other's latents: leave "
        f"image_size, channels and latent_dim to the network group ({error})"
    )


def check_sizes(model: GenerativeModel, data: ImageData) -> None:
    """Refuse networks that hold nothing, and more latents than an image has values."""
    for name, network in model.named_children():
        if any(p.numel() == 0 for p in network.parameters()):
            raise UserMistake(
                f"the {name} has a layer of size 0: give its widths and latents 1 or more"
            )
    values = data.channels * data.image_size**2
    if model.players() and model.latent_dim > values:
        raise UserMistake(
            f"arena.latent_dim={model.latent_dim} is above the {values} values of an image of "
            f"{data.name}: choose {values} or fewer"
        )


def check_optimizers(model: GenerativeModel) -> None:
    """Refuse optimizers that cannot be made, such as for a learning rate below 0."""
    for name, player in model.players().items():
        try:
            player.optimizer(player.parameters())
        except (ValueError, TypeError, RuntimeError, LookupError) as error:  # betas=[0.5]
            cause = error.__cause__ or error
            raise UserMistake(
                f"the {name}'s optimizer cannot be made: {first_line(cause)}; see its settings with "
                "`genbench train --cfg job --package model`"
            ) from error


def check_moves(model: GenerativeModel, moves: object) -> None:
    """Refuse a step that yields nothing."""
    if not isinstance(moves, Iterator):
        raise UserMistake(
            f"{type(model).__name__}.step returns {type(moves).__name__}, but it must yield its moves: "
            "`yield Move(player, loss)`, see docs/adding-a-model.md"
        )


def check_move(model: GenerativeModel, move: Move) -> None:
    """Refuse a move of somebody who is no player."""
    players = model.players()
    if move.player not in players:
        raise UserMistake(
            f"{type(model).__name__}.step moves {move.player!r}, but its players are "
            f"{', '.join(players)}"
        )


def check_counted(model: GenerativeModel) -> None:
    """Refuse a model that does not say whose moves are the run's steps."""
    players = model.players()
    if model.counted not in players:
        raise UserMistake(
            f"{type(model).__name__}.counted is {model.counted!r}: name the player that owns the "
            f"decoder, one of {', '.join(players)}"
        )


def check_ranks(model: GenerativeModel) -> None:
    """Refuse networks whose steps depend on the number of ranks, and losses that compare images.

    PyTorch's own BatchNorm sees the images of all of them (`batch_statistics`), not a class of its kind.
    """
    _check_whole(model, "several ranks", "trainer.devices=1")
    for name, network in model.named_children():
        norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS)]
        for norm in norms:
            if type(norm) not in ACROSS:
                raise UserMistake(
                    f"the {name} normalises over its batch by {type(norm).__name__}, which several ranks "
                    "would split: use torch.nn.BatchNorm2d or another norm, or trainer.devices=1"
                )


def check_parts(model: GenerativeModel) -> None:
    """Refuse what sees more in a whole batch than in its parts, and networks that count forwards."""
    _check_whole(model, "trainer.accumulate", "trainer.accumulate=1")
    if name := normalises_over_batch(model):
        own = isinstance(getattr(model, name), BATCH_NORMS)  # the model's, and of no network
        who = type(model).__name__ if own else f"the {name}"
        nets = "network.decoder_norm=group and network.trunk_norm=none"
        raise UserMistake(
            f"{who} normalises over its batch, which trainer.accumulate would split: choose "
            f"{'model.batch_norm=false' if own else nets}, or trainer.accumulate=1"
        )
    for name, network in model.named_children():
        if _has(network, _SpectralNorm):
            raise UserMistake(
                f"the {name} has spectral norm, which follows its weights by a power iteration in every "
                "forward, and trainer.accumulate takes more forwards: choose network.trunk_norm=group or "
                "none, or trainer.accumulate=1"
            )


def check_variance(model: GenerativeModel, batch_size: int) -> None:
    """Refuse a batch of one image where vectors are normalised over it."""
    if batch_size == 1 and _has(model, nn.BatchNorm1d):
        raise UserMistake(
            f"budget.batch_size=1: {type(model).__name__} normalises over its batch, and one image has no variance: "
            "choose 2 or more"
        )


def _check_whole(model: GenerativeModel, splitter: str, remedy: str) -> None:
    if model.compares_images:
        raise UserMistake(
            f"a loss of {type(model).__name__} compares the images of a batch with each other, which "
            f"{splitter} would split: choose {remedy}"
        )


def check_penalty(model: GenerativeModel) -> None:
    """Refuse BatchNorm and spectral norm in a network whose gradient at each image is penalised.

    Under BatchNorm every image's logit would depend on all images of the batch, so that the gradient is
    not that of its own logit. Spectral norm bounds the gradient already, and by another power iteration
    the penalty's forward is that of other weights than the loss's.
    """
    if not model.has_gradient_penalty:
        return
    for name, player in model.players().items():
        if name == model.counted:
            continue
        if any(_has(network, *BATCH_NORMS) for network in player.modules):
            raise UserMistake(
                f"the {name} normalises over its batch, and a penalty on its gradient (model.r1_gamma, "
                "model.gradient_penalty) needs logits that depend on their own image alone: choose "
                "network.trunk_norm=group or none, or weights of 0 for the penalties"
            )
        if any(_has(network, _SpectralNorm) for network in player.modules):
            raise UserMistake(
                f"the {name} has spectral norm, which bounds its gradient and changes in every forward, so "
                "a penalty on that gradient (model.r1_gamma, model.gradient_penalty) is one too many: "
                "choose network.trunk_norm=group or none, or weights of 0 for the penalties"
            )


def normalises_over_batch(model: GenerativeModel) -> str | None:
    """Name of a network with BatchNorm; None if there is none."""
    for name, network in model.named_children():
        if _has(network, *BATCH_NORMS):
            return name
    return None


def _has(network: nn.Module, *kinds: type[nn.Module]) -> bool:
    return any(isinstance(module, kinds) for module in network.modules())


def check_batch(batch_size: int, ranks: int, parts: int) -> None:
    """Refuse a batch that ranks and parts do not divide."""
    if not isinstance(parts, int) or parts < 1:
        raise UserMistake(f"trainer.accumulate={parts} is not a number of parts: give 1 or more")
    if batch_size % (ranks * parts):
        over = f"{ranks} devices" + (f" in {parts} parts each" if parts > 1 else "")
        raise UserMistake(
            f"budget.batch_size={batch_size} cannot be split over {over}: choose a multiple"
        )


def clip_of_players(
    clip: float | Mapping[str, float] | None, model: GenerativeModel
) -> dict[str, float]:
    """Largest gradient norm of each player: one number for all, or some by name."""
    players = list(model.players())
    if clip is None:
        return {}
    named = dict(clip) if isinstance(clip, Mapping) else dict.fromkeys(players, clip)
    for player, norm in named.items():
        if player not in players:
            raise UserMistake(
                f"gradient_clip names {player!r}, but the players of this model are "
                f"{', '.join(players)}"
            )
        if not isinstance(norm, int | float) or norm <= 0:
            raise UserMistake(
                f"gradient_clip={norm!r} for {player} is not a norm: give a number above 0, or null"
            )
    return named

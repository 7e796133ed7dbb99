"""What every model must pass, each with a sentence on what failed: `genbench check-model NAME`.

The checks know nothing of the model but its contract: they take steps on random images and look at whom
they move, by which losses, and from which randomness.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genbench.data.contract import ImageData
from genbench.errors import GenbenchError
from genbench.models.condition import example
from genbench.models.contract import Draws, GenerativeModel, HasPosterior, Reconstructs
from genbench.models.drawing import evaluating
from genbench.runs.files import first_line
from genbench.training.checks import (
    check_counted,
    check_fit,
    check_move,
    check_optimizers,
    check_sizes,
)
from genbench.training.seat import frozen

IMAGES = 8  # in each batch
STEPS = 3  # taken before the states of two models are compared
CLOSE = 1e-3  # relative, of losses whose sums are made in another order
LENGTHS = (1e-2, 1e-3, 1e-4)  # of a step along the gradient, relative to the parameters' own

Make = Callable[[int], GenerativeModel]  # from a seed
Slopes = tuple[Tensor | None, ...]  # gradients; None where a loss does not depend on a parameter


class Verdict(NamedTuple):
    """The name of a check, and what failed in a sentence; empty if nothing did."""

    check: str
    fault: str = ""


class Fault(GenbenchError):
    """What a check finds wrong."""


def verdicts(make: Make, data: ImageData) -> Iterator[Verdict]:
    """Check the models that `make` makes from a seed, on images of the shape that `data` has.

    A check that raises has found a fault; the others are tried all the same.
    """
    for name, check in CHECKS.items():
        try:
            check(make, data)
        except GenbenchError as error:
            yield Verdict(name, str(error))
        except Exception as error:  # a model's code may raise anything
            yield Verdict(name, f"{type(error).__name__}: {first_line(error)}")
        else:
            yield Verdict(name)


# --- checks -------------------------------------------------------------------------------------
def check_parts(make: Make, data: ImageData) -> None:
    """Networks fit the images, optimizers can be made, players are named and share no parameter."""
    model = make(0)
    check_fit(model, data)
    check_sizes(model, data)
    check_optimizers(model)
    check_counted(model)
    owners: dict[int, str] = {}
    for name, player in model.players().items():
        for parameter in player.parameters():
            first = owners.setdefault(id(parameter), name)
            if first != name:
                raise Fault(
                    f"the {first} and the {name} have a parameter in common: give it to one"
                )


def check_routing(make: Make, data: ImageData) -> None:
    """Every player moves, by losses that are finite scalars, and each of its parameters gets a gradient."""
    model, batch = make(0), _images(make(0), data)
    reached: set[int] = set()
    moved: set[str] = set()
    for player, _, slopes in _slopes(model, batch):
        own = _own(model, player)
        reached |= {id(p) for p, slope in zip(own, slopes, strict=True) if slope is not None}
        moved.add(player)
    for name in model.players():
        if name not in moved:
            raise Fault(f"step never yields a move of the {name}, one of players()")
        for parameter in _own(model, name):
            if id(parameter) not in reached:
                raise Fault(
                    f"{_name(model, parameter)} of the {name} gets no gradient from any of its moves: let a "
                    "loss of its own depend on it, or leave it out of players()"
                )


def check_direction(make: Make, data: ImageData) -> None:
    """A short way down its gradient lowers the loss of a move, all else being equal."""
    model, batch = make(0), _images(make(0), data)
    for place, (player, loss, slopes) in enumerate(_slopes(model, batch)):
        if not _descends(model, batch, place, _own(model, player), slopes, loss):
            raise Fault(
                f"a step of the {player} against its gradient does not lower its loss: a sign is "
                "wrong, or the loss is not what is differentiated"
            )


def check_seeds(make: Make, data: ImageData) -> None:
    """Equal seeds give equal models and steps, whatever was drawn in between; other seeds give others."""
    first, same, other = make(0), make(0), make(1)
    if not _equal(first.state_dict(), same.state_dict()):
        raise Fault(
            "two models of one seed have other weights: draw them by torch's generator alone"
        )
    if _equal(first.state_dict(), other.state_dict()):
        raise Fault("models of two seeds have the same weights: draw them by torch's generator")
    batch = _images(first, data)
    torch.manual_seed(1)
    before = _losses(first, batch)
    torch.manual_seed(2)
    if _losses(same, batch) != before:
        raise Fault(
            "the same step has another loss after torch.manual_seed: draw by self.noise and "
            "self.uniform, which depend on seed and step alone"
        )


def check_batch(make: Make, data: ImageData) -> None:
    """A batch with every image twice, and the same draws for both, has the same losses: they are means."""
    model, batch = make(0), _images(make(0), data)
    plain = _slopes(model, batch)
    twice = torch.cat([torch.cat([part, part]) for part in batch.chunk(model.discriminator_steps)])
    draws = model.draws
    model.draws = _Doubled(draws)
    doubled = _losses(model, twice)
    model.draws = draws
    for (player, once, _), both in zip(plain, doubled, strict=True):
        if abs(both - once) > CLOSE * max(1.0, abs(once)):
            raise Fault(
                f"the loss of the {player} is {once:.6g}, and {both:.6g} for a batch with every image twice: "
                "return a mean over images"
            )


def check_resume(make: Make, data: ImageData) -> None:
    """A model with the saved weights of another goes on as that one does: no state is beside them."""
    model, batch = make(0), _images(make(0), data)
    for step in range(STEPS):
        _take(model, batch, step)
    again = make(1)
    again.load_state_dict(model.state_dict())
    expected, found = _losses(model, batch, STEPS), _losses(again, batch, STEPS)
    if found != expected:
        raise Fault(
            f"a step of a model that got the weights of another one has losses {found}, and the other one "
            f"{expected}: keep what training changes in parameters and buffers (register_buffer)"
        )


def check_sampling(make: Make, data: ImageData) -> None:
    """Without data, `sample` makes images of the right shape in [-1, 1], each from its own latent alone."""
    model = make(0)
    z = model.latents(4, torch.Generator().manual_seed(0))
    shape = (4, data.channels, data.image_size, data.image_size)
    with evaluating(model):
        labels = example(model.condition, 4)
        images = model.sample(z, *labels)
        _check_images("sample", images, shape)
        torch.manual_seed(3)
        if not torch.equal(images, model.sample(z, *labels)):
            raise Fault("sample(z) differs from call to call: let it depend on z alone")
        if not torch.allclose(images[:2], model.sample(z[:2], *(y[:2] for y in labels)), atol=1e-4):
            raise Fault("sample(z) of a latent depends on the others of its batch in eval mode")
        if isinstance(model, Reconstructs):
            _check_images("reconstruct", model.reconstruct(torch.zeros(shape), *labels), shape)
        if isinstance(model, HasPosterior):
            for one in model.posterior(torch.zeros(shape), *labels):
                if one.shape != (4, model.latent_dim):
                    raise Fault(
                        f"posterior gives {tuple(one.shape)}: mean and log variance are (N, latent_dim) "
                        f"each, here {(4, model.latent_dim)}"
                    )


CHECKS: Mapping[str, Callable[[Make, ImageData], None]] = {
    "parts": check_parts,
    "routing": check_routing,
    "direction": check_direction,
    "seeds": check_seeds,
    "batch doubling": check_batch,
    "resume": check_resume,
    "sampling without data": check_sampling,
}


# --- steps --------------------------------------------------------------------------------------
class _Doubled(Draws):
    """Draws of another, each row twice: for a batch that has every image twice."""

    def __init__(self, plain: Draws) -> None:
        super().__init__(plain.seed, plain.device)

    def __call__(self, draw: Callable[..., Tensor], n: int, shape: Any) -> Tensor:
        half = super().__call__(draw, -(-n // 2), shape)
        return torch.cat([half, half])[:n]


def _images(model: GenerativeModel, data: ImageData) -> Tensor:
    """Random images of the dataset's levels, for one step: (N, C, H, W) in [-1, 1]."""
    shape = (IMAGES * model.discriminator_steps, data.channels, data.image_size, data.image_size)
    levels = torch.randint(data.levels, shape, generator=torch.Generator().manual_seed(0))
    return data.to_images(levels)


def _slopes(
    model: GenerativeModel, batch: Tensor, step: int = 0
) -> list[tuple[str, float, Slopes]]:
    """(player, loss, gradients of its parameters) of every move of a step; nobody is moved.

    Statistics of norms stay as they were.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.draws.begin(step)
    found: list[tuple[str, float, Slopes]] = []
    for move in model.step(batch, *_labels(model, batch)):
        check_move(model, move)
        loss = _loss(model, move.player, move.loss)
        slopes = torch.autograd.grad(loss, _own(model, move.player), allow_unused=True)
        found.append((move.player, float(loss.detach()), slopes))
    for name, buffer in model.named_buffers():
        buffer.data = buffers[name]
    return found


def _labels(model: GenerativeModel, batch: Tensor) -> tuple[Tensor, ...]:
    """Labels for random images: the same ones for each piece, and for both copies of one that is doubled."""
    drawn = example(model.condition, IMAGES)
    places = torch.cat(
        [torch.arange(len(p)) % IMAGES for p in batch.chunk(model.discriminator_steps)]
    )
    return tuple(own[places] for own in drawn)


def _losses(model: GenerativeModel, batch: Tensor, step: int = 0) -> list[float]:
    """The losses of the moves of a step, in order; nobody is moved."""
    return [loss for _, loss, _ in _slopes(model, batch, step)]


def _own(model: GenerativeModel, player: str) -> list[nn.Parameter]:
    """The parameters of a player that are trained."""
    return [p for p in model.players()[player].parameters() if p.requires_grad]


def _loss(model: GenerativeModel, player: str, loss: Callable[[], Tensor]) -> Tensor:
    players = model.players()
    own = {id(p) for p in players[player].parameters()}
    others = [p for one in players.values() for p in one.parameters() if id(p) not in own]
    with frozen(others):
        value = loss()
    if not isinstance(value, Tensor) or value.shape != () or not bool(value.isfinite()):
        raise Fault(f"the loss of the {player} is {value!r}: it must be a finite scalar tensor")
    return value


def _take(model: GenerativeModel, batch: Tensor, step: int) -> None:
    """Take a step with plain gradient descent."""
    model.draws.begin(step)
    for move in model.step(batch, *_labels(model, batch)):
        own = _own(model, move.player)
        slopes = torch.autograd.grad(_loss(model, move.player, move.loss), own, allow_unused=True)
        flat = _filled(own, slopes)
        _shift(own, flat, -LENGTHS[0] * _unit(own, flat))


def _descends(
    model: GenerativeModel,
    batch: Tensor,
    place: int,
    own: list[nn.Parameter],
    slopes: Slopes,
    before: float,
) -> bool:
    """Whether some step of LENGTHS lowers the loss of the move at `place`; the model stays as it was."""
    flat = _filled(own, slopes)
    unit = _unit(own, flat)
    if not unit:
        return True  # nothing to descend: `routing` says so
    for length in LENGTHS:
        _shift(own, flat, -length * unit)
        after = _losses(model, batch)[place]
        _shift(own, flat, length * unit)
        if after < before:
            return True
    return False


def _filled(own: list[nn.Parameter], slopes: Slopes) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for p, g in zip(own, slopes, strict=True)]


def _unit(own: list[nn.Parameter], gradients: list[Tensor]) -> float:
    """The factor that makes gradients as long as the parameters are; 0 if there are none."""
    size, steepness = (
        float(torch.stack([one.detach().norm() for one in tensors]).norm())
        for tensors in (own, gradients)
    )
    return size / steepness if steepness else 0.0


@torch.no_grad()
def _shift(own: list[nn.Parameter], gradients: list[Tensor], scale: float) -> None:
    for parameter, gradient in zip(own, gradients, strict=True):
        parameter.add_(scale * gradient)


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def _check_images(what: str, images: Tensor, shape: tuple[int, ...]) -> None:
    if images.shape != shape:
        raise Fault(f"{what} gives {tuple(images.shape)}: images here are {shape}")
    if not bool(images.isfinite().all()) or float(images.abs().max()) > 1:
        raise Fault(
            f"{what} gives values from {float(images.min()):.4g} to {float(images.max()):.4g}: images are "
            "within [-1, 1], as after tanh"
        )


def _name(model: GenerativeModel, parameter: nn.Parameter) -> str:
    return next((n for n, p in model.named_parameters() if p is parameter), "a parameter")

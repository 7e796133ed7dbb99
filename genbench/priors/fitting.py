"""Priors fitted to one checkpoint, and kept in the run's folder priors/: tensors, and a card beside them."""

import copy
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genbench.data.contract import ImageData
from genbench.data.subsets import chosen, subset_card
from genbench.errors import UserMistake
from genbench.losses.variational import reparameterize
from genbench.models.contract import (
    DrawsPosterior,
    Encodes,
    GenerativeModel,
    HasPosterior,
    HasTokens,
    draws_standard_normal,
)
from genbench.models.undisturbed import undisturbed
from genbench.models.weights import weights_hash
from genbench.priors.contract import CannotBeFitted, Prior
from genbench.runs import trust
from genbench.runs.config import read_config
from genbench.runs.files import atomic_write, write_json
from genbench.runs.priors import slug
from genbench.runs.score import digest

log = logging.getLogger("genbench")
FOLDER = "priors"  # in a run's folder
ENCODED_AT_ONCE = 500  # images


@dataclass(frozen=True)
class FittedPrior:
    """A prior that was fitted to one checkpoint. `card` says to what, by which seed and how long it took.

    `protocol` is the part of it that is equal for all models: it goes into the cards of scores. `stem` is
    the name of its files.
    """

    prior: Prior
    card: Mapping[str, Any]

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Kind, settings, codes, seed and version."""
        protocol: Mapping[str, Any] = self.card["protocol"]
        return protocol

    @property
    def stem(self) -> str:
        """Its name, and a hash of its protocol and of the weights."""
        return _stem(self.protocol, self.card["weights"])

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw latents (n, d) on the CPU."""
        return self.prior.draw(n, generator)


@contextmanager
def drawing_from(model: GenerativeModel, fitted: FittedPrior | None) -> Iterator[None]:
    """Within: `model.latents` draws from a fitted prior. With None nothing changes."""
    if fitted is None:
        yield
        return
    vars(model)["latents"] = fitted.draw
    try:
        yield
    finally:
        del vars(model)["latents"]


def check_priors(priors: Sequence[Prior], model: GenerativeModel, data: ImageData) -> None:
    """Refuse priors that this model cannot have, before it is trained. Raises UserMistake."""
    for prior in priors:
        name = type(model).__name__
        if prior.needs_codes and model.condition is not None:
            raise UserMistake(
                f"prior={prior.kind} is fitted to the codes of all labels together, and this model is told labels "
                f"(arena.condition={model.condition.kind}), each with codes of its own: choose prior=normal or "
                "prior=truncated"
            )
        if prior.needs_tokens and not isinstance(model, HasTokens):
            raise UserMistake(
                f"prior={prior.kind} is over the tokens of a quantised autoencoder, and {name} has none: choose "
                "model=vq or model=fsq, or prior=mixture for a model with an encoder"
            )
        continuous = prior.needs_codes and not prior.needs_tokens
        if continuous and isinstance(model, HasTokens):
            raise UserMistake(
                f"prior={prior.kind} is fitted to continuous codes, and those of {name} are tokens: choose "
                "prior=autoregressive or prior=normal"
            )
        if continuous and not isinstance(model, HasPosterior | DrawsPosterior | Encodes):
            raise UserMistake(
                f"prior={prior.kind} is fitted to codes, and {name} has no encoder that gives any: choose "
                "prior=truncated or prior=normal, or a vae or a vae-gan"
            )
        if not prior.needs_codes and not draws_standard_normal(model):
            raise UserMistake(
                f"prior={prior.kind} changes draws of N(0, I), and {name} draws its latents otherwise: "
                "choose prior=normal"
            )
        images, draws = _sizes(data, prior)
        prior.check(images * draws)


def fit(prior: Prior, model: GenerativeModel, data: ImageData) -> FittedPrior:
    """Fit to the model's present weights; the same fit for the same weights, on every machine load.

    Call it outside of training and where no BatchNorm is recalibrated: it is the encoder of the
    checkpoint that gives the codes. Raises CannotBeFitted for codes that have no such prior.
    """
    check_priors([prior], model, data)
    began, prior = time.perf_counter(), copy.copy(prior)  # it may be fitted to other weights too
    protocol, weights = _protocol(prior, data), weights_hash(model)
    codes = _codes(prior, model, data)
    if isinstance(model, HasTokens):
        prior.alphabet = model.alphabet.detach().cpu()
    generator = _generator(prior, "fit")
    prior.fit(codes, generator)
    card = {
        "class": _class_name(type(prior)),
        "arguments": prior.arguments,
        "protocol": protocol,
        "weights": weights,
        "parameters": prior.parameters,
        "seconds": round(time.perf_counter() - began, 3),
        "codes": len(codes),
        "found": prior.found,
        "versions": {name: version(name) for name in ("torch", "scikit-learn")},
    }
    return FittedPrior(prior, card)


def kept_or_fitted(
    prior: Prior, model: GenerativeModel, data: ImageData, run: Path | None
) -> FittedPrior:
    """The fit to these weights that the run keeps, else a new one, which it keeps from now on.

    Raises UserMistake where the kept one is of other weights.
    """
    if run is None:
        return fit(prior, model, data)
    check_priors([prior], model, data)
    stem = _stem(_protocol(prior, data), weights_hash(model))
    found = read_fit(run, stem, model, [prior])
    if found is None:
        found = fit(prior, model, data)
        keep(found, run)
    return found


def keep(fitted: FittedPrior, run: Path) -> None:
    """Write tensors and then the card, so that there is no card without tensors."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in fitted.prior.fitted.items()}
    with atomic_write(folder / f"{fitted.stem}.safetensors") as temporary:
        save_file(tensors, temporary)
    write_json(folder / f"{fitted.stem}.json", dict(fitted.card))


def read_fit(
    run: Path, stem: str, model: GenerativeModel, asked: Sequence[Prior] = ()
) -> FittedPrior | None:
    """What a run keeps under `stem`; None if that is nothing, or damaged.

    `asked` are the priors of the command, whose classes a card may name although the run's config does not.
    Raises UserMistake where it was fitted to other weights than the model's.
    """
    path = run / FOLDER / f"{stem}.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        prior: Prior = _class_of(card, run, asked)(**card["arguments"])
        prior.tensors, prior.found = load_file(path.with_suffix(".safetensors")), card["found"]
        fitted, weights = FittedPrior(prior, card), str(card["weights"])
    except FileNotFoundError:
        return None
    except UserMistake:
        raise
    except Exception as error:  # safetensors raises an exception of its own
        log.warning("%s is damaged and made anew: %s", path, error)
        return None
    own = weights_hash(model)
    if weights != own:
        raise UserMistake(
            f"{path} was fitted to the codes of another checkpoint ({weights[:12]}), and its draws say "
            f"nothing of these weights ({own[:12]}): delete it, and `genbench evaluate {run.name} "
            f"prior={prior.kind}` fits a new one"
        )
    return fitted


def _class_of(card: Mapping[str, Any], run: Path, asked: Sequence[Prior]) -> type[Prior]:
    """The class that a card names: genbench's, a plug-in's, one of the command's or of the run's own config.

    The config was looked at before the run was built, a card was not. Raises UserMistake for another class.
    """
    name = str(card["class"])
    for kind in map(type, asked):
        if name == _class_name(kind):
            return kind
    own = read_config(run).get("prior") or {} if (run / "config.yaml").exists() else {}
    if trust.is_known(name) or name in {part.what for part in trust.parts(own)}:
        found = locate(name)
        if isinstance(found, type) and issubclass(found, Prior):
            return found
    raise UserMistake(
        f"{run.name} keeps a prior of the class {name}, which is none of genbench's, of an installed plug-in's "
        f"or of the run's config: delete its folder {FOLDER}, and fit one again"
    )


def _class_name(kind: type[Prior]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def kept(run: Path, stem: str, model: GenerativeModel, asked: Sequence[Prior] = ()) -> FittedPrior:
    """What a run keeps under `stem`, whole or its beginning; of several the one of the model's weights.

    For `asked` see `read_fit`. Raises UserMistake unless there is just one such fit.
    """
    stems = sorted(path.stem for path in (run / FOLDER).glob("*.json"))
    called = [name for name in stems if name == stem] or [n for n in stems if n.startswith(stem)]
    own = [name for name in called if _weights_of(run, name) == weights_hash(model)]
    alone = len(own or called) == 1
    found = read_fit(run, (own or called)[0], model, asked) if alone else None
    if found is not None:
        return found
    several = f"several priors called {stem}" if len(own) > 1 else f"no prior {stem}"
    there = f"there are {', '.join(own or stems)}" if stems else "none was fitted yet"
    raise UserMistake(
        f"{run.name} keeps {several} for these weights: {there}; `genbench evaluate {run.name} "
        f"prior=mixture` fits one"
    )


def _weights_of(run: Path, stem: str) -> str:
    try:
        card = json.loads((run / FOLDER / f"{stem}.json").read_text(encoding="utf-8"))
        return str(card["weights"])
    except (OSError, ValueError, KeyError):
        return ""


def _stem(protocol: Mapping[str, Any], weights: str) -> str:
    return f"{slug(protocol)}-{digest([protocol, weights], 8)}"


def _protocol(prior: Prior, data: ImageData) -> dict[str, Any]:
    """What defines the prior, equal for all models and seeds."""
    protocol: dict[str, Any] = {"prior": prior.kind, "settings": dict(prior.settings)}
    if prior.needs_codes:
        images, draws = _sizes(data, prior)
        of = {"images": subset_card(data, "train", images), "draws": draws}
        protocol |= {"codes": of, "seed": prior.seed}
    return protocol | {"version": prior.version}


def _sizes(data: ImageData, prior: Prior) -> tuple[int, int]:
    """Training images, and draws of each, that make about as many codes as the prior asks for."""
    images = min(prior.codes, len(data.pixels("train")))
    return images, 1 if prior.needs_tokens else max(1, prior.codes // max(1, images))


def _codes(prior: Prior, model: GenerativeModel, data: ImageData) -> Tensor:
    """Draws from q(z | x), the draws of an image together; none where the prior needs none."""
    if not prior.needs_codes:
        return torch.empty(0, model.latent_dim)
    images, draws = _sizes(data, prior)
    numbers, generator = torch.from_numpy(chosen(data, "train", images)), _generator(prior, "codes")
    found = []
    with undisturbed(model, model.device, prior.seed):
        for part in torch.split(numbers, ENCODED_AT_ONCE):
            pixels = torch.from_numpy(data.pixels("train")[part.numpy()])
            shown = data.to_images(pixels.to(model.device))
            found.append(_encoded(model, shown, draws, generator))
    codes = torch.cat(found)
    if not bool(codes.isfinite().all()):
        raise CannotBeFitted(
            f"prior={prior.kind} cannot be fitted: a code of a training image is NaN or infinite"
        )
    return codes


def _encoded(
    model: GenerativeModel, images: Tensor, draws: int, generator: torch.Generator
) -> Tensor:
    """Codes (N * draws, d) of images on the CPU: what their tokens spell, or draws from q(z | x)."""
    if isinstance(model, HasTokens):
        return model.alphabet[model.tokens(images)].flatten(1).float().cpu()
    if isinstance(model, Encodes):
        return model.encode(images).float().cpu().repeat_interleave(draws, 0)
    if isinstance(model, DrawsPosterior):
        copies = images.repeat_interleave(draws, 0)
        noise = torch.randn(len(copies), model.latent_dim, generator=generator)
        return model.draw_posterior(copies, noise.to(images.device)).z.float().cpu()
    assert isinstance(model, HasPosterior)
    mu, logvar = (each.float().cpu() for each in model.posterior(images))
    mu, logvar = (each.repeat_interleave(draws, 0) for each in (mu, logvar))
    return reparameterize(mu, logvar, torch.randn(mu.shape, generator=generator))


def _generator(prior: Prior, what: str) -> torch.Generator:
    """The prior's own chance, apart from that of every score."""
    seed = int(digest(["prior", prior.kind, prior.seed, what], 15), 16)
    return torch.Generator().manual_seed(seed)

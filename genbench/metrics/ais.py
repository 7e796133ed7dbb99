"""`nll_ais`: one likelihood for every decoder, a GAN's too, with the error beside it.

Wu, Burda, Salakhutdinov and Grosse 2017, https://arxiv.org/abs/1611.04273; see `annealing`.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from genbench.data.cache import progress
from genbench.data.contract import ImageData, Split
from genbench.errors import UserMistake
from genbench.metrics.annealing import (
    FIRST_VARIANCE,
    FIT_ROUNDS,
    Decode,
    Setting,
    fit_variance,
    schedule,
    simulate,
)
from genbench.metrics.likelihood import Task
from genbench.models.contract import GenerativeModel
from genbench.runs.files import write_json
from genbench.runs.score import Score, digest

log = logging.getLogger("genbench")


BLOCK = 50  # images whose chains run together; also what is lost when a run is cut off


FIT_IMAGES = 50


WIDEST_GAP = 3.0  # nats; above, models are not to be compared


class Job(NamedTuple):
    """A part of the work: the moves that it takes, of how many images, and how it is done."""

    moves: int
    images: int
    run: Callable[[Setting], Tensor | float]


class Estimates(NamedTuple):
    """What all chains gave, in nats per image, density on [0, 1]."""

    variance: float
    test: Tensor  # (N,) from below
    below: Tensor  # (S,) of simulated images, from below
    above: Tensor  # (S,) of the same, from above

    @property
    def gap(self) -> float:
        """Mean distance of both estimates on simulated images."""
        return float((self.above - self.below).mean())


class AnnealedImportance:
    """`nll_ais`: -log p(x) of test images under a Gaussian around the decoder's image.

    Opt-in, by `enabled`. `images` of the test split and as many `simulated` ones; `variance` null
    for the one that suits the validation images. The work is about
    temperatures * leapfrogs * chains * (images + 2 * simulated) decodings with gradient.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        images: int,
        simulated: int,
        chains: int,
        pilot_chains: int,
        temperatures: int,
        leapfrogs: int,
        variance: float | None,
    ) -> None:
        least = {"images": 1, "simulated": 1, "chains": 1, "pilot_chains": 1, "leapfrogs": 1}
        given = {"images": images, "simulated": simulated, "chains": chains}
        given |= {"pilot_chains": pilot_chains, "leapfrogs": leapfrogs}
        given |= {"temperatures": temperatures}
        for name, value in given.items():
            if value < least.get(name, 2):
                raise UserMistake(f"ais.{name}={value}: it must be {least.get(name, 2)} or more")
        if variance is not None and variance <= 0:
            raise UserMistake(f"ais.variance={variance} is not a variance: it must be above 0")
        self.enabled, self.images, self.simulated = enabled, images, simulated
        self.chains, self.pilot_chains = chains, pilot_chains
        self.temperatures, self.leapfrogs, self.variance = temperatures, leapfrogs, variance

    @property
    def estimator(self) -> dict[str, Any]:
        """What defines the estimate, for its card; the variance is the model's own."""
        return {
            "chains": self.chains,
            "pilot_chains": self.pilot_chains,
            "temperatures": self.temperatures,
            "leapfrogs": self.leapfrogs,
            "simulated": self.simulated,
            "variance": "validation" if self.variance is None else self.variance,
            "block": BLOCK,
            "version": 1,
        }

    def __call__(self, task: Task) -> list[Score]:
        """Score any model whose prior is N(0, I), if this is enabled; nothing otherwise."""
        if not self.enabled or type(task.model).latents is not GenerativeModel.latents:
            return []
        count = min(self.images, len(task.data.pixels("test")))
        card = {
            "likelihood": "gaussian-ais",
            "density": {"range": [0, 1], "dequantised": True},
            "estimator": self.estimator,
            "heldout": {**task.data.card("test"), "first": count},
            "seed": task.seed,
            "weights": task.weights,
        }
        found = self.estimate(task, count, card)
        return _scores(found, card)

    def estimate(self, task: Task, count: int, card: dict[str, Any]) -> Estimates:
        """Run all chains, or those that are missing in the state of an earlier call."""
        state, setting = State(task, card), self._setting(task)
        jobs = self._jobs(task, count)
        missing = {name: job for name, job in jobs.items() if name not in state}
        if missing:
            sizes = {name: job.images for name, job in missing.items()}
            self._announce(setting, sizes, len(jobs), task)
        with progress() as bar:
            moves = sum(job.moves for job in missing.values())
            work = bar.add_task("annealed importance sampling", total=moves)
            setting = setting._replace(tell=lambda: bar.advance(work, 1))
            parts: dict[str, Tensor] = {}
            for name, job in jobs.items():
                parts[name] = state.get(name, partial(job.run, setting))
                if name == "variance":  # comes first; all else is under it
                    setting = setting._replace(variance=float(parts[name]))

        def joined(kind: str) -> Tensor:
            return torch.cat([part for name, part in parts.items() if name.startswith(kind)], 1)

        below, above = joined("simulated")
        return Estimates(setting.variance, joined("test")[0], below, above)

    def _setting(self, task: Task) -> Setting:
        return Setting(
            decode=unit_means(task.model, task.data.levels),
            latent_dim=task.model.latent_dim,
            variance=self.variance or FIRST_VARIANCE,
            leapfrogs=self.leapfrogs,
            betas=schedule(self.temperatures),
            chains=self.chains,
            pilot_chains=self.pilot_chains,
            decoded_at_once=task.batch_size,
            device=task.device,
            tell=lambda: None,
        )

    def _jobs(self, task: Task, count: int) -> dict[str, Job]:
        """What is to be done, by name."""
        moves = self.temperatures - 1
        jobs: dict[str, Job] = {}
        if self.variance is None:
            jobs["variance"] = Job(2 * FIT_ROUNDS, 0, partial(self._fit, task))
        for block in _blocks(count):
            run = partial(self._test, task, block)
            jobs[f"test {block.start}"] = Job(2 * moves, len(block), run)
        for block in _blocks(self.simulated):
            run = partial(self._simulated, task, block)
            jobs[f"simulated {block.start}"] = Job(3 * moves, len(block), run)
        return jobs

    def _announce(self, setting: Setting, missing: dict[str, int], jobs: int, task: Task) -> None:
        """Tell the cost before it is paid, from a few moves of one block; `missing` holds images."""
        generator = _generator(task.seed, "probe")
        block = range(min(BLOCK, len(task.data.pixels("test"))))
        images = _dequantised(task.data, "test", block, generator).to(task.device)
        chains = setting.prior(images, self.chains, generator)
        step = torch.full((len(images),), 1e-3, device=task.device)
        float(chains.move(0.5, step).sum())  # warms up; a number waits for the device
        began = time.perf_counter()
        float(chains.move(0.5, step).sum() + chains.move(0.5, step).sum())
        seconds = (time.perf_counter() - began) / 2
        share = self.pilot_chains / self.chains
        runs = {"variance": 0.0, "test": 1 + share, "simulated": 2 + share}
        paths = sum(runs[name.split()[0]] * count for name, count in missing.items())
        moves = paths * (self.temperatures - 1) / len(images)  # of such blocks
        decodings = moves * self.leapfrogs * self.chains * len(images)
        done = jobs - len(missing)
        _say(
            f"annealed importance sampling: {decodings:.2g} decodings with gradient, "
            f"about {_time(moves * seconds)} on {task.device}"
            + (f" ({done} of {jobs} parts are there already)" if done else "")
        )

    def _fit(self, task: Task, setting: Setting) -> float:
        generator = _generator(task.seed, "variance")
        block = range(min(FIT_IMAGES, len(task.data.pixels("validation"))))
        images = _dequantised(task.data, "validation", block, generator).to(task.device)
        return fit_variance(setting, images, generator)

    def _test(self, task: Task, block: range, setting: Setting) -> Tensor:
        """Estimate from below, (1, N)."""
        generator = _generator(task.seed, f"test {block.start}")
        images = _dequantised(task.data, "test", block, generator).to(task.device)
        return setting.forward(images, setting.steps(images, generator), generator)[None]

    def _simulated(self, task: Task, block: range, setting: Setting) -> Tensor:
        """Estimate simulated images from below and from above, (2, N)."""
        generator = _generator(task.seed, f"simulated {block.start}")
        z, images = simulate(setting, len(block), generator)
        steps = setting.steps(images, generator)
        below = setting.forward(images, steps, generator)
        return torch.stack([below, setting.backward(images, z, steps, generator)])


class State:
    """What is already computed for these weights under this protocol, in the run's directory."""

    def __init__(self, task: Task, card: dict[str, Any]) -> None:
        self.path: Path | None = None
        self.content: dict[str, Any] = {"protocol": card, "weights": _weights(task.model)}
        if task.directory is not None:
            self.path = task.directory / "ais" / f"{digest(self.content, 16)}.json"
            self.content = _read(self.path) or self.content

    def __contains__(self, name: str) -> bool:
        """Whether this part is there already."""
        return name in self.content

    def get(self, name: str, compute: Callable[[], Tensor | float]) -> Tensor:
        """Look a part up, or compute and keep it: float64, on the CPU."""
        if name not in self.content:
            value = torch.as_tensor(compute()).double().cpu()
            self.content[name] = value.tolist()
            if self.path is not None:
                self.path.parent.mkdir(exist_ok=True)
                write_json(self.path, self.content)
        return torch.tensor(self.content[name], dtype=torch.float64)


def unit_means(model: GenerativeModel, levels: int) -> Decode:
    """The decoder's image as means of dequantised levels: the middle of each level in [0, 1]."""

    def decode(z: Tensor) -> Tensor:
        return ((model.sample(z).float().flatten(1) + 1) / 2 * (levels - 1) + 0.5) / levels

    return decode


def _dequantised(data: ImageData, split: Split, block: range, generator: torch.Generator) -> Tensor:
    """Images of a split with uniform noise of one level, in [0, 1]: (N, D)."""
    pixels = torch.from_numpy(data.pixels(split)[block.start : block.stop].copy()).flatten(1)
    return (pixels.float() + torch.rand(pixels.shape, generator=generator)) / data.levels


def _generator(seed: int, what: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(digest([seed, what], 15), 16))


def _blocks(count: int) -> list[range]:
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _weights(model: GenerativeModel) -> str:
    """Hash everything that a checkpoint holds."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha256.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """A state that can be read, or none: then all is computed anew."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is damaged and made anew: %s", path, error)
        return None
    return content


def _scores(found: Estimates, card: dict[str, Any]) -> list[Score]:
    """The value, between itself less the gap and itself, then the gap and the variance."""
    value, gap = -float(found.test.mean()), found.gap

    def score(name: str, value: float, unit: str, better: bool | None, **rest: Any) -> Score:
        if not math.isfinite(value):
            return Score(name, None, unit, better, {"quantity": name, **card}, status="nonfinite")
        return Score(name, value, unit, better, {"quantity": name, **card}, **rest)

    status = "ok" if gap <= WIDEST_GAP else f"gap of {gap:.1f} nats: too wide to compare"
    if not math.isfinite(gap):
        status = "gap unknown: too wide to compare"
    bounds = {"low": value - max(gap, 0.0), "high": value} if math.isfinite(gap) else {}
    return [
        score("nll_ais", value, "nats", False, status=status, **bounds),
        score("ais_gap", gap, "nats", False),
        score("ais_variance", found.variance, "", None),
    ]


def _say(line: str) -> None:
    """Tell what takes time, on the terminal and in the log."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"  {line}")
    log.info(line)


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
